"""MAIL and RCPT inside a server session. Compiled callers only."""
