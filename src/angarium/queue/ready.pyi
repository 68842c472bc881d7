"""Ready queues: recipients that may go now, per site and egress source."""

from typing import final

from angarium.model.outcome import Trouble
from angarium.model.plan import Site, Source
from angarium.queue.adjustments import Apart
from angarium.queue.guests import Guests
from angarium.queue.rations import Ration
from angarium.queue.shaping import Kind, Limits
from angarium.queue.way import Way

class Egress:
    """Takes recipients out of ready queues; subclassed in Cython by outbound/ and mailbox/."""

class Appointer:
    """Says which worker serves a ready queue; subclassed in Cython by handover/."""

@final
class ReadyQueue:
    """Recipients ready for one site by one egress source, first in first out; all want the same of TLS (`wish`:
    model.plan.TlsWish)."""

    count: int
    most: int
    number: int
    site: Site
    source: Source
    wish: int
    kind: Kind | None
    apart: Apart | None
    limits: Limits
    way: Way | None
    ration: Ration | None
    site_name: bytes
    source_name: bytes
    egress: Egress
    state: object
    paused_until_mono_s: float
    last_trouble: str
    delivered_count: int
    connection_limit: int
    recipient_limit: int
    messages_per_connection: int
    home: int
    """The worker that serves this queue; -1: this one does."""
    handed: int
    """Recipients that it has."""
    guests: Guests | None
    """Mail of other workers, whose home this one is."""
    def pause(self, seconds: float) -> None:
        """Gives nothing out for that long; then its egress is woken."""
    def may_connect(self) -> bool:
        """Takes one of the machine's connections to the site; when False the egress is woken again by itself."""
    def connection_closed(self) -> None:
        """Gives one back."""
    def is_contended(self) -> bool:
        """Another worker asked in vain: idle connections should close."""
    def defer_all(self, trouble: Trouble) -> None:
        """One failed attempt for every recipient now in the queue, in slices."""
    def fail_all(self, trouble: Trouble) -> None:
        """The same for good."""
    @property
    def connections(self) -> int:
        """Of the whole machine, counted where this queue's are (queue/shaping.py)."""
