"""AUTH lines inside a server session. Compiled callers only."""
