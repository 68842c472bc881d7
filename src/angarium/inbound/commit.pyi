"""End of data, commit, 250. Compiled callers only."""
