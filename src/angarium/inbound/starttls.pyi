"""STARTTLS, and what a handshake leads to; no Python face."""
