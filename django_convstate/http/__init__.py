"""A conversation over HTTP: which one a request means, and what the response says of it."""
