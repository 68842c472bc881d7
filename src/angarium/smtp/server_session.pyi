"""One SMTP dialogue, server side, without a socket, a clock or a policy (RFC 5321 and its extensions)."""

from typing import final

from typing_extensions import Buffer

from angarium.smtp.server_dialogue import ServerDialogue
from angarium.smtp.server_events import ServerEvent
from angarium.smtp.server_settings import ServerSettings

@final
class ServerSession(ServerDialogue):
    """Octets in, events out; replies wait in the output.

    greet() first; then receive() octets as they come and pull next_event() until it gives None, then send
    take_output(). Events that ask (Auth, AuthResponse, Mail, Rcpt, Data, Message, StartTls) stop the session until their
    answer: accept(), refuse(), challenge(), authenticate(), begin_data() or finish(). AUTH is offered while `mechanisms`
    is set, and XCLIENT, XFORWARD and ETRN are taken where `takes_...` is (answer(), reintroduce()). Any octets give events and replies, never an exception, and the same ones however they
    are cut; but octets behind a command that ends a group are only seen as such when they arrive with it.
    An idle session holds no buffers.
    """

    def __init__(self, settings: ServerSettings) -> None: ...
    def greet(self) -> None:
        """Says the greeting. Octets received before are answered 554 and end the session (RFC 5321 §3.1)."""
    def receive(self, data: Buffer) -> None:
        """Takes octets from the client; they are copied."""
    def next_event(self) -> ServerEvent | None:
        """The next event; None when more input or an answer is wanted."""
    def accept(self) -> None:
        """Yes to Mail, Rcpt or StartTls. After the last the output goes in clear, and what is received came under TLS."""
    def assume_tls(self) -> None:
        """The connection began with TLS (RFC 8314 §3.3). Before greet()."""
    def refuse(self, reply: bytes) -> None:
        """No to Auth, AuthResponse, Mail, Rcpt, Data or StartTls: a whole reply with CRLF; to Auth 421 ends the session.

        A refused first chunk is read before it is said.
        """
    def challenge(self, octets: bytes) -> None:
        """To Auth or AuthResponse: 334 with these octets, not encoded yet. Nothing happens when nothing asked."""
    def authenticate(self, identity: bytes) -> None:
        """To the same: 235, and the session has this identity. Nothing happens when nothing asked."""
    def answer(self, reply: bytes) -> None:
        """To XForward and Etrn, and to XClient when it is no. Nothing happens when nothing of these asked."""
    def reintroduce(self, helo: bytes | None, is_ehlo: bool, identity: bytes | None) -> None:
        """Yes to XClient: the greeting once more. helo: None when the client will say it itself."""
    def begin_data(self, trace: Buffer = b"") -> None:
        """Yes to Data; `trace` goes in front of the message. Raises LocalProtocolError when nothing asked."""
    def finish(self, reply: bytes) -> None:
        """The answer to Message, 250 or a refusal. Raises LocalProtocolError when nothing asked."""
    def close_with(self, reply: bytes) -> None:
        """The last reply, a refusal: timeouts, limits. Close follows as event."""
    def part_with(self, reply: bytes) -> None:
        """The last reply, which refuses nothing: shutdown. Close follows as event."""
    def take_body(self) -> bytes:
        """What of the message is stored so far: at Body, and all the rest at Message."""
    def take_output(self) -> bytes:
        """Octets to send."""
    def has_transaction(self) -> bool: ...
    def is_idle(self) -> bool:
        """Between commands, no transaction."""
    def is_in_data(self) -> bool:
        """Inside message data or a chunk."""
    @property
    def memory_octets(self) -> int:
        """Octets of the buffers held now."""
    @property
    def is_closed(self) -> bool: ...
