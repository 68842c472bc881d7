"""Which reply refuses a command. Compiled callers only."""
