"""Between messages in memory and OUTCOME records (Cython callers only)."""
