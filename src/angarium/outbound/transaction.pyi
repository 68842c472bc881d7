"""Transactions out, step by step (Cython callers only)."""
