"""Frames between workers; used by compiled code alone."""
