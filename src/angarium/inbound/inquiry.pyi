"""Judges are asked. Compiled callers only."""
