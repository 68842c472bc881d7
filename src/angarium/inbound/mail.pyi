"""MAIL: is there room, and where the transaction begins. Compiled callers only."""
