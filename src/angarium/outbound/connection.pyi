"""One outbound connection: made by the pool, given its socket by the dialer."""

from asyncio import Future
from socket import socket
from typing import final

from angarium.outbound.carrier import Carrier
from angarium.outbound.dialer import Attempt
from angarium.outbound.tls_witness import SessionDomains
from angarium.outbound.trouble import Judgement
from angarium.queue.ready import ReadyQueue
from angarium.smtp.witness import Witness

class HelloFailed(Exception):
    """A connection did not get as far as transactions."""

    judgement: Judgement
    def __init__(self, judgement: Judgement) -> None: ...

class ConnectionOwner:
    """Who keeps connections; subclassed in Cython."""

@final
class Connection(Carrier):
    """The socket under a ClientSession, and at most two transactions in hand.

    deadline_kind     of the scheduler's wheel.
    hostname          our EHLO name.
    attempt           whom to, and what of TLS.
    tls_level         tls_policy.Level of the connection, once its hello is over.
    tls_distrust      why the certificate under it is not verified; "": it is, or there is no TLS.
    has_asked_for_tls  whether STARTTLS would have been said.
    local_address     numeric; "": none.
    session_domains   is told whose mail goes over it; None: nobody counts that.
    Holds references to the envelopes and bodies in hand, at most two chunks of a streamed body, and 2 KiB of its own.
    """

    hello: Future[None]
    host_key: tuple[str, str, int]
    attempt: Attempt
    tls_level: int
    tls_distrust: str
    has_asked_for_tls: bool
    local_address: str
    session_domains: SessionDomains | None
    def __init__(
        self,
        owner: ConnectionOwner,
        ready: ReadyQueue,
        deadline_kind: int,
        hostname: bytes,
        *,
        is_lmtp: bool,
        attempt: Attempt,
    ) -> None: ...
    def attach(self, sock: socket) -> None:
        """Connected and non-blocking; the connection's from now on. Raises OSError when it cannot be watched."""
    @property
    def observer(self) -> object | None:
        """Who looks on at the dialogue; None: nobody."""
    @property
    def site_name(self) -> str: ...
    def watch(self, witness: Witness | None) -> None:
        """Has somebody look on from the next command on; None: nobody any more."""
    def tls_text(self) -> str:
        """What TLS came to, for people; "" in clear or before it is up."""
    def close_now(self) -> None:
        """The dialer gives up on a hello."""
