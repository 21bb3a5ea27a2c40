"""A conversation in memory: what it holds, what has changed in it, and how it is saved."""
