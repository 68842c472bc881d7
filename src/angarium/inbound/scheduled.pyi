"""Solicitation fields of messages that come in. Compiled callers only."""
