"""Angarium: a mail transfer agent whose 250 means stable storage."""

__version__ = "0.1.0"
