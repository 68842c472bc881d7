"""AUTH lines of a client session. Compiled callers only."""
