"""What the attributes of an envelope ask of the queue. Compiled callers only."""
