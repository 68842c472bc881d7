"""AUTH of outbound connections. Compiled callers only."""
