"""Connections to Redis with finite times: configuration, clients, deadlines, retries."""
