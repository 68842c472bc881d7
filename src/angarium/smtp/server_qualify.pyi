"""Compiled callers only."""
