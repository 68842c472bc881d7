"""The greeting. Compiled callers only."""
