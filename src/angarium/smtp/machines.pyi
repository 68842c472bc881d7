"""The C machines of csrc/smtp, for tests and micro benchmarks (sessions use csmtp.pxd).

Results are the names of the C enums without prefix, in lower case: SMTP_PATH_BAD_LITERAL is "bad_literal".
Spans come as the octets they stand for. What each machine promises is said in its header.
"""

from collections.abc import Iterable
from typing import Final, Self, TypedDict, final, type_check_only

PATH_RESULTS: Final[tuple[str, ...]]
LINE_RESULTS: Final[tuple[str, ...]]
COMMAND_RESULTS: Final[tuple[str, ...]]
VERBS: Final[tuple[str, ...]]
KEYWORDS: Final[tuple[str, ...]]
REPLY_RESULTS: Final[tuple[str, ...]]
DATA_FAULTS: Final[tuple[str, ...]]

LIMITS: Final[dict[str, int]]
"""The limits compiled into the machines, in octets or pieces; to be held against smtp/limits.py."""

@type_check_only
class Path(TypedDict):
    result: str
    end: int
    mailbox: bytes
    local_part: bytes
    domain: bytes
    is_null: bool
    is_quoted: bool
    is_literal: bool
    has_source_route: bool
    has_utf8: bool

@type_check_only
class Command(TypedDict):
    result: str
    verb: str
    """Upper case; "HTTP" for another protocol's verbs; empty when unknown."""
    error_offset: int
    verb_text: bytes
    argument: bytes
    is_last: bool
    chunk_octets: int
    path: Path
    parameters: list[tuple[bytes, bytes | None, str]]
    """(keyword as written, value or None without "=", keyword in upper case or empty when unknown)"""

@type_check_only
class DataResults(TypedDict):
    octets_in: int
    octets_out: int
    fault: str
    fault_offset: int
    received_count: int
    longest_line: int
    has_8bit: bool
    has_dot_line: bool
    ends_with_crlf: bool

def parse_path(data: bytes, *, utf8: bool = False, null: bool = False, postmaster: bool = False) -> Path:
    """A path in brackets at the start of data (smtp_path_parse)."""

def parse_mailbox(data: bytes, *, utf8: bool = False, postmaster: bool = False) -> Path:
    """A mailbox without brackets that is all of data (smtp_mailbox_parse)."""

def domain_is_valid(data: bytes, *, utf8: bool = False) -> bool:
    """Whether data is a domain or an address literal (smtp_domain_is_valid)."""

def utf8_is_valid(data: bytes) -> bool:
    """Whether data is well-formed UTF-8 (RFC 3629)."""

def base64_is_valid(data: bytes) -> bool:
    """Strict base64: whole quanta, padded, unused bits zero (RFC 4648 §4)."""

def find_line(data: bytes, limit: int) -> tuple[str, int]:
    """(result, length) of the next command line (smtp_line_find); `limit` in octets, CRLF counted."""

def parse_command(line: bytes, *, utf8: bool = False) -> Command:
    """One command line without its CRLF (smtp_command_parse)."""

def parse_decimal(data: bytes) -> int | None:
    """1 to 20 digits below 2**64, or None."""

def xtext_is_valid(data: bytes) -> bool:
    """Whether data is xtext (RFC 3461 §4)."""

def parse_notify(data: bytes) -> frozenset[str] | None:
    """The keywords of a NOTIFY value (RFC 3461 §4.1), or None."""

@final
class ReplyMachine:
    """Reads replies (smtp_reply_push). Owns its C struct; code, status and text are valid after "complete"."""

    def push(self, data: bytes) -> tuple[str, int]:
        """(result, octets consumed). Stops behind one reply; errors stick until reset()."""

    def reset(self) -> None: ...
    @property
    def code(self) -> int: ...
    @property
    def status(self) -> tuple[int, int, int]:
        """Enhanced status code; (0, 0, 0) when there is none."""

    @property
    def line_count(self) -> int: ...
    @property
    def text(self) -> bytes:
        """Lines joined by LF, at most LIMITS["reply_text"] octets."""

    @property
    def text_dropped(self) -> int: ...

@final
class DataMachine:
    """Reads message data (smtp_data_push). `line_limit` in octets with CRLF, 0 for none."""

    def __new__(cls, *, is_chunking: bool = False, line_limit: int = 0) -> Self: ...
    def push(self, data: bytes) -> tuple[bool, int, bytes]:
        """(message has ended, octets consumed, un-stuffed octets)."""

    def end_chunks(self) -> bytes:
        """The end of the last BDAT chunk: what was held back."""

    def results(self) -> DataResults: ...

def stuff(pieces: Iterable[bytes]) -> bytes:
    """A message, given in pieces, as DATA sends it: dots doubled, end of data behind it."""

def unstuff(data: bytes) -> bytes:
    """The message in data, which ends with its end of data; ValueError when it does not."""

def repeat_data(data: bytes, line_limit: int, count: int) -> int:
    """Reads the same message data `count` times without touching Python; sum of octets written."""

def repeat_stuff(data: bytes, count: int) -> int:
    """Stuffs the same message `count` times; sum of octets written."""

def repeat_command(data: bytes, count: int) -> int:
    """Finds and parses the line at the start of data (with CRLF) `count` times; how often it was accepted."""

def repeat_reply(data: bytes, count: int) -> int:
    """Reads the reply in data `count` times; how often it was complete."""
