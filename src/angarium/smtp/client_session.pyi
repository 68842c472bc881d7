"""The client's half of SMTP (RFC 5321) and LMTP (RFC 2033), sans-IO: replies in, commands and events out.

Cython callers use the cdef methods of the .pxd; this is the face for tests and tools. Nothing here reads a clock or a
socket; `deadline_s` says how long the reply due next may take.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, final

from angarium.smtp.client_dialogue import BrokenDialogue as BrokenDialogue
from angarium.smtp.client_dialogue import ClientDialogue

EVENT_NAMES: tuple[str, ...]
STAGE_NAMES: tuple[str, ...]

class Event(NamedTuple):
    """Something a reply brought about.

    kind     ready | hello-refused | loop | recipient-refused | recipient-delivered (LMTP) | message-refused |
             send-body | delivered | over | closing (421) | bye | starttls (the handshake may begin) |
             starttls-refused (instead of ready: in clear) | auth-challenge (respond_auth() answers) | authenticated |
             auth-refused.
    stage    the command that was answered, "end of data" for the last reply of a transaction.
    slot     0 or 1: which transaction; index: which of its recipients.
    status   enhanced status code, (0, 0, 0) when the reply brought none.
    text     of the reply, lines joined by LF, at most 1024 octets, control octets replaced.
    is_over  the slot is free again; nothing more will be told of this transaction.
    """

    kind: str
    stage: str
    slot: int
    index: int  # type: ignore[assignment]
    code: int
    status: tuple[int, int, int]
    text: bytes
    is_over: bool

@final
class PhaseTimeouts:
    """How long a session waits, in seconds, by what it waits for (RFC 5321 §4.5.3.2): hello is EHLO, HELO, RSET and AUTH, handshake
    STARTTLS and TLS, block the next piece of the body to leave, end the reply behind the body."""

    def __init__(
        self,
        *,
        greeting: float = ...,
        hello: float = ...,
        handshake: float = ...,
        mail: float = ...,
        rcpt: float = ...,
        data: float = ...,
        block: float = ...,
        end: float = ...,
    ) -> None: ...

@final
class ClientSession(ClientDialogue):
    """One connection's dialogue, from the greeting to QUIT. Memory is bounded: 2 KiB and the commands not yet taken.

    hostname          our EHLO name, 1 to 255 octets.
    is_lmtp           LHLO, and a reply for each recipient behind the data.
    watches_for_loop  a greeting with our own name ends the session (RFC 5321 §6.3).
    wants_tls         STARTTLS where it is offered (RFC 3207).
    begins_with_tls   a handshake comes before the greeting (RFC 8314 §3.3).
    timeouts          None: those that RFC 5321 §4.5.3.2 asks for.
    Raises ValueError.
    """

    reply_count: int
    def __init__(
        self,
        hostname: bytes,
        is_lmtp: bool = False,
        watches_for_loop: bool = False,
        wants_tls: bool = False,
        begins_with_tls: bool = False,
        timeouts: PhaseTimeouts | None = None,
    ) -> None: ...
    def after_handshake(self) -> None:
        """TLS is up: all that was learnt in clear is forgotten, and EHLO is said again (RFC 3207 §4.2).

        Raises LocalProtocolError when no handshake was due.
        """
    def begin_auth(self, mechanism: str, initial: bytes | None = None) -> None:
        """AUTH (RFC 4954 §4). initial  the mechanism's first response, None: it has none; where the line would be over 512
        octets it is said to an empty challenge. Raises LocalProtocolError before the hello, in a transaction, or twice."""
    def respond_auth(self, response: bytes | None) -> None:
        """The answer to "auth-challenge"; None gives up. Raises LocalProtocolError when none is due, and for one that is over
        12286 octets in base64."""
    @property
    def challenge(self) -> bytes | None:
        """What the newest reply says in base64; None: it is not base64."""
    def receive(self, data: bytes) -> list[Event]:
        """Takes octets from the peer, in any cuts. Raises BrokenDialogue; the session is closed then."""
    def take_output(self) -> bytes:
        """What is to be sent now, in one write."""
    def start(
        self,
        reverse_path: bytes,
        forward_paths: Sequence[bytes | tuple[bytes, int, bytes]],
        *,
        message_octets: int = 0,
        is_8bit: bool = False,
        is_smtputf8: bool = False,
        requires_tls: bool = False,
        ret: Literal["", "FULL", "HDRS"] = "",
        envid: bytes = b"",
        by: Literal["data", "bdat", "bdat-later"] = "data",
        is_binary: bool = False,
        deliver_by: tuple[int, str, bool] | None = None,
        priority: int = 0,
        solicit: bytes = b"",
        submitter: bytes = b"",
    ) -> int:
        """Begins a transaction; returns its slot. Allowed while may_start.

        forward_paths  1 to 100 mailboxes without brackets, or (mailbox, SMTP_NOTIFY_* bits, ORCPT).
        by             data: MAIL, RCPT and DATA in one group, the body behind "send-body"; bdat: send_body() at once, in the
                       same group (RFC 3030); bdat-later: the body by BDAT behind "send-body".
        is_binary      BODY=BINARYMIME: LocalProtocolError where BINARYMIME and CHUNKING are not both offered.
        deliver_by     (seconds from now, "N" or "R", trace) of BY (RFC 2852).
        priority       of MT-PRIORITY, said wherever it is offered (RFC 6710 §4.2). solicit: keywords of SOLICIT (RFC 3865).
        submitter      of AUTH= in xtext (RFC 4954 §5), said where we are authenticated; b"": "<>".
        Without PIPELINING the commands go out one by one as replies come. Parameters the peer has not offered are
        left out. Raises LocalProtocolError.
        """
    def send_body(self, slot: int, message: bytes) -> None:
        """The whole message, CRLF lines; dots are doubled for DATA. Raises LocalProtocolError when not due."""
    def close(self) -> None:
        """QUIT. Raises LocalProtocolError inside a transaction or before the hello."""
    def offers(self, keyword: str) -> bool:
        """Whether the peer has offered this extension (one of EXTENSION_BITS)."""
    @property
    def deadline_s(self) -> float:
        """How long the reply due next may take (RFC 5321 §4.5.3.2); 0: none is due."""
    @property
    def is_ready(self) -> bool: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def may_start(self) -> bool: ...
