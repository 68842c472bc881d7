"""Connections from load balancers (Cython callers only)."""
