"""The memory of a mail transaction. Compiled callers only."""
