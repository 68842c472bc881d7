"""What judges say of a message, carried out. Compiled callers only."""
