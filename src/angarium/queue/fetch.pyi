"""Reading a message back from the spool (Cython callers only)."""
