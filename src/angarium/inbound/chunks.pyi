"""Runs of large messages on their way to the spool. Compiled callers only."""
