"""DATA and BDAT inside a server session. Compiled callers only."""
