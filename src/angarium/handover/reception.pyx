# References in. Each becomes a guest (queue/guests.pyx) in the ready queue of its site, source and kind, and is delivered from there by
# the usual pool and connections; envelope and body are read from the shard where they lie. What became of each recipient is answered on
# the link, and what has not begun is given back when its owner, or a change of homes, asks for it.
#
# Taken in is only what was planned by the configuration that this worker works by: while a reload is under way one of the two may
# have another, by which a connection would need less protection than was asked for, or would be somebody else's. The owner asks again.
#
# A peer is a worker of ours, and is believed what it says of its mail; that is all. Counts and lengths are held against the frame and
# the limits of frames.pxd before anything is made of them.
cimport cython
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, malloc
from libc.string cimport strlen

from angarium.handover.frames cimport (
    CHANNELS_MAX, DELIVERED_HAS_DSN, DELIVERED_IS_TRACED, FRAME_CLOSE, FRAME_DELIVERED, FRAME_HELLO, FRAME_NOT_HERE, FRAME_OPEN, FRAME_OVER,
    FRAME_REFERENCE, FRAME_REFUSED, FRAME_SOURCE_DOWN, FRAME_WITHDRAW, HELLO_MAGIC, HELLO_VERSION, NO_SEGMENT, RECIPIENTS_MAX, REFERENCES_MAX, SEGMENT_OCTETS_MAX,
    FrameWriter, frame_reader, read8, read16, read32, read64, read_octets, read_rest)
from angarium.handover.link cimport Link
from angarium.queue.guests cimport Answers, Lodger, guest, guest_free, guest_new
from angarium.queue.message cimport message, message_chunks, recipient
from angarium.queue.ready cimport ReadyQueue
from angarium.queue.scheduler cimport Scheduler
from angarium.spool.cspool cimport SPOOL_ENVELOPE_INLINE, spool_segment, spool_segment_face
from angarium.spool.foreign cimport ForeignShard

import msgspec

from angarium.handover.lodging import decode_lodging
from angarium.model.errors import RemoteProtocolError, SpoolError

cdef enum:
    ENVELOPE_FLAGS = 0x3fff     # SPOOL_ENVELOPE_*: what else message.flags has is the owner's
    WORKERS_MAX = 64


def nothing(int error):
    """A body read ahead needs no more than to be there."""


cdef int put_text(FrameWriter out, const char *text) except -1:
    return out.text(<const uint8_t *>text, strlen(text) if text != NULL else 0)


@cython.final
cdef class Desk(Answers):
    cdef int name(self, uint8_t kind, guest *g) except -1:
        self.link.out.begin(kind)
        self.link.out.number(g.slot, 4)
        return self.link.out.number(g.generation, 4)

    cdef void delivered(self, guest *g, uint32_t place, bint is_traced, uint16_t code, const uint8_t *text, size_t text_length,
                        const uint8_t *remote, size_t remote_length, uint64_t elapsed_ms, bint peer_has_dsn,
                        const char *tls_version, const char *tls_cipher, const char *tls_policy,
                        const char *tls_policy_from) noexcept:
        cdef FrameWriter out = self.link.out
        try:
            self.name(FRAME_DELIVERED, g)
            out.number(place, 4)
            out.number((DELIVERED_HAS_DSN if peer_has_dsn else 0) | (DELIVERED_IS_TRACED if is_traced else 0), 1)
            out.number(code, 2)
            out.number(elapsed_ms, 8)
            out.text(text, text_length)
            out.text(remote, remote_length)
            put_text(out, tls_version)
            put_text(out, tls_cipher)
            put_text(out, tls_policy)
            put_text(out, tls_policy_from)
            out.end()
            self.link.sent()
        except Exception as error:
            self.link.fail_later(error)     # without an answer it would be out for ever; a link that ends gives it back

    cdef void refused(self, guest *g, uint32_t place, object trouble, bint is_permanent, uint64_t elapsed_ms) noexcept:
        cdef FrameWriter out = self.link.out
        cdef bytes packed
        try:
            packed = msgspec.msgpack.encode(trouble)
            self.name(FRAME_REFUSED, g)
            out.number(place, 4)
            out.number(is_permanent, 1)
            out.number(elapsed_ms, 8)
            out.octets(<const uint8_t *><const char *>packed, len(packed))
            out.end()
            self.link.sent()
        except Exception as error:
            self.link.fail_later(error)

    cdef void over(self, guest *g) noexcept:
        self.link.guest_count -= 1
        try:
            self.name(FRAME_OVER, g)
            self.link.out.end()
            self.link.sent()
        except Exception as error:
            self.link.fail_later(error)

    cdef void source_down(self, Lodger lodger, object trouble, bint is_down) noexcept:
        cdef bytes packed
        try:
            packed = msgspec.msgpack.encode(trouble)
            self.link.out.begin(FRAME_SOURCE_DOWN)
            self.link.out.number(lodger.channel, 4)
            self.link.out.number(is_down, 1)
            self.link.out.octets(<const uint8_t *><const char *>packed, len(packed))
            self.link.out.end()
            self.link.sent()
        except Exception as error:
            self.link.fail_later(error)

    cdef void not_here(self, Lodger lodger) noexcept:
        try:
            self.link.out.begin(FRAME_NOT_HERE)
            self.link.out.number(lodger.channel, 4)
            self.link.out.end()
            self.link.sent()
        except Exception as error:
            self.link.fail_later(error)


@cython.final
cdef class HomeLink(Link):
    def __cinit__(self, loop, journal, Reception reception=None):
        self.reception = reception
        self.desk = Desk()
        self.desk.link = self
        self.worker = -1
        self.lodgers = {}
        self.lodgings = {}
        self.heeded = {}
        reception.links.add(self)

    cdef str peer(self):
        return f"worker {self.worker}" if self.worker >= 0 else "a worker that did not say which"

    cdef int on_end(self) except -1:
        cdef Lodger lodger
        self.reception.links.discard(self)
        for lodger in self.lodgers.values():
            lodger.leave()
        self.lodgers.clear()
        self.lodgings.clear()
        self.heeded.clear()
        self.desk.link = None
        self.desk = None
        return 0

    cdef int on_frame(self, uint8_t kind, frame_reader *fields) except -1:
        cdef Lodger lodger
        cdef uint32_t channel
        if self.worker < 0:
            if kind != FRAME_HELLO or read32(fields) != HELLO_MAGIC or read8(fields) != HELLO_VERSION:
                raise RemoteProtocolError("not a worker, or one of another version")
            self.worker = read8(fields)
            if self.worker >= WORKERS_MAX:
                raise RemoteProtocolError(f"there is no worker {self.worker}")
            return 0
        if kind == FRAME_REFERENCE:
            return self.take_in(fields)
        if kind == FRAME_OPEN:
            return self.open_channel(fields)
        if kind != FRAME_WITHDRAW and kind != FRAME_CLOSE:
            raise RemoteProtocolError(f"a frame of unknown kind {kind}")
        channel = read32(fields)
        lodger = self.lodgers.get(channel)
        if lodger is None:
            raise RemoteProtocolError("a ready queue that was not opened")
        lodger.send_back()
        if kind == FRAME_CLOSE:
            lodger.leave()
            del self.lodgers[channel], self.lodgings[channel]
            self.heeded.pop(channel, None)
        return 0

    cdef ReadyQueue queue_of(self, object lodging):
        return self.reception.scheduler.ready_queue_of(lodging.site, lodging.source, lodging.wish, lodging.kind, lodging.apart)

    cdef int open_channel(self, frame_reader *fields) except -1:
        """Once more for a channel: the same ready queue, by a newer plan."""
        cdef uint32_t channel = read32(fields)
        lodging = decode_lodging(read_rest(fields))
        if channel not in self.lodgers:
            if len(self.lodgers) >= CHANNELS_MAX:
                raise RemoteProtocolError("too many ready queues")
            self.lodgers[channel] = Lodger(self.desk, channel)
        self.lodgings[channel] = lodging
        if lodging.planned_by == self.reception.configuration:
            self.settle(channel, self.lodgers[channel])
        return 0

    cdef int settle(self, uint32_t channel, Lodger lodger) except -1:
        """By what was told last. Not before it was planned as we plan: hosts and what they publish are taken over for all mail there."""
        lodging = self.lodgings[channel]
        cdef ReadyQueue ready = self.queue_of(lodging)
        if lodger.ready is not ready:
            if lodger.guest_count:
                raise RemoteProtocolError("another ready queue while messages of the last one are out")
            lodger.settle_in(ready)
        self.heeded[channel] = lodging
        return 0

    cdef int take_in(self, frame_reader *fields) except -1:
        cdef uint32_t channel = read32(fields)
        cdef uint32_t slot = read32(fields)
        cdef uint32_t generation = read32(fields)
        cdef Lodger lodger = self.lodgers.get(channel)
        cdef ReadyQueue ready
        cdef Scheduler scheduler = self.reception.scheduler
        cdef guest *g
        cdef bint is_first
        if lodger is None:
            raise RemoteProtocolError("a reference for a ready queue that was not opened")
        if self.guest_count >= REFERENCES_MAX:
            raise RemoteProtocolError("too many references")
        if self.lodgings[channel].planned_by != self.reception.configuration:
            read_octets(fields, <size_t>(fields.end - fields.at))
            if not self.has_told_of_declining:      # it comes again five times a second until both have the same
                self.has_told_of_declining = True
                self.journal.log("handover-declined", peer=self.peer(), reason="planned by another configuration than ours")
            return self.decline(channel, slot, generation)
        self.has_told_of_declining = False
        if lodger.ready is None or (<ReadyQueue>lodger.ready).is_gone or self.heeded.get(channel) is not self.lodgings[channel]:
            self.settle(channel, lodger)
        ready = lodger.ready
        if self.reception.is_draining or ready.home >= 0:
            read_octets(fields, <size_t>(fields.end - fields.at))
            return self.decline(channel, slot, generation)
        try:
            g = self.read_guest(lodger, fields, slot, generation)
        except SpoolError as error:
            self.journal.log("error", where="hand-over", reason=str(error))
            read_octets(fields, <size_t>(fields.end - fields.at))
            return self.decline(channel, slot, generation)
        if ready.guests.generation != scheduler.generation:
            ready.configure()           # a reload is going through all ready queues, and may not have been here
            ready.guests.generation = scheduler.generation
        is_first = lodger.first == NULL
        self.guest_count += 1
        lodger.lodge(g)
        if not is_first and scheduler.hot_octets < scheduler.hot_limit_octets:
            scheduler.fetch(&g.m, nothing)      # it is not its turn yet: what is read ahead costs no time then
        return 0

    cdef int decline(self, uint32_t channel, uint32_t slot, uint32_t generation) except -1:
        self.out.begin(FRAME_NOT_HERE)
        self.out.number(channel, 4)
        self.out.end()
        self.out.begin(FRAME_OVER)
        self.out.number(slot, 4)
        self.out.number(generation, 4)
        self.out.end()
        self.sent()
        return 0

    cdef guest *read_guest(self, Lodger lodger, frame_reader *fields, uint32_t slot, uint32_t generation) except NULL:
        """The layout: OwnerLink.put_reference() in outlet.pyx."""
        cdef guest *g
        cdef message *m
        cdef uint64_t id = read64(fields)
        cdef uint8_t number = read8(fields)
        cdef ForeignShard shard = self.reception.shard_of(number)
        # How many recipients there are stands at the end, and decides how large it is: read twice.
        cdef frame_reader ahead = fields[0]
        cdef uint32_t recipient_count = count_of_recipients(&ahead)
        if ahead.is_short or not 0 < recipient_count <= RECIPIENTS_MAX:
            raise RemoteProtocolError("a reference cannot be read")
        g = guest_new(recipient_count)
        try:
            g.slot = slot
            g.generation = generation
            m = &g.m
            m.id = id
            m.shard_number = number
            m.flags = read16(fields) & ENVELOPE_FLAGS
            m.message_octets = read32(fields)
            m.received_utc_ms = read64(fields)
            m.envelope_offset = read32(fields)
            m.envelope_length = read32(fields)
            self.read_segments(g, shard, fields)
            self.read_recipients(g, lodger, fields)
            if fields.is_short or fields.at != fields.end:
                raise RemoteProtocolError("a reference cannot be read")
        except:
            guest_free(g)
            raise
        return g

    cdef int read_segments(self, guest *g, ForeignShard shard, frame_reader *fields) except -1:
        cdef message *m = &g.m
        cdef spool_segment_face face
        cdef uint32_t offset = read32(fields)
        cdef uint32_t count = read16(fields)
        cdef uint32_t chunk_count, number, i
        cdef message_chunks *chunks
        if count == 0 or fields.is_short or <size_t>(fields.end - fields.at) < 20 * <size_t>count:
            raise RemoteProtocolError("a reference cannot be read")
        g.shard = <void *>shard
        Py_INCREF(shard)
        g.segments = <spool_segment **>calloc(count, sizeof(spool_segment *))
        if g.segments == NULL:
            raise MemoryError()
        for i in range(count):
            face.serial = read32(fields)
            face.slot = read32(fields)
            face.salt = read32(fields)
            face.octets = read64(fields)
            if face.octets > SEGMENT_OCTETS_MAX:
                raise RemoteProtocolError("a reference cannot be read")
            g.segments[i] = shard.hold(&face)
            if g.segments[i] == NULL:
                raise MemoryError()
            g.segment_count += 1
        m.home = g.segments[0]
        chunk_count = read32(fields)
        if <size_t>(fields.end - fields.at) < 2 * <size_t>chunk_count or chunk_count and m.flags & SPOOL_ENVELOPE_INLINE:
            raise RemoteProtocolError("a reference cannot be read")
        if m.flags & SPOOL_ENVELOPE_INLINE:
            m.where.beside.body_offset = offset
            return 0
        if chunk_count == 0:
            return 0
        chunks = <message_chunks *>malloc(sizeof(message_chunks) + (chunk_count - 1) * sizeof(spool_segment *))
        if chunks == NULL:
            raise MemoryError()
        m.where.chunks = chunks
        chunks.count = chunk_count
        chunks.offset = offset
        chunks.flow = 0
        for i in range(chunk_count):
            number = read16(fields)
            if number >= count and number != NO_SEGMENT:
                raise RemoteProtocolError("a reference cannot be read")
            chunks.segments[i] = g.segments[number] if number != NO_SEGMENT else NULL
        return 0

    cdef int read_recipients(self, guest *g, Lodger lodger, frame_reader *fields) except -1:
        cdef recipient *r
        cdef uint32_t i
        cdef uint8_t length
        cdef const uint8_t *name
        cdef object domain = None
        read32(fields)                      # their count
        for i in range(g.m.recipient_count):
            r = &g.m.recipients[i]
            r.index = read32(fields)
            length = read8(fields)
            name = read_octets(fields, length)
            if fields.is_short or length == 0 and domain is None:
                raise RemoteProtocolError("a reference cannot be read")
            if length:
                domain = lodger.domain_of(name[:length])
            r.domain = <void *>domain
            Py_INCREF(domain)
        return 0


cdef uint32_t count_of_recipients(frame_reader *fields) noexcept:
    """From behind the shard's number on."""
    cdef uint32_t count
    read_octets(fields, 2 + 4 + 8 + 4 + 4 + 4)
    count = read16(fields)
    read_octets(fields, 20 * <size_t>count)
    count = read32(fields)
    read_octets(fields, 2 * <size_t>count)
    return read32(fields)


@cython.final
cdef class Reception:
    def __init__(self, Scheduler scheduler not None, open_shard):
        self.scheduler = scheduler
        self.loop = scheduler.loop
        self.open_shard = open_shard
        self.shards = {}
        self.links = set()
        self.configuration = ""

    def link(self):
        """A protocol for a connection that came in."""
        return HomeLink(self.loop, self.scheduler.journal, self)

    cdef ForeignShard shard_of(self, uint8_t number):
        cdef ForeignShard shard = self.shards.get(number)
        if shard is None:
            if not self.scheduler.is_of_others(number):
                raise RemoteProtocolError(f"shard {number} is our own")
            shard = self.open_shard(number)
            shard.attach(self.loop)
            self.scheduler.read_from(number, shard)
            self.shards[number] = shard
        return shard

    @property
    def open_shards(self):
        return list(self.shards.values())

    @property
    def guest_count(self):
        """References that are here, begun or not."""
        cdef HomeLink link
        return sum([link.guest_count for link in self.links])

    def send_all_back(self):
        """Takes in nothing more, and gives back what has not begun."""
        cdef HomeLink link
        cdef Lodger lodger
        self.is_draining = True
        for link in self.links:
            for lodger in link.lodgers.values():
                link.desk.not_here(lodger)
                lodger.send_back()

    def work_by(self, str configuration not None):
        """In the turn in which the scheduler is told of it. What has not begun was planned by another one: it goes back, a thousand
        references of each worker at the most."""
        cdef HomeLink link
        cdef Lodger lodger
        if configuration == self.configuration:
            return
        self.configuration = configuration
        for link in self.links:
            for lodger in link.lodgers.values():
                if lodger.guest_count:
                    link.desk.not_here(lodger)
                    lodger.send_back()

    def close(self):
        cdef HomeLink link
        for link in list(self.links):
            link.close()

    def close_shards(self):
        cdef ForeignShard shard
        for shard in self.shards.values():
            shard.close()
