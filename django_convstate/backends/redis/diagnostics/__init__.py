"""What a server tells about itself, and what the system checks make of it."""
