# References out: an Outlet for each ready queue whose site has its home at another worker, and one OwnerLink to each such worker.
#
# What is handed over stays in hand here, and with it pinned where it lies: recipients are PLACE_HANDED until their outcome comes, which
# is then treated as that of an attempt of our own. Who has none when the reference is over, or when the link ends, goes back to the
# ready queue as it was. Few are out at a time (Room, REFERENCES_MAX a link): the rest waits here, in its order.
cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from angarium.handover.frames cimport (
    DELIVERED_HAS_DSN, DELIVERED_IS_TRACED, FRAME_CLOSE, FRAME_DELIVERED, FRAME_HELLO, FRAME_NOT_HERE, FRAME_OPEN, FRAME_OVER, FRAME_REFERENCE,
    FRAME_REFUSED, FRAME_SOURCE_DOWN, FRAME_WITHDRAW, HELLO_MAGIC, HELLO_VERSION, NO_SEGMENT, RECIPIENTS_MAX, REFERENCES_MAX, WINDOW,
    WINDOW_LEAST,
    FrameWriter, frame_reader, read8, read16, read32, read64, read_rest, read_text)
from angarium.handover.link cimport Link
from angarium.metrics.counters cimport Counter
from angarium.model.clock cimport mono_ms
from angarium.queue.domains cimport DomainQueue
from angarium.queue.fetch cimport fetch_envelope
from angarium.queue.message cimport (
    PLACE_HANDED, PLACE_IN_HAND, PLACE_NOWHERE, RECIPIENT_TRACED, chunk_count_of, handed_to, message, recipient,
    transaction)
from angarium.queue.ready cimport Egress, ReadyQueue
from angarium.queue.scheduler cimport Scheduler
from angarium.spool.cspool cimport SPOOL_ENVELOPE_INLINE, spool_segment, spool_segment_face
from angarium.spool.foreign cimport describe

import asyncio
import collections
import functools

import msgspec

from angarium.handover.lodging import Lodging, decode_trouble
from angarium.metrics.counters import counter, gauge
from angarium.model.errors import RemoteProtocolError
from angarium.model.outcome import Trouble

cdef Counter handed_over = counter("angarium_handover_references_total",
                                   "References to messages handed to the home worker of their site.")
cdef Counter came_back = counter("angarium_handover_returned_total",
                                 "Of those references: came back with recipients that were not tried.")
cdef Counter out_now = gauge("angarium_handover_out", "References that are with the home worker of their site now.")

cdef double CALLED_BACK_S = 0.25    # longer than who called it back looks for it (queue/orders.py, scheduler.pyx)
cdef double AGAIN_S = 0.2           # judged: longer than a worker needs to see that another lives or is gone
cdef enum:
    AHEAD_MS = 250                  # judged: with the home's own mail and that of others in between, well below a second
    FIRST = 4
    FAILURES_TOLD = 10              # dials in a row: two seconds


cdef bytes encoded(object value):
    return msgspec.msgpack.encode(value)


cdef inline const char *text_or_null(bytes text) noexcept:
    return <const char *>text if text else NULL


@cython.final
cdef class Room:
    def __init__(self, uint32_t count=FIRST):
        self.count = count

    cpdef void waited(self, uint64_t begun_ms, uint64_t elapsed_ms, uint64_t now_ms) noexcept:
        # How long a delivery takes, and how many the home makes at once, need not be known: who found a connection soon leaves room for
        # more, who did not for fewer. Those that were out with it would only say so once more.
        cdef uint64_t wait_ms = now_ms - begun_ms - elapsed_ms if now_ms > begun_ms + elapsed_ms else 0
        if wait_ms <= AHEAD_MS // 2:
            self.count = min(<uint32_t>WINDOW, self.count + 1)
        elif wait_ms > AHEAD_MS and begun_ms >= self.lessened_ms:
            self.count = max(<uint32_t>WINDOW_LEAST, self.count * 3 // 4)
            self.lessened_ms = now_ms


@cython.final
cdef class Outlet:
    def __init__(self, HandOver handover not None, ReadyQueue ready not None):
        cdef Scheduler scheduler
        self.handover = handover
        self.ready = ready
        self.worker = ready.home
        self.room = Room(handover.first_room)
        # Of a queue that a reload has not gone through yet some was planned by what was before it: see distribute().
        scheduler = handover.scheduler
        self.generation = scheduler.generation
        if ready.limits is not scheduler.shaping.limits(ready.site, ready.source.name, ready.kind):
            self.generation -= 1
        handover.all_outlets.add(self)

    cdef void wake(self) noexcept:
        if self.is_due or self.is_retired or self.handover.is_draining:
            return
        try:
            self.handover.loop.call_soon(self.distribute)
            self.is_due = True
        except Exception:
            pass                        # the loop is closing: mail stays in the spool

    def distribute(self):
        cdef OwnerLink link
        cdef slot *s
        cdef double now_s = mono_ms() / 1000.0
        self.is_due = False
        if self.is_retired or self.handover.is_draining or now_s < self.paused_until_s or self.ready.count == 0:
            return
        if self.generation != self.handover.scheduler.generation:
            return                      # some of it was planned by what a reload has replaced: planned_anew() follows
        link = self.handover.link_to(self.worker)
        if link is None:
            return                      # being dialled: it wakes everybody
        while self.out < min(link.window(), self.room.count) and self.ready.count:
            s = link.reserve()
            if s == NULL:
                if not self.is_waiting:
                    self.is_waiting = True
                    link.waiting.append(self)
                return
            if not self.ready.pick(&s.t, RECIPIENTS_MAX, NULL):
                link.free_slot(s)
                return
            s.outlet = <void *>self
            Py_INCREF(self)
            self.out += 1
            s.begun_ms, s.elapsed_ms = mono_ms(), 0
            link.begin(s)

    cdef int tell_of_itself(self, OwnerLink link) except -1:
        """Before its first reference on a link, and again when another plan or configuration has come."""
        cdef bytes lodging
        if self.link is link and self.planned_by == self.handover.configuration:
            if self.site is self.ready.site and self.source is self.ready.source:
                return 0
            if self.site == self.ready.site and self.source == self.ready.source:
                self.site, self.source = self.ready.site, self.ready.source
                return 0
        if self.link is not link:
            link.last_channel += 1
            self.channel = link.last_channel
        self.planned_by = self.handover.configuration
        lodging = encoded(Lodging(self.ready.site, self.ready.source, self.ready.wish, self.ready.kind, self.ready.apart,
                                  self.planned_by))
        link.out.begin(FRAME_OPEN)
        link.out.number(self.channel, 4)
        link.out.octets(<const uint8_t *><const char *>lodging, <size_t>len(lodging))
        link.out.end()
        self.site, self.source = self.ready.site, self.ready.source
        self.link = link
        link.outlets[self.channel] = self
        return 0

    cdef void recall(self) noexcept:
        self.turn += 1
        if self.link is None or self.out == 0:
            return
        try:
            self.link.out.begin(FRAME_WITHDRAW)
            self.link.out.number(self.channel, 4)
            self.link.out.end()
            self.link.sent()
        except Exception as error:
            self.link.fail_later(error)

    cdef void retire(self) noexcept:
        self.is_retired = True
        self.recall()
        try:
            if self.out == 0:
                self.leave_link()
        except Exception as error:
            if self.link is not None:
                self.link.fail_later(error)

    cdef int leave_link(self) except -1:
        """Nothing of it is out, and nothing more follows."""
        cdef OwnerLink link = self.link
        self.handover.all_outlets.discard(self)
        self.link = None
        if link is not None and not link.is_closed:
            link.outlets.pop(self.channel, None)
            link.out.begin(FRAME_CLOSE)
            link.out.number(self.channel, 4)
            link.out.end()
            link.sent()
        return 0

    cdef void call_back(self) noexcept:
        cdef double now_s = mono_ms() / 1000.0
        if now_s < self.called_back_until_s:
            return                      # nothing has gone out since
        try:
            self.pause(CALLED_BACK_S)
            self.called_back_until_s = now_s + CALLED_BACK_S
        except Exception:
            return                      # the loop is closing
        self.recall()

    def go_on(self):
        if self.ready.count:
            self.wake()

    def pause(self, double seconds):
        self.paused_until_s = mono_ms() / 1000.0 + seconds
        self.handover.loop.call_later(seconds + 0.01, self.go_on)


@cython.final
cdef class OwnerLink(Link):
    """Owns its slots; each slot in use the recipients array of its transaction, kept for the next one."""

    def __cinit__(self, loop, journal, HandOver handover=None, int worker=0):
        cdef int i
        self.handover = handover
        self.worker = worker
        self.outlets = {}
        self.waiting = collections.deque()
        self.slots = <slot *>calloc(REFERENCES_MAX, sizeof(slot))
        self.free_slots = <uint32_t *>calloc(REFERENCES_MAX, sizeof(uint32_t))
        if self.slots == NULL or self.free_slots == NULL:
            raise MemoryError()
        self.free_count = REFERENCES_MAX
        for i in range(REFERENCES_MAX):
            self.free_slots[i] = <uint32_t>(REFERENCES_MAX - 1 - i)
        self.out.begin(FRAME_HELLO)
        self.out.number(HELLO_MAGIC, 4)
        self.out.number(HELLO_VERSION, 1)
        self.out.number(<uint64_t>self.handover.number, 1)
        self.out.end()

    def __dealloc__(self):
        cdef int i
        if self.slots != NULL:
            for i in range(REFERENCES_MAX):
                free(self.slots[i].t.recipients)
        free(self.slots)
        free(self.free_slots)

    cdef str peer(self):
        return f"worker {self.worker}"

    # ---------------------------------------------------------------- slots

    cdef slot *reserve(self) noexcept:
        if self.is_closed or self.free_count == 0:
            return NULL
        self.free_count -= 1
        return &self.slots[self.free_slots[self.free_count]]

    cdef void free_slot(self, slot *s) noexcept:
        s.state = SLOT_FREE
        s.generation += 1
        self.free_slots[self.free_count] = <uint32_t>(s - self.slots)
        self.free_count += 1

    cdef uint32_t window(self) noexcept:
        """Of each ready queue. Half of the slots are for those that have few out: queues that do not move keep what they have."""
        return WINDOW if self.free_count > REFERENCES_MAX // 2 else WINDOW_LEAST

    @property
    def out_count(self):
        return REFERENCES_MAX - self.free_count

    # ---------------------------------------------------------------- out

    cdef int begin(self, slot *s) except -1:
        cdef Outlet outlet = <Outlet>s.outlet
        cdef uint32_t i
        s.count = s.t.count
        s.told = 0
        s.turn = outlet.turn
        s.state = SLOT_FETCHING
        outlet.ready.handed += s.count
        out_now.cell[0] += 1
        handed_over.cell[0] += 1
        for i in range(s.count):
            s.t.recipients[i].link.where = PLACE_HANDED
            s.t.recipients[i].link.due = handed_to(outlet.worker, outlet.ready.number)
        if s.t.message.envelope == NULL:
            try:
                fetch_envelope(self.handover.scheduler, s.t.message,
                               functools.partial(self.fetched, <uint32_t>(s - self.slots), s.generation))
            except Exception as error:
                self.cannot_go(s, error)
            return 0
        return self.send(s)

    def fetched(self, uint32_t index, uint32_t generation, int error):
        """The envelope is there; if it cannot be read, whoever delivers will say so."""
        cdef slot *s = &self.slots[index]
        cdef Outlet outlet
        if s.generation != generation or s.state != SLOT_FETCHING:
            return
        outlet = <Outlet>s.outlet
        if self.is_closed or outlet.is_retired or outlet.turn != s.turn or outlet.generation != self.handover.scheduler.generation:
            self.finish(s)
        else:
            self.send(s)

    cdef int send(self, slot *s) except -1:
        s.state = SLOT_OUT
        try:
            (<Outlet>s.outlet).tell_of_itself(self)
            self.put_reference(s)
            self.sent()
        except Exception as error:
            self.out.forget()
            self.cannot_go(s, error)
        return 0

    cdef int cannot_go(self, slot *s, object error) except -1:
        """A bug of ours, or no memory: that may not hold up the queue for ever, nor lose anybody."""
        cdef Outlet outlet = <Outlet>s.outlet
        cdef uint32_t i
        trouble = Trouble(0, (4, 3, 0), f"cannot be handed to worker {self.worker}: {error}")
        self.journal.log("error", where="hand-over", reason=repr(error))
        for i in range(s.count):
            s.t.recipients[i].link.where = PLACE_IN_HAND
            self.handover.scheduler.deferred(outlet.ready, &s.t, i, trouble, 0)
            s.t.recipients[i] = NULL
        s.told = s.count
        return self.finish(s)

    cdef int put_reference(self, slot *s) except -1:
        """4 channel, 4 slot, 4 generation, 8 message id, 1 shard, 2 message.flags, 4 message_octets, 8 received_utc_ms; envelope: 4 offset,
        4 length; 4 offset of the body beside it, or of the first chunk; 2 count of segments, each 4 serial, 4 slot, 4 salt, 8 octets,
        the envelope's first; 4 count of chunks, each 2 number of its segment, or NO_SEGMENT; 4 count of recipients, each 4 index in
        the envelope, 1 length of the domain and the domain, which is left out (0) when it is the last one's."""
        cdef message *m = s.t.message
        cdef FrameWriter out = self.out
        cdef spool_segment_face face
        cdef uint32_t i, chunk_count = chunk_count_of(m)
        cdef void *domain = NULL
        cdef bytes name
        cdef dict numbers = {<size_t>m.home: 0}
        out.begin(FRAME_REFERENCE)
        out.number((<Outlet>s.outlet).channel, 4)
        out.number(<uint64_t>(s - self.slots), 4)
        out.number(s.generation, 4)
        out.number(m.id, 8)
        out.number(m.shard_number, 1)
        out.number(m.flags, 2)
        out.number(m.message_octets, 4)
        out.number(m.received_utc_ms, 8)
        out.number(m.envelope_offset, 4)
        out.number(m.envelope_length, 4)
        out.number(m.where.offset if m.flags & SPOOL_ENVELOPE_INLINE else m.where.chunks.offset if chunk_count else 0, 4)
        for i in range(chunk_count):
            if m.where.chunks.segments[i] != NULL:
                numbers.setdefault(<size_t>m.where.chunks.segments[i], len(numbers))
        if len(numbers) >= NO_SEGMENT:
            raise ValueError(f"the message lies in {len(numbers)} segments")
        out.number(<uint64_t>len(numbers), 2)
        for pointer in numbers:
            describe(<spool_segment *><size_t>pointer, &face)
            out.number(face.serial, 4)
            out.number(face.slot, 4)
            out.number(face.salt, 4)
            out.number(face.octets, 8)
        out.number(chunk_count, 4)
        for i in range(chunk_count):
            out.number(numbers.get(<size_t>m.where.chunks.segments[i], NO_SEGMENT), 2)
        out.number(s.count, 4)
        for i in range(s.count):
            out.number(s.t.recipients[i].index, 4)
            if s.t.recipients[i].domain == domain:
                out.number(0, 1)
                continue
            domain = s.t.recipients[i].domain
            name = (<DomainQueue>domain).domain[:255]
            out.number(<uint64_t>len(name), 1)
            out.octets(<const uint8_t *><const char *>name, len(name))
        return out.end()

    # ---------------------------------------------------------------- answers

    cdef int on_frame(self, uint8_t kind, frame_reader *fields) except -1:
        cdef Outlet outlet
        cdef bint is_down
        if kind == FRAME_DELIVERED:
            return self.on_delivered(fields)
        if kind == FRAME_REFUSED:
            return self.on_refused(fields)
        if kind == FRAME_OVER:
            return self.finish(self.named(fields))
        if kind != FRAME_SOURCE_DOWN and kind != FRAME_NOT_HERE:
            raise RemoteProtocolError(f"a frame of unknown kind {kind}")
        outlet = self.outlets.get(read32(fields))
        if kind == FRAME_SOURCE_DOWN:
            is_down = read8(fields) != 0
            trouble = decode_trouble(read_rest(fields))
            if outlet is not None:
                if is_down and self.handover.on_source_down is not None:
                    self.handover.on_source_down(outlet.ready.source, trouble)      # first: or the same would be chosen again
                self.handover.scheduler.leave_source(outlet.ready, trouble, is_down)
        elif outlet is not None:
            outlet.pause(AGAIN_S)
        return 0

    cdef slot *named(self, frame_reader *fields) except NULL:
        cdef uint32_t index = read32(fields)
        cdef uint32_t generation = read32(fields)
        if fields.is_short or index >= REFERENCES_MAX or self.slots[index].state != SLOT_OUT \
                or self.slots[index].generation != generation:
            raise RemoteProtocolError("an answer to what is not out")
        return &self.slots[index]

    cdef int on_delivered(self, frame_reader *fields) except -1:
        cdef slot *s = self.named(fields)
        cdef ReadyQueue ready = (<Outlet>s.outlet).ready
        cdef uint32_t place = read32(fields)
        cdef uint8_t flags = read8(fields)
        cdef uint16_t code = read16(fields)
        cdef uint64_t elapsed_ms = read64(fields)
        cdef bytes text = read_text(fields)
        cdef bytes remote = read_text(fields)
        cdef bytes tls_version = read_text(fields)
        cdef bytes tls_cipher = read_text(fields)
        cdef bytes policy = read_text(fields)
        cdef bytes policy_from = read_text(fields)
        if fields.is_short or place >= s.count or s.t.recipients[place] == NULL:
            raise RemoteProtocolError("an outcome of nobody who is out")
        ready.delivered_ms = mono_ms()
        if flags & DELIVERED_IS_TRACED:
            s.t.recipients[place].flags |= RECIPIENT_TRACED
        s.t.recipients[place].link.where = PLACE_IN_HAND
        s.elapsed_ms = max(s.elapsed_ms, elapsed_ms)
        self.handover.scheduler.delivered(
            ready, &s.t, place, code, <const uint8_t *><const char *>text, len(text), <const uint8_t *><const char *>remote, len(remote),
            elapsed_ms, flags & DELIVERED_HAS_DSN != 0, text_or_null(tls_version), <const char *>tls_cipher, <const char *>policy,
            <const char *>policy_from)
        s.t.recipients[place] = NULL
        s.told += 1
        return 0

    cdef int on_refused(self, frame_reader *fields) except -1:
        cdef slot *s = self.named(fields)
        cdef ReadyQueue ready = (<Outlet>s.outlet).ready
        cdef uint32_t place = read32(fields)
        cdef bint is_permanent = read8(fields) != 0
        cdef uint64_t elapsed_ms = read64(fields)
        trouble = decode_trouble(read_rest(fields))
        if place >= s.count or s.t.recipients[place] == NULL:
            raise RemoteProtocolError("an outcome of nobody who is out")
        s.t.recipients[place].link.where = PLACE_IN_HAND
        s.elapsed_ms = max(s.elapsed_ms, elapsed_ms)
        if is_permanent:
            self.handover.scheduler.failed(ready, &s.t, place, trouble, elapsed_ms)
        else:
            self.handover.scheduler.deferred(ready, &s.t, place, trouble, elapsed_ms)
        s.t.recipients[place] = NULL
        s.told += 1
        return 0

    cdef int finish(self, slot *s) except -1:
        """The reference is over: who has no outcome goes back untried."""
        cdef Outlet outlet = <Outlet>s.outlet
        cdef ReadyQueue ready = outlet.ready
        cdef bint is_stale = s.turn != outlet.turn
        cdef transaction told
        cdef recipient *r
        cdef uint32_t i, kept = 0
        told = s.t
        told.count = s.count
        ready.handed -= s.count
        out_now.cell[0] -= 1
        if s.told < s.count:
            came_back.cell[0] += 1
        else:
            outlet.room.waited(s.begun_ms, s.elapsed_ms, mono_ms())
        for i in range(s.count):
            r = s.t.recipients[i]
            if r == NULL:
                continue
            if is_stale:                # limits, routes or orders have changed since it was taken
                r.link.where = PLACE_NOWHERE
                self.handover.scheduler.passing_on = ready      # it had a place: not behind those that wait for one
                self.handover.scheduler.route(r)
                self.handover.scheduler.passing_on = None
                continue
            r.link.where = PLACE_IN_HAND
            s.t.recipients[kept] = r
            kept += 1
        s.t.count = kept
        told.count -= kept
        if kept:
            ready.give_back(&s.t)       # first: the message must not be over before its rest is back
        if told.count:
            self.handover.scheduler.settle(&told)
        s.t.message = NULL
        s.outlet = NULL
        self.free_slot(s)
        outlet.out -= 1
        self.wake_waiting()             # before it asks again itself
        if outlet.is_retired:
            if outlet.out == 0:
                outlet.leave_link()
        elif ready.count:
            outlet.wake()
        Py_DECREF(outlet)
        return 0

    cdef void wake_waiting(self) noexcept:
        """One for each free slot, and none of whom nothing is to be had any more."""
        cdef Outlet outlet
        cdef uint32_t left = self.free_count
        while left and self.waiting:
            outlet = self.waiting.popleft()
            outlet.is_waiting = False
            if not outlet.is_retired and outlet.ready.count:
                outlet.wake()
                left -= 1

    cdef int on_end(self) except -1:
        cdef Outlet outlet
        cdef int i
        self.handover.lost(self)
        for outlet in list(self.outlets.values()):
            outlet.link = None
        self.outlets.clear()
        for i in range(REFERENCES_MAX):
            if self.slots[i].state == SLOT_OUT:
                self.finish(&self.slots[i])
        for outlet in self.waiting:
            outlet.is_waiting = False
        self.waiting.clear()
        self.handover.go_on_later(self.worker)
        return 0


@cython.final
cdef class HandOver(Egress):
    def __init__(self, Scheduler scheduler not None, int number, connect, on_source_down=None, *, uint32_t first_room=FIRST):
        self.first_room = first_room
        self.scheduler = scheduler
        self.on_source_down = on_source_down
        self.loop = scheduler.loop
        self.number = number
        self.connect = connect
        self.configuration = ""
        self.links = {}
        self.dials = {}
        self.failures = {}
        self.dial_after_s = {}
        self.all_outlets = set()

    # ---------------------------------------------------------------- Egress

    cdef void wake(self, ReadyQueue ready) noexcept:
        cdef Outlet outlet
        try:
            outlet = ready.state
            if outlet is None:
                if self.is_draining:
                    return
                outlet = ready.state = Outlet(self, ready)
            outlet.wake()
        except Exception as error:
            self.scheduler.journal.log("error", where="hand-over", reason=repr(error))

    cdef bint forget(self, ReadyQueue ready) noexcept:
        cdef Outlet outlet = ready.state
        if outlet is not None:
            if outlet.out:
                return False
            self.step_back(ready)
        return True

    cdef void step_back(self, ReadyQueue ready) noexcept:
        cdef Outlet outlet = ready.state
        ready.state = None
        if outlet is not None:
            outlet.retire()

    def work_by(self, str configuration not None):
        """In the turn in which the scheduler is told of it."""
        self.configuration = configuration

    cdef void planned_anew(self, ReadyQueue ready) noexcept:
        cdef Outlet outlet = ready.state
        if outlet is None:
            return
        outlet.generation = self.scheduler.generation
        outlet.recall()
        outlet.wake()

    cdef void call_back(self, ReadyQueue ready) noexcept:
        if ready.state is not None:
            (<Outlet>ready.state).call_back()

    # ---------------------------------------------------------------- links

    cdef OwnerLink link_to(self, int worker):
        cdef OwnerLink link = self.links.get(worker)
        if link is not None and not link.is_closed:
            return link
        if worker not in self.dials and link is None and mono_ms() / 1000.0 >= self.dial_after_s.get(worker, 0.0):
            task = self.loop.create_task(self.dial(worker))
            self.dials[worker] = task
            task.add_done_callback(functools.partial(self.dialled, worker))
        return None

    async def dial(self, int worker):
        sock = self.connect(worker)
        try:
            _, link = await self.loop.create_unix_connection(
                functools.partial(OwnerLink, self.loop, self.scheduler.journal, self, worker), sock=sock)
        except BaseException:
            sock.close()
            raise
        return link

    def dialled(self, int worker, task):
        cdef OwnerLink link
        self.dials.pop(worker, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            link = task.result()
            self.failures.pop(worker, None)
            self.dial_after_s.pop(worker, None)
            if not link.is_closed:
                self.links[worker] = link
                self.wake_all(worker)
                return
        else:
            # However much comes in meanwhile: not one a message.
            self.dial_after_s[worker] = mono_ms() / 1000.0 + AGAIN_S
            failures = self.failures[worker] = self.failures.get(worker, 0) + 1
            if failures == FAILURES_TOLD:
                self.scheduler.journal.log("handover-broken", peer=f"worker {worker}", reason=f"cannot be connected to: {error}")
        self.go_on_later(worker)

    def lost(self, OwnerLink link):
        if self.links.get(link.worker) is link:
            del self.links[link.worker]

    def go_on_later(self, int worker):
        if not self.is_draining and not self.loop.is_closed():
            self.loop.call_later(AGAIN_S + 0.01, self.wake_all, worker)

    def wake_all(self, int worker):
        cdef Outlet outlet
        for outlet in self.all_outlets:
            if outlet.worker == worker and outlet.ready.count:
                outlet.wake()

    # ---------------------------------------------------------------- the end

    @property
    def out_count(self):
        """References that are out."""
        cdef OwnerLink link
        return sum([link.out_count for link in self.links.values()])

    def recall_all(self):
        """Begins nothing more; what has not begun comes back."""
        cdef Outlet outlet
        self.is_draining = True
        for outlet in list(self.all_outlets):
            outlet.recall()

    def close(self):
        """Whatever is still out goes back: nothing more is heard of it. That does not wait for a home that reads no more: of what
        else has become of its messages nothing would be written."""
        cdef OwnerLink link
        for task in list(self.dials.values()):
            task.cancel()
        for link in list(self.links.values()):
            link.drop()

    # ---------------------------------------------------------------- for people

    def status(self):
        """Ready queues that another worker serves, as far as they have had mail."""
        cdef Outlet outlet
        return [{"site": outlet.ready.site.name, "source": outlet.ready.source.name, "worker": outlet.worker,
                 "waiting": outlet.ready.count + outlet.ready.waits_behind(), "handed": outlet.ready.handed}
                for outlet in self.all_outlets if not outlet.is_retired]
