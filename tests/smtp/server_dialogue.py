"""A server session and an application that takes everything: what transcripts are played against."""

from __future__ import annotations

from collections.abc import Iterable

from smtp.sasl_peer import SaslPeer

from angarium.inbound import claims
from angarium.smtp import server_events
from angarium.smtp.server_events import ServerEvent
from angarium.smtp.server_session import ServerSession
from angarium.smtp.server_settings import ServerSettings

QUEUED = b"250 2.0.0 Ok: queued as 0000000000000\r\n"
DENIED = b"550 5.7.1 Relaying denied\r\n"


class Dialogue:
    """Feeds octets, answers every question with yes, keeps events, replies and messages.

    denied    forward-paths that the application refuses.
    is_full   the application refuses MAIL.
    sasl      offers AUTH and knows the credentials.
    takes     "xclient", "xforward", "etrn": offered; `denied` nodes are refused.
    """

    def __init__(
        self,
        settings: ServerSettings,
        *,
        denied: Iterable[bytes] = (),
        is_full: bool = False,
        sasl: SaslPeer | None = None,
        takes: Iterable[str] = (),
    ) -> None:
        self.session = ServerSession(settings)
        for name in takes:
            setattr(self.session, f"takes_{name}", True)
        self.denied = frozenset(denied)
        self.is_full = is_full
        self.sasl = sasl
        if sasl is not None:
            sasl.offer(self.session)
        if settings.hold_max_s:
            self.session.future_release = b"%d 2030-01-01T00:00:00Z" % settings.hold_max_s
        self.events: list[ServerEvent] = []
        self.output = b""
        self.messages: list[bytes] = []
        self.most_memory_octets = 0
        self._message = b""

    def greet(self) -> None:
        self.session.greet()
        self.output += self.session.take_output()

    def feed(self, octets: bytes) -> None:
        self.session.receive(octets)
        while (event := self.session.next_event()) is not None:
            self.most_memory_octets = max(self.most_memory_octets, self.session.memory_octets)
            self._answer(event)
        self.most_memory_octets = max(self.most_memory_octets, self.session.memory_octets)
        self.output += self.session.take_output()

    def feed_in_pieces(self, octets: bytes, cuts: Iterable[int]) -> None:
        start = 0
        for cut in [*sorted(cuts), len(octets)]:
            if cut > start:
                self.feed(octets[start:cut])
                start = cut

    def _answer(self, event: ServerEvent) -> None:
        match event:
            case server_events.Body():
                # Where a message is cut into runs depends on how it arrived: not an event of the dialogue.
                self._message += self.session.take_body()
                return
            case server_events.Auth() | server_events.AuthResponse() if self.sasl is not None:
                self.sasl.answer(self.session, event)
            case server_events.Mail() if self.is_full:
                self.session.refuse(b"452 4.3.1 Insufficient storage\r\n")
            case server_events.Rcpt(forward_path=path) if path in self.denied:
                self.session.refuse(DENIED)
            case server_events.XClient(argument=argument):
                try:
                    claim = claims.introduction(None, argument)
                except claims.BadClaim as error:
                    self.session.answer(b"501 5.5.4 " + str(error).encode() + b"\r\n")
                else:
                    helo = None if claim.helo is None else claim.helo.encode()
                    self.session.reintroduce(helo, claim.proto == "ESMTP", claim.login.encode() or None)
            case server_events.XForward(argument=argument):
                try:
                    claims.forwarded(None, argument)
                except claims.BadClaim as error:
                    self.session.answer(b"501 5.5.4 " + str(error).encode() + b"\r\n")
                else:
                    self.session.answer(b"250 2.0.0 Ok\r\n")
            case server_events.Etrn(argument=node):
                self.session.answer(b"459 4.7.1 no\r\n" if node in self.denied else b"250 2.0.0 Ok\r\n")
            case server_events.Mail() | server_events.Rcpt() | server_events.StartTls():
                self.session.accept()
            case server_events.Data():
                self._message = b""
                self.session.begin_data()
            case server_events.Message():
                self.messages.append(self._message + self.session.take_body())
                self.session.finish(QUEUED)
        self.events.append(event)
