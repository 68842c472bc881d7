"""What the values of MAIL and RCPT parameters mean. Compiled callers only."""
