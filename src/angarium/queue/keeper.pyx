# The messages that a worker has: their memory, their records in the spool, and when they are over. What becomes of their
# recipients, and when, is outcomes.pyx and scheduler.pyx.
#
# A message's memory goes when all recipients are final, nobody holds it, its reports are in the spool and no state
# record of it is in flight; then its id is written as freed.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from angarium.metrics.counters cimport Counter
from angarium.model.clock cimport utc_ms
from angarium.model.octets cimport octets, octets_ref, octets_unref
from angarium.queue.domains cimport DomainQueue
from angarium.queue.fetch cimport fetch_message, wants_body
from angarium.queue.guests cimport guest_over
from angarium.queue.index cimport MessageIndex
from angarium.queue.ledger cimport shard_of
from angarium.queue.message cimport (
    MESSAGE_HAS_TERMS, MESSAGE_IS_MOVING, PLACE_NOWHERE, PLACE_SETTLED, RECIPIENT_DELAY_DUE,
    RECIPIENT_DELAY_TOLD, RECIPIENT_REPORT_DUE, STATE_ELSEWHERE, chunk_count_of, chunk_octets, flow_of, message,
    message_chunks, message_of, recipient, record_octets, transaction,
)
from angarium.queue.planner cimport Planner
from angarium.queue.record cimport state_record
from angarium.queue.slab cimport Slab
from angarium.queue.terms cimport has_attributes, message_terms, terms_read
from angarium.queue.troubles cimport forget_trouble
from angarium.spool.cspool cimport (
    SPOOL_ENVELOPE_INLINE, SPOOL_OUTCOME, spool_chunk, spool_envelope, spool_envelope_chunk,
    spool_envelope_next_recipient, spool_envelope_open, spool_op, spool_recipient, spool_segment,
)
from angarium.spool.shard cimport Shard

from angarium.metrics.counters import counter, gauge
from angarium.model.errors import SpoolError

cdef Counter finished = counter("angarium_messages_finished_total", "Messages that are over.")
cdef Counter state_errors = counter("angarium_outcome_write_errors_total",
                                    "Outcomes that could not be written to the spool (they may be repeated).")
cdef Counter queue_messages = gauge("angarium_queue_messages", "Messages in the queue now.")
cdef Counter queue_recipients = gauge("angarium_queue_recipients", "Recipients waiting now, wherever they are.")

cdef enum:
    ENVELOPE_FLAGS = 0x3fff     # SPOOL_ENVELOPE_* that message.flags keeps; MESSAGE_* are above

    # Judged, with what the allocator adds: of a domain its queue, key and place in the table; of a ready queue its pool, counts
    # and site; of a trouble its texts.
    INDEX_OCTETS = 10
    DOMAIN_OCTETS = 350
    READY_OCTETS = 4000
    TROUBLE_OCTETS = 600


cdef inline uint64_t structure_octets_of(message *m) noexcept nogil:
    return sizeof(message) + (m.recipient_count - 1) * sizeof(recipient)


cdef struct state_op:
    spool_op op
    message *message


cdef void state_written(spool_op *op, void *context) noexcept:
    cdef Keeper keeper = <Keeper>context
    cdef message *m = (<state_op *>op).message
    m.state_in_flight = False
    keeper.states_in_flight -= 1
    if op.error == 0:
        m.state_segment = op.place.segment
    else:
        # What is on disk is older than the truth; the next change writes all of it again.
        state_errors.cell[0] += 1
    octets_unref(op.payload)
    free(op)
    keeper.settle_message(m)


cdef class Keeper(Planner):
    """Keeps messages from their envelope to their freed record. A base of the Scheduler."""

    def __cinit__(self):
        self.shards = []
        self.index = MessageIndex()
        self.slab = Slab(sizeof(message))
        self.deadlines = {}
        self.reporter = None

    cdef message *make_message(self, Shard shard, octets *envelope) except NULL:
        cdef spool_envelope view
        cdef spool_recipient found
        cdef const uint8_t *cursor
        cdef message *m
        cdef recipient *r
        cdef DomainQueue domain
        cdef uint8_t number
        cdef uint32_t i = 0, flow = 0
        cdef bytes route
        if spool_envelope_open(envelope.data, envelope.length, &view) != 0 or view.recipient_count == 0:
            raise SpoolError("an envelope in the spool cannot be read")
        number = self.number_of(shard)
        route = self.route_of(&view)
        if has_attributes(&view) and view.flags & SPOOL_ENVELOPE_INLINE:
            flow = self.flows.hold(&view)
        if view.recipient_count == 1:
            m = <message *>self.slab.take()
        else:
            m = <message *>calloc(1, sizeof(message) + (view.recipient_count - 1) * sizeof(recipient))
        if m == NULL:
            self.flows.drop(flow)
            raise MemoryError()
        m.id = view.id
        m.received_utc_ms = view.received_utc_ms
        m.message_octets = <uint32_t>min(view.message_octets, <uint64_t>0xffffffff)
        m.flags = <uint16_t>(view.flags & ENVELOPE_FLAGS)
        if has_attributes(&view):
            self.read_terms(m, &view)
            if m.flags & SPOOL_ENVELOPE_INLINE:
                m.where.beside.flow = flow
        m.shard_number = number
        m.recipient_count = view.recipient_count
        m.live_count = view.recipient_count
        m.envelope_length = <uint32_t>envelope.length
        cursor = view.recipients
        while i < m.recipient_count and spool_envelope_next_recipient(&view, &cursor, &found):
            r = &m.recipients[i]
            r.index = i
            r.notify = found.notify
            r.link.kind = <uint8_t>self.retry_kind
            r.link.where = PLACE_NOWHERE
            domain = self.domains.find_or_add(found.forward_path.data + found.domain_offset,
                                              found.forward_path.length - found.domain_offset, route)
            domain.count += 1           # from here on the table keeps it: a borrowed pointer is enough
            r.domain = <void *>domain
            i += 1
        self.index.add(m)
        self.structure_octets += structure_octets_of(m)
        queue_messages.cell[0] += 1
        queue_recipients.cell[0] += m.recipient_count
        return m

    cdef void read_terms(self, message *m, const spool_envelope *view) noexcept:
        cdef message_terms terms
        terms_read(view, &terms)
        m.priority = terms.priority
        if terms.hold_until_utc_s or terms.by_mode:
            m.flags |= MESSAGE_HAS_TERMS

    cdef uint8_t number_of(self, Shard shard) except? 0xff:
        """The shard's number; from here on the scheduler keeps it."""
        cdef Py_ssize_t number = shard.number
        if not 0 <= number < 0xff:
            raise ValueError(f"a shard has the number {number}")
        if number >= len(self.shards):
            self.shards += [None] * (number + 1 - len(self.shards))
        if self.shards[number] is None:
            self.shards[number] = shard
        elif self.shards[number] is not shard:
            raise ValueError(f"two shards have the number {number}")
        return <uint8_t>number

    cdef int read_from(self, uint8_t number, Shard shard) except -1:
        """A shard of another worker, for guests."""
        if number >= len(self.shards):
            self.shards += [None] * (number + 1 - len(self.shards))
        self.shards[number] = shard
        return 0

    cdef bint is_of_others(self, uint8_t number) except -1:
        """No message in it can be ours."""
        return number >= len(self.shards) or self.shards[number] is None

    cdef int find_chunks(self, message *m, Shard shard, octets *envelope) except -1:
        """A streamed message: remember its chunks' segments, whose pins are ours to give back."""
        cdef spool_envelope view
        cdef spool_chunk chunk
        cdef message_chunks *chunks
        cdef uint32_t i, flow
        if spool_envelope_open(envelope.data, envelope.length, &view) != 0:
            raise SpoolError("an envelope in the spool cannot be read")
        if view.chunk_count == 0:
            return 0
        flow = self.flows.hold(&view)
        chunks = <message_chunks *>malloc(sizeof(message_chunks) + (view.chunk_count - 1) * sizeof(spool_segment *))
        if chunks == NULL:
            self.flows.drop(flow)
            raise MemoryError()
        chunks.flow = flow
        chunks.count = view.chunk_count
        chunks.offset = spool_envelope_chunk(&view, 0).offset
        for i in range(view.chunk_count):
            chunk = spool_envelope_chunk(&view, i)
            chunks.segments[i] = shard.segment(chunk.segment_serial)
        m.where.chunks = chunks             # whole from the first moment: compaction may look at it
        return 0

    # ---- what is in memory ----

    cdef void heat(self, message *m, octets *envelope, octets *body) noexcept:
        """Keeps envelope and body in memory for the first attempt, while the cache has room (design §5.7)."""
        if not m.is_hot and self.hot_octets >= self.hot_limit_octets and m.hand_count == 0:
            return
        if envelope != NULL and m.envelope == NULL:
            m.envelope = octets_ref(envelope)
            self.hot_octets += envelope.length
        if body != NULL and m.body == NULL:
            m.body = octets_ref(body)
            self.hot_octets += body.length
        m.is_hot = True

    cdef void cool(self, message *m) noexcept:
        if m.envelope != NULL:
            self.hot_octets -= m.envelope.length
            octets_unref(m.envelope)
            m.envelope = NULL
        if m.body != NULL:
            self.hot_octets -= m.body.length
            octets_unref(m.body)
            m.body = NULL
        m.is_hot = False

    cdef bint has_envelope_and_body(self, message *m) noexcept:
        return m.envelope != NULL and not wants_body(m)

    cdef int fetch(self, message *m, object done) except -1:
        return fetch_message(self, m, done)

    # ---- who has it ----

    cdef void settle(self, transaction *t) noexcept:
        cdef message *m = t.message
        m.hand_count -= t.count
        t.count = 0
        t.message = NULL
        self.settle_message(m)

    cdef void hold(self, message *m) noexcept:
        m.hand_count += 1

    cdef void release(self, message *m) noexcept:
        m.hand_count -= 1
        self.settle_message(m)

    cdef void detach(self, recipient *r) noexcept:
        """r is final: it counts nowhere any more."""
        cdef message *m = message_of(r)
        r.link.where = PLACE_SETTLED
        m.live_count -= 1
        if m.live_count:
            m.is_dirty = True
        if r.flags & RECIPIENT_DELAY_DUE:       # too late to say that it waits
            r.flags &= <uint16_t>~RECIPIENT_DELAY_DUE
            m.report_count -= 1
        self.leave(r)

    cdef void leave(self, recipient *r) noexcept:
        """r is counted by its domain and in the gauge no more."""
        (<DomainQueue>r.domain).count -= 1
        queue_recipients.cell[0] -= 1

    # ---- what follows from outcomes ----

    cdef void settle_message(self, message *m) noexcept:
        """Called whenever something about m has come to rest. May free m."""
        if m.hand_count:
            # Somebody of it is under way, perhaps for minutes: what is known of the others does not wait for that.
            if m.is_dirty and m.live_count and not m.state_in_flight and not m.flags & MESSAGE_IS_MOVING:
                self.write_state(m)
            return
        if m.report_count and not m.report_in_flight and m.live_count == m.deferred_count and \
                self.reporter is not None and not self.is_closing:
            # Nobody of this message is under way: one report for all that failed together.
            m.report_in_flight = True
            self.hold(m)
            try:
                self.reporter.report(self, <size_t>m)
            except Exception as error:
                self.journal.log("error", where="report", reason=repr(error))
                m.report_in_flight = False
                m.hand_count -= 1
            return
        if m.live_count == 0 and m.report_count == 0:
            if not m.state_in_flight:
                self.finish(m)
            elif m.state_in_flight == STATE_ELSEWHERE:
                self.release_guest(m)
            return
        if m.live_count == m.deferred_count and m.is_hot:
            self.cool(m)
        if m.is_dirty and not m.state_in_flight:
            self.write_state(m)

    cdef void release_guest(self, message *m) noexcept:
        self.cool(m)
        guest_over(m)

    cdef void report_due(self, message *m, recipient *r) noexcept:
        r.flags |= RECIPIENT_REPORT_DUE
        m.report_count += 1
        m.is_dirty = True

    def reported(self, size_t pointer, list indexes, int error):
        """The reporter is done with these recipients (None: with all): their report is in the spool (error 0), or must be
        tried again."""
        cdef message *m = <message *>pointer
        cdef recipient *r
        cdef uint32_t i
        m.report_in_flight = False
        if error == 0:
            for i in range(m.recipient_count) if indexes is None else indexes:
                r = &m.recipients[i]
                if r.flags & RECIPIENT_REPORT_DUE:
                    r.flags &= <uint16_t>~RECIPIENT_REPORT_DUE
                    m.report_count -= 1
                elif r.flags & RECIPIENT_DELAY_DUE:
                    r.flags = <uint16_t>(r.flags & ~RECIPIENT_DELAY_DUE | RECIPIENT_DELAY_TOLD)
                    m.report_count -= 1
            m.is_dirty = True
            self.release(m)
        else:
            self.loop.call_later(30.0, self.report_again, pointer)

    def report_again(self, size_t pointer):
        self.release(<message *>pointer)

    cdef void write_state(self, message *m) noexcept:
        cdef state_op *op = <state_op *>calloc(1, sizeof(state_op))
        if op == NULL:
            state_errors.cell[0] += 1
            return
        try:
            op.op.payload = state_record(m, self.wheel, utc_ms() // 1000)
        except Exception:
            free(op)
            state_errors.cell[0] += 1
            return
        op.op.kind = SPOOL_OUTCOME
        op.op.id = m.id
        op.op.about = m.home
        op.op.previous_state = m.state_segment
        op.op.done = state_written
        op.op.context = <void *>self
        op.message = m
        m.state_in_flight = True
        self.states_in_flight += 1
        m.is_dirty = False
        shard_of(self, m).submit(&op.op)

    cdef void finish(self, message *m) noexcept:
        cdef Shard shard = shard_of(self, m)
        cdef uint32_t i
        # The id first: should only the first of these become durable, no envelope may outlive its chunks.
        shard.free(m.id, m.home, m.state_segment, record_octets(m))
        for i in range(chunk_count_of(m)):
            if m.where.chunks.segments[i] != NULL:
                shard.release(m.where.chunks.segments[i], chunk_octets(m))
        self.cool(m)
        if m.flags & MESSAGE_HAS_TERMS:
            self.deadlines.pop(m.id, None)
        self.index.remove(m)
        self.structure_octets -= structure_octets_of(m)
        self.flows.drop(flow_of(m))
        if not m.flags & SPOOL_ENVELOPE_INLINE:
            free(m.where.chunks)
        for i in range(m.recipient_count):
            forget_trouble(&m.recipients[i])
        if m.recipient_count == 1:
            self.slab.give(m)
        else:
            free(m)
        finished.cell[0] += 1
        queue_messages.cell[0] -= 1

    def memory_octets(self):
        """What all of this takes, about."""
        return (self.structure_octets + self.hot_octets + self.index.count * INDEX_OCTETS + len(self.domains) * DOMAIN_OCTETS
                + len(self.ready) * READY_OCTETS + len(self.troubles) * TROUBLE_OCTETS)

    cdef uint64_t recipients_waiting(self) noexcept:
        return queue_recipients.cell[0]
