"""XCLIENT, XFORWARD and ETRN, as connections hear them. Compiled callers only."""
