"""Terms that a client asks for with MAIL, and who is granted them. Compiled callers only."""
