"""The event lines of the queue (Cython callers only)."""
