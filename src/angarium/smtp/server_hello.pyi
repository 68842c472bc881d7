"""HELO, EHLO and STARTTLS inside a server session. Compiled callers only."""
