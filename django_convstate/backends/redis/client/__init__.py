"""Clients of Redis with finite waits: configuration, making, limits, deadlines, retries."""
