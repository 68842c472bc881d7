"""Bodies sent chunk by chunk (Cython callers only)."""
