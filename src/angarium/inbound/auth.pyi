"""AUTH: what is offered, and exchanges handed to the authority. Compiled callers only."""
