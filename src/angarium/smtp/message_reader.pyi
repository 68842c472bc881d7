"""The octets of one message on their way in. Compiled callers only."""
