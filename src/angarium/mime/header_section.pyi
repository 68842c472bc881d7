"""The header machine of submission as Python sees it (csrc/mime/header.h)."""

def find_end(message: bytes) -> tuple[str, int]:
    """("open", "blank" or "body", offset behind the last field)."""

def fields(header: bytes) -> list[tuple[int, bytes, bytes]]:
    """(kind, name and colon, value with its CRLF) of each field."""

def fields_for_any_reader(message: bytes) -> list[tuple[int, bytes, bytes]]:
    """The same for whoever passes over lines that are no fields, as far as the empty line."""

def mailboxes(value: bytes) -> list[tuple[bytes, bool]]:
    """(addr-spec, whether it has a domain) of each mailbox in the value of an address field."""


def are_clear(value: bytes) -> bool:
    """Whether every reader finds the same mailboxes in the value of an address field."""


def complete(header: bytes, domain: bytes, without_sender: bool = False) -> bytes:
    """The header section with the domain behind every mailbox that has none."""
