"""Sockets of sessions. Compiled callers only."""
