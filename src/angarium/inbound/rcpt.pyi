"""RCPT: may this client send to this recipient? Compiled callers only."""
