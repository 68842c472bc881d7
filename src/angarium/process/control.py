"""The channel between the supervisor and one worker: what they may say to each other, and how it travels.

A letter is a msgpack map behind its length (4 octets, little-endian). Listening sockets travel beside the
letter that needs them (SCM_RIGHTS). Either side sees the other die as end of file. Counters do not travel
here: they lie in memory both can read.

Not an API for people: that is admin/. Both ends are the same program at the same version, always.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from angarium.model.errors import AngariumError
from angarium.outbound.explanation import Question, Subject
from angarium.outbound.tracing import Target
from angarium.policy.hook_file import HookSource
from angarium.queue.adjustments import Adjustment
from angarium.queue.notices import Notice, Tally, Treatments
from angarium.queue.selection import Selection
from angarium.queue.standing import Order

T = TypeVar("T")

_READ_OCTETS: Final = 256 << 10
_LETTER_OCTETS_MAX: Final = 64 << 20
_FDS_MAX: Final = 253  # SCM_MAX_FD, unix(7)
_DIED: Final = "the worker died"


class ControlError(AngariumError):
    """The other side refused a request, or is gone. The text says which."""


class Status(msgspec.Struct, tag="status"):
    """How is the worker? Answer: dict of figures."""


class Sources(msgspec.Struct, tag="sources"):
    """How are the egress sources? Answer: list of dict, in order of configuration."""


class Listing(msgspec.Struct, tag="listing"):
    """A page of the queue. Answer: (next cursor or -1, list of dict).

    cursor  0, or as an earlier answer said.
    """

    cursor: int
    limit: int
    domain: str | None = None
    state: str | None = None


class Show(msgspec.Struct, tag="show"):
    """One message. Answer: dict, or None when it is not here."""

    id: str


class Retry(msgspec.Struct, tag="retry"):
    """Try now: one message, a domain, or (neither) everything. Answer: number of recipients."""

    id: str | None = None
    domain: str | None = None


class Delete(msgspec.Struct, tag="delete"):
    """Drop without a DSN: one message, a domain, or (neither) everything. Answer: number of recipients."""

    id: str | None = None
    domain: str | None = None


class Walk(msgspec.Struct, tag="walk"):
    """Once through the queue: queue.orders.carry_out(). Answer: (recipients, messages, domains not
    looked up in time).

    reason, code, status  of "bounce".
    before_utc_s  only messages that came before; 0: any.
    """

    action: str
    where: Selection
    reason: str = ""
    code: int = 0
    status: str = "5.7.1"
    before_utc_s: float = 0.0


class Sample(msgspec.Struct, tag="sample"):
    """A few messages that a selection means. Answer: list of dict."""

    where: Selection
    limit: int


class Standing(msgspec.Struct, tag="standing"):
    """All standing orders from now on, automation's too, what changes in limits, and what replies are taken for.
    Answer: None."""

    orders: list[Order]
    adjustments: list[Adjustment] = []
    treatments: Treatments = Treatments()


class Refusal(msgspec.Struct, tag="refusal"):
    """One refusal that the worker remembers. Answer: its line of the log as dict, or None."""

    id: str


class Explain(msgspec.Struct, tag="explain"):
    """Why mail waits, or what it would meet. Answer: outbound.explanation.Explanation, or None: no such message here.

    id       of a message; or, "", the question is about an address.
    with_way  its route, site and limits, too: for one worker, which may ask DNS.
    """

    id: str = ""
    question: Question | None = None
    with_way: bool = True


class Look(msgspec.Struct, tag="look"):
    """What waits for a subject whose way is known. Answer: (waiting, unrouted, list of queue.facts.QueueFacts)."""

    subject: Subject


class Top(msgspec.Struct, tag="top"):
    """The busiest sites. Answer: queue.facts.SitesPart. order: of queue.top_sites.ORDERS."""

    order: str
    limit: int


class SitesNamed(msgspec.Struct, tag="sites-named"):
    """These sites, as the last Top found them. Answer: list of queue.facts.SiteRow."""

    names: list[str]


class Trace(msgspec.Struct, tag="trace"):
    """What happened between clients of `network` and us, or between us and the target, since it was asked last.

    Answer: list of dict.

    id           the same each time; a trace that nobody asks for ends by itself.
    data_octets  of the data of each message that are told; 0: none.
    """

    id: str
    network: str
    data_octets: int = 0
    target: Target | None = None


class EndTrace(msgspec.Struct, tag="end-trace"):
    """Nobody looks any more. Answer: None."""

    id: str


class Apply(msgspec.Struct, tag="apply"):
    """Work by this configuration from now on. One socket travels per address, in order. Answer: None.

    hooks  the text of policy.file, as the supervisor has read it.
    """

    tables: dict[str, Any]
    addresses: list[str]
    hooks: HookSource | None = None


class Beat(msgspec.Struct, tag="beat"):
    """A sign of life, please. Answer: None."""


class StandIn(msgspec.Struct, tag="stand-in"):
    """Accept on the sockets of worker `number` too, one per address, in order. Answer: None."""

    number: int
    addresses: list[str]


class StandDown(msgspec.Struct, tag="stand-down"):
    """Accept for worker `number` no more. Answer: None."""

    number: int


class Drain(msgspec.Struct, tag="drain"):
    """Accept nothing more, finish what is in hand within the deadline, exit 0. Answered only by exiting."""

    deadline_s: float


Request = (
    Status | Sources | Listing | Show | Retry | Delete | Walk | Sample | Standing | Refusal | Explain | Look
    | Top | SitesNamed | Trace | EndTrace
    | Apply | Beat | StandIn | StandDown | Drain
)  # fmt: skip


class Call(msgspec.Struct, tag="call"):
    serial: int
    request: Request
    fd_count: int = 0


class Answer(msgspec.Struct, tag="answer"):
    """`error` not empty: refused, for that reason."""

    serial: int
    value: msgspec.Raw = msgspec.Raw(b"\xc0")
    error: str = ""


class Ready(msgspec.Struct, tag="ready"):
    """From the worker, once: it serves."""


class CannotStart(msgspec.Struct, tag="cannot-start"):
    """From the worker, once, before it exits: the line that names what is in the way."""

    reason: str


class Wish(msgspec.Struct, tag="wish"):
    """From a worker: all workers, itself too, shall try the mail of a domain now. Answered by Granted."""

    serial: int
    request: Retry


class Granted(msgspec.Struct, tag="granted"):
    """What came of a Wish: recipients, over all workers that answered in time."""

    serial: int
    count: int


class Noticed(msgspec.Struct, tag="noticed"):
    """From a worker, at most once a second: what automation counts. Nobody answers."""

    notices: list[Notice]
    tallies: list[Tally]


Letter = Call | Answer | Ready | CannotStart | Wish | Granted | Noticed


class Channel:
    """One end. Owns its socket; lives on the loop it was made for; nothing here waits.

    on_letter  called per letter, in order, with the descriptors that came with it (the callee's to close).
    on_end     called once when the other side is gone; may be left out by who learns of that otherwise.
    """

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        on_letter: Callable[[Letter, list[int]], None],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = loop
        self._on_letter = on_letter
        self._on_end = on_end
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Letter] = msgspec.msgpack.Decoder(Letter)
        self._input = bytearray()
        self._fds: deque[int] = deque()
        self._output: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._is_closed = False
        loop.add_reader(sock.fileno(), self._on_readable)

    def send(self, letter: Letter, fds: Sequence[int] = ()) -> None:
        """Queues a letter; quietly nothing when the other side is gone (on_end tells).

        fds  stay the caller's, who may close them at once. Raises OSError when one is not open.
        """
        if self._is_closed:
            return
        body = self._encoder.encode(letter)
        was_idle = not self._output
        # Copies: while the letter waits for a worker that does not read, the numbers may come to mean something else.
        self._output.append((memoryview(len(body).to_bytes(4, "little") + body), _copies(fds)))
        if was_idle:
            self._on_writable()

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        self._forget_output()

    def drain_input(self) -> None:
        """Takes in at once what the other side had sent before it went."""
        while not self._is_closed and self._read():
            pass

    def _on_writable(self) -> None:
        while self._output:
            octets, fds = self._output[0]
            try:
                sent = socket.send_fds(self._sock, [octets], fds) if fds else self._sock.send(octets)
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._on_writable)
                return
            except OSError:
                self._forget_output()
                break
            _close(fds)
            if sent == len(octets):
                self._output.popleft()
            else:
                self._output[0] = (octets[sent:], ())
        self._loop.remove_writer(self._sock.fileno())

    def _forget_output(self) -> None:
        for _, fds in self._output:
            _close(fds)
        self._output.clear()

    def _on_readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        """One read and the letters it completes; False when there was nothing to read."""
        try:
            octets, fds = _receive(self._sock)
        except BlockingIOError:
            return False
        except OSError:
            octets, fds = b"", []
        self._fds.extend(fds)
        self._input += octets
        if not octets or not self._deliver():
            self._end()
        return True

    def _deliver(self) -> bool:
        """Hands on the complete letters; False when the other side sends something that is none."""
        while len(self._input) >= 4 and not self._is_closed:
            length = int.from_bytes(self._input[:4], "little")
            if length > _LETTER_OCTETS_MAX:
                return False
            if len(self._input) < 4 + length:
                break
            letter = self._decoder.decode(bytes(self._input[4 : 4 + length]))
            del self._input[: 4 + length]
            count = letter.fd_count if isinstance(letter, Call) else 0
            self._on_letter(letter, [self._fds.popleft() for _ in range(count)])
        return True

    def _end(self) -> None:
        if self._is_closed:
            return
        self.close()
        self._on_end()


def _copies(fds: Sequence[int]) -> list[int]:
    """Descriptors of the same files, closed on exec."""
    copies: list[int] = []
    try:
        for fd in fds:
            copies.append(os.dup(fd))
    except OSError:
        _close(copies)
        raise
    return copies


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """socket.recv_fds() with close-on-exec, a flag that it takes and ignores (CPython 3.11)."""
    octets, ancillary, _flags, _address = sock.recvmsg(
        _READ_OCTETS, socket.CMSG_SPACE(_FDS_MAX * 4), socket.MSG_CMSG_CLOEXEC
    )
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return octets, list(fds)


class Caller:
    """The supervisor's use of a channel: requests with answers."""

    def __init__(self, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        self._channel = channel
        self._loop = loop
        self._serial = 0
        self._waiting: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._is_ended = False

    async def call(
        self, request: Request, kind: type[T], *, fds: Sequence[int] = (), timeout_s: float = 5.0
    ) -> T:
        """The answer. Raises ControlError when the worker refuses, dies, is dead or does not answer in time, or one of
        fds is not open."""
        if self._is_ended:              # whoever was about to ask when it died would wait for ever
            raise ControlError(_DIED)
        self._serial += 1
        serial = self._serial
        future: asyncio.Future[msgspec.Raw] = self._loop.create_future()
        try:
            self._channel.send(Call(serial=serial, request=request, fd_count=len(fds)), fds)
        except OSError as error:
            raise ControlError(f"a socket cannot be sent: {error.strerror}") from None
        self._waiting[serial] = future
        try:
            async with asyncio.timeout(timeout_s):
                return msgspec.msgpack.decode(await future, type=kind)
        except TimeoutError:
            raise ControlError(f"no answer within {timeout_s:g} s") from None
        finally:
            del self._waiting[serial]

    def tell(self, request: Request) -> None:
        """Sends a request whose answer nobody waits for."""
        self._serial += 1
        self._channel.send(Call(serial=self._serial, request=request))

    def answered(self, answer: Answer) -> None:
        """Takes an answer that came. One nobody waits for any more is dropped."""
        future = self._waiting.get(answer.serial)
        if future is None or future.done():
            return
        if answer.error:
            future.set_exception(ControlError(answer.error))
        else:
            future.set_result(answer.value)

    def ended(self) -> None:
        """The worker is gone: nobody will answer, who waits now or asks later."""
        self._is_ended = True
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ControlError(_DIED))
