"""An example: a concierge that remembers what was said, because `request.conversation` does."""
