"""DATA and BDAT: trace field, streaming, end of data. Compiled callers only."""
