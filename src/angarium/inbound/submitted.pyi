"""Fix-ups of submitted messages. Compiled callers only."""
