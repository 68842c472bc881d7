"""Envelope and state octets as Python values, for admin commands, DSNs, tools and tests."""

import enum
from collections.abc import Iterable

import msgspec

class Flag(enum.IntFlag):
    """SPOOL_ENVELOPE_* of csrc/spool/envelope.h, which says what each means."""

    EIGHT_BIT = 1
    SMTPUTF8 = 2
    BODY_8BITMIME = 4
    DOT_LINE = 8
    NO_FINAL_CRLF = 16
    RET_FULL = 32
    RET_HDRS = 64
    IS_DSN = 128
    INLINE = 256
    COPY = 512
    COPY_FIRST = 1024
    REQUIRETLS = 2048
    TLS_OPTIONAL = 4096
    BINARYMIME = 8192

class Attribute(enum.IntEnum):
    """SPOOL_ATTRIBUTE_* of csrc/spool/envelope.h, which says what each value looks like."""

    HOLD_UNTIL = 1
    DELIVER_BY = 2
    PRIORITY = 3
    TENANT = 4
    CAMPAIGN = 5
    ROUTE = 6
    POOL = 7
    IDENTITY = 8
    SOLICIT = 9

class Status(enum.IntEnum):
    """What has become of one recipient. DELIVERED, FAILED and EXPIRED are final."""

    WAITING = 0
    DELIVERED = 1
    FAILED = 2
    EXPIRED = 3

class Chunk(msgspec.Struct, frozen=True):
    """Where a run of the message's octets lies: a BODY record."""

    segment_serial: int
    offset: int
    length: int

class Recipient(msgspec.Struct, frozen=True):
    """One RCPT: mailbox without brackets, DSN parameters as given, SMTP_NOTIFY_* bits."""

    forward_path: bytes
    orcpt: bytes = b""
    notify: int = 0
    domain_offset: int = 0

class RecipientState(msgspec.Struct, frozen=True):
    """One recipient's entry of an OUTCOME record (csrc/spool/state.h).

    next_attempt_utc_s  0: none planned.    reply_code  last SMTP reply, 0: none.
    enhanced            RFC 3463 class, subject, detail; all 0: none.
    reply_text          at most 200 octets, cut when longer.    remote_host  at most 100.
    """

    status: Status = Status.WAITING
    attempts: int = 0
    next_attempt_utc_s: int = 0
    reply_code: int = 0
    enhanced: tuple[int, int, int] = (0, 0, 0)
    reply_text: bytes = b""
    remote_host: bytes = b""
    flags: int = 0

class Envelope(msgspec.Struct, frozen=True):
    """All of an envelope. Paths are mailboxes without brackets; an empty reverse-path is the null one.

    attributes  Attribute (or a number of a later version) and text, in order; of a key twice the first counts.
    """

    id: int
    received_utc_ms: int
    message_octets: int
    flags: Flag
    reverse_path: bytes
    envid: bytes
    helo: bytes
    client_address: bytes
    listener: bytes
    recipients: tuple[Recipient, ...]
    chunks: tuple[Chunk, ...]
    attributes: tuple[tuple[int, bytes], ...] = ()
    @staticmethod
    def parse(data: bytes) -> Envelope:
        """Raises SpoolCorrupt when the octets are no envelope."""
    def build(self) -> bytes:
        """The octets. With Flag.INLINE the one chunk is left for the commit thread to fill. Raises ValueError on NUL, CR,
        LF or over-long fields."""

def build_state(recipients: Iterable[RecipientState]) -> bytes:
    """State octets for all recipients of a message, in envelope order."""

def parse_state(data: bytes) -> tuple[RecipientState, ...]:
    """Raises SpoolCorrupt when the octets are no state."""

def encode_id(message_id: int) -> str:
    """13 characters of Crockford base32, as in replies and log lines."""

def decode_id(text: str) -> int:
    """Any case. Raises ValueError."""
