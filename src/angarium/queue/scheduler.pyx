# The scheduler: where every recipient is, from its commit to its outcome. It decides when, routing/ decides where,
# outbound/ does it. No sockets, no DNS, no SMTP here.
#
#   admit ─> DomainQueue (waits for a plan) ─> ReadyQueue ─> in hand of an Egress ─> delivered | failed
#                     ^                                                └─> deferred ─> timer wheel ─┐
#                     └────────────────────────────────────────────────────────────────────────────┘
#
# A message's memory goes when all recipients are final, nobody holds it, its reports are in the spool and no state
# record of it is in flight; then its id is written as freed.
cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp

from angarium.events.journal cimport Journal
from angarium.metrics.counters cimport Counter
from angarium.model.clock cimport mono_ms, utc_ms
from angarium.model.octets cimport octets, octets_ref, octets_unref
from angarium.queue.fetch cimport fetch_envelope, fetch_message, wants_body
from angarium.queue.index cimport MessageIndex
from angarium.queue.domains cimport DomainQueue
from angarium.queue.ledger cimport Ledger, shard_of
from angarium.queue.lists cimport list_append, list_init, list_remove
from angarium.queue.log cimport envelope_recipient, log_outcome
from angarium.queue.message cimport (OUTCOME_DELIVERED, OUTCOME_EXPIRED, OUTCOME_FAILED, OUTCOME_WAITING, NOTIFY_EXPANDED,
                                     PLACE_DEFERRED, PLACE_IN_HAND, PLACE_NOWHERE, PLACE_READY, PLACE_SETTLED,
                                     PLACE_UNROUTED, RECIPIENT_DELAY_DUE, RECIPIENT_DELAY_TOLD, RECIPIENT_RELAYED,
                                     RECIPIENT_REPORT_DUE, RECIPIENT_SOURCE_SHIFT, RECIPIENT_TRACED, MESSAGE_HAS_TERMS, MESSAGE_IS_MOVING, message,
                                     chunk_count_of, chunk_octets, message, message_chunks, message_of, recipient,
                                     record_octets, transaction)
from angarium.queue.planner cimport Planner
from angarium.queue.ready cimport Egress, ReadyQueue, ready_resumed
from angarium.queue.record cimport state_record
from angarium.queue.shares cimport Shares
from angarium.queue.terms cimport has_attributes, message_terms, tenant_in, terms_of, terms_read
from angarium.queue.wheel cimport Alarm, Wheel, wheel_node
from angarium.smtp.csmtp cimport SMTP_NOTIFY_DELAY, SMTP_NOTIFY_FAILURE, SMTP_NOTIFY_SUCCESS
from angarium.queue.slab cimport Slab
from angarium.queue.troubles cimport Troubles, forget_trouble
from angarium.spool.cspool cimport (SPOOL_ENVELOPE_INLINE, SPOOL_ENVELOPE_IS_DSN, SPOOL_OUTCOME, spool_chunk, spool_envelope,
                                    spool_envelope_chunk, spool_envelope_next_recipient, spool_envelope_open,
                                    spool_op, spool_recipient, spool_segment)
from angarium.spool.shard cimport Shard

import collections
import functools
import time

from angarium.bounces.classes import UNCLASSIFIED
from angarium.bounces.classifier import shared_classifier
from angarium.metrics.counters import counter, gauge
from angarium.model.errors import SpoolError
from angarium.model.outcome import Trouble
from angarium.model.plan import RoutingTrouble

cdef Counter admitted = counter("angarium_messages_admitted_total", "Messages taken into the queue.")
cdef Counter finished = counter("angarium_messages_finished_total", "Messages that are over.")
cdef Counter recipients_delivered = counter("angarium_recipients_delivered_total", "Recipients delivered.")
cdef Counter recipients_deferred = counter("angarium_recipients_deferred_total", "Attempts that ended in a deferral.")
cdef Counter recipients_failed = counter("angarium_recipients_failed_total", "Recipients failed for good.")
cdef Counter recipients_expired = counter("angarium_recipients_expired_total", "Recipients given up for age.")
cdef Counter state_errors = counter("angarium_outcome_write_errors_total",
                                    "Outcomes that could not be written to the spool (they may be repeated).")
cdef Counter queue_messages = gauge("angarium_queue_messages", "Messages in the queue now.")
cdef Counter queue_recipients = gauge("angarium_queue_recipients", "Recipients waiting now, wherever they are.")
cdef Counter queue_deferred = gauge("angarium_queue_deferred", "Recipients waiting for their next attempt now.")

cdef enum:
    ENVELOPE_FLAGS = 0x3fff     # SPOOL_ENVELOPE_* that message.flags keeps; MESSAGE_* are above
    CONCLUSIONS_AT_ONCE = 512   # more of them under way would only take memory

cdef double BEHIND_S = 0.002

# RFC 2852 §4.1.4.1
cdef object TOO_LATE = Trouble(0, (5, 4, 7), "not delivered by the time that its sender had set")


cdef object too_late(object trouble):
    """The same for a recipient of whose last attempt something is known."""
    return Trouble(trouble.code, (5, 4, 7), f"{TOO_LATE.text}; last: {trouble.text}", trouble.remote, phase=trouble.phase)


cdef void retry_due(wheel_node *node, void *context) noexcept:
    cdef Scheduler scheduler = <Scheduler>context
    cdef recipient *r = <recipient *>node
    message_of(r).deferred_count -= 1
    queue_deferred.cell[0] -= 1
    r.link.where = PLACE_NOWHERE
    scheduler.route(r)


cdef struct state_op:
    spool_op op
    message *message


cdef void state_written(spool_op *op, void *context) noexcept:
    cdef Scheduler scheduler = <Scheduler>context
    cdef message *m = (<state_op *>op).message
    m.state_in_flight = False
    scheduler.states_in_flight -= 1
    if op.error == 0:
        m.state_segment = op.place.segment
    else:
        # What is on disk is older than the truth; the next change writes all of it again.
        state_errors.cell[0] += 1
    octets_unref(op.payload)
    free(op)
    scheduler.settle_message(m)


@cython.final
cdef class Scheduler(Planner):
    """Owns all messages of a worker. Single-threaded: the loop's."""

    def __init__(self, loop, Wheel wheel, Journal journal, Shares shares, *, router, pool, shaping, options,
                 str hostname, uint64_t hot_limit_octets=24 << 20):
        self.loop = loop
        self.wheel = wheel
        self.journal = journal
        self.shares = shares
        self.hostname = hostname
        self.shards = []
        self.index = MessageIndex()
        self.slab = Slab(sizeof(message))
        self.hot_octets = 0
        self.hot_limit_octets = hot_limit_octets
        self.is_closing = False
        self.reporter = None
        self.classifier = shared_classifier()
        self.on_failed = None
        self.suppressed = None
        self.verp = None
        self.deadlines = {}
        self.retry_kind = wheel.register(retry_due, <void *>self)
        self.resume_kind = wheel.register(ready_resumed, <void *>self)
        self.reconfigure(router=router, pool=pool, shaping=shaping, options=options)

    def reconfigure(self, *, router, pool, shaping, options):
        """New routing, limits and retry schedule, at once; see plan_anew()."""
        self.options = options
        self.retry_first_s = options.retry.first
        self.retry_factor = options.retry.factor
        self.retry_max_s = options.retry.max
        self.retry_jitter = options.retry.jitter
        self.max_age_s = options.max_age
        self.delay_report_s = options.delay_report
        self.plan_anew(router=router, pool=pool, shaping=shaping)

    # ---- a message comes in ----

    cdef message *make_message(self, Shard shard, octets *envelope) except NULL:
        cdef spool_envelope view
        cdef spool_recipient found
        cdef const uint8_t *cursor
        cdef message *m
        cdef recipient *r
        cdef DomainQueue domain
        cdef uint8_t number
        cdef uint32_t i = 0
        cdef bytes route
        if spool_envelope_open(envelope.data, envelope.length, &view) != 0 or view.recipient_count == 0:
            raise SpoolError("an envelope in the spool cannot be read")
        number = self.number_of(shard)
        route = self.route_of(&view)
        if view.recipient_count == 1:
            m = <message *>self.slab.take()
        else:
            m = <message *>calloc(1, sizeof(message) + (view.recipient_count - 1) * sizeof(recipient))
        if m == NULL:
            raise MemoryError()
        m.id = view.id
        m.received_utc_ms = view.received_utc_ms
        m.message_octets = <uint32_t>min(view.message_octets, <uint64_t>0xffffffff)
        m.flags = <uint16_t>(view.flags & ENVELOPE_FLAGS)
        if has_attributes(&view):
            self.read_terms(m, &view)
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

    cdef int admit(self, Shard shard, spool_op *op) except -1:
        cdef message *m = self.make_message(shard, op.payload)
        cdef spool_envelope view
        cdef uint32_t i
        m.home = op.place.segment
        m.envelope_offset = op.place.offset
        m.envelope_length = op.place.length
        if op.body != NULL:
            m.where.offset = op.body_place.offset
        else:
            self.find_chunks(m, shard, op.payload)
        self.heat(m, op.payload, op.body)
        admitted.cell[0] += 1
        # A recipient may be taken, sent and settled while the others are being routed: hold the message.
        self.hold(m)
        if self.suppressed is not None and not m.flags & SPOOL_ENVELOPE_IS_DSN:
            self.suppress(m, op.payload)
        if m.flags & MESSAGE_HAS_TERMS:
            self.admit_on_terms(m, op.payload)
        else:
            for i in range(m.recipient_count):
                self.admit_recipient(m, &m.recipients[i])
        self.release(m)
        return 0

    cdef void admit_recipient(self, message *m, recipient *r) noexcept:
        if r.link.where != PLACE_NOWHERE:
            return                          # suppressed
        if r.notify & NOTIFY_EXPANDED:
            self.expanded(m, r)
        else:
            self.route(r)

    cdef int suppress(self, message *m, octets *envelope) except -1:
        """Recipients that must not be tried fail at once."""
        cdef spool_envelope view
        cdef spool_recipient found
        cdef const uint8_t *cursor
        cdef uint32_t i = 0
        cdef bytes tenant
        if spool_envelope_open(envelope.data, envelope.length, &view) != 0:
            return 0
        tenant = tenant_in(&view)
        cursor = view.recipients
        while i < m.recipient_count and spool_envelope_next_recipient(&view, &cursor, &found):
            if not found.notify & NOTIFY_EXPANDED:
                reason = self.suppressed(tenant, found.forward_path.data[:found.forward_path.length])
                if reason is not None:
                    self.conclude_later(&m.recipients[i], None, Trouble(0, (5, 1, 1), reason, phase="route"), True)
            i += 1
        return 0

    cdef void tell_failed(self, message *m, recipient *r, object name) noexcept:
        cdef spool_envelope view
        cdef spool_recipient found
        try:
            if m.flags & SPOOL_ENVELOPE_IS_DSN or not envelope_recipient(m, r.index, &found):
                return
            spool_envelope_open(m.envelope.data, m.envelope.length, &view)      # as in envelope_recipient()
            self.on_failed(name, tenant_in(&view), found.forward_path.data[:found.forward_path.length])
        except Exception as error:
            self.journal.log("error", where="on_failed", reason=repr(error))

    cdef void expanded(self, message *m, recipient *r) noexcept:
        """An alias whose members are recipients of their own: over at once, but its sender is to be told (RFC 3461 §5.2.7.3)."""
        log_outcome(self.journal, b"expanded", m, r, None, None, NULL, 0, 0, 0, 0, 0, NULL, 0, 0, NULL, NULL,
                    NULL, NULL, NULL)
        r.outcome = OUTCOME_DELIVERED
        self.report_due(m, r)
        self.detach(r)

    cdef void admit_on_terms(self, message *m, octets *envelope) noexcept:
        """Recipients of a message that is held wait in the wheel as if they had been deferred; no attempt is counted."""
        cdef message_terms terms
        cdef spool_envelope view
        cdef uint32_t i
        cdef uint64_t now_s = utc_ms() // 1000
        spool_envelope_open(envelope.data, envelope.length, &view)      # as in make_message()
        terms_read(&view, &terms)
        self.watch_deadline(m, &terms)
        for i in range(m.recipient_count):
            if m.recipients[i].link.where != PLACE_NOWHERE:
                continue                    # suppressed
            if terms.hold_until_utc_s > now_s and not m.recipients[i].notify & NOTIFY_EXPANDED:
                self.defer(&m.recipients[i], (terms.hold_until_utc_s - now_s) * 1000)
            else:
                self.admit_recipient(m, &m.recipients[i])

    # ---- by-times (RFC 2852) ----

    cdef void watch_deadline(self, message *m, const message_terms *terms) noexcept:
        cdef int64_t left_s
        if terms.by_mode == 0:
            return
        left_s = terms.by_utc_s - <int64_t>(utc_ms() // 1000)
        try:
            alarm = Alarm(self.wheel, functools.partial(self.deadline_due, m.id))
            alarm.arm(max(left_s, 0))
            self.deadlines[m.id] = alarm
        except Exception as error:
            self.journal.log("error", where="by-time", reason=repr(error))

    def deadline_due(self, uint64_t id):
        """The by-time of a message is here: its waiting recipients are given up or told of. Those in hand: conclude()."""
        cdef message *m = self.index.find(id)
        self.deadlines.pop(id, None)
        if m == NULL:
            return
        self.hold(m)
        if m.envelope != NULL:
            self.deadline_passed(id, 0)
        else:
            fetch_envelope(self, m, functools.partial(self.deadline_passed, id))

    def deadline_passed(self, uint64_t id, int error):
        cdef message *m = self.index.find(id)       # held
        cdef message_terms terms
        cdef recipient *r
        cdef uint32_t i
        terms_of(m, &terms)
        for i in range(m.recipient_count):
            r = &m.recipients[i]
            if r.outcome != OUTCOME_WAITING:
                continue
            if terms.by_mode == c'N':
                self.delay_due(m, r, r.notify == 0 or r.notify & SMTP_NOTIFY_DELAY)
            elif terms.by_mode == c'R' and self.take_out(r):
                self.conclude(m, r, None, TOO_LATE, True, 0)
        self.release(m)

    cdef void delay_due(self, message *m, recipient *r, bint is_asked) noexcept:
        """The sender is told once that r waits still."""
        if is_asked and not r.flags & (RECIPIENT_DELAY_DUE | RECIPIENT_DELAY_TOLD) and not m.flags & SPOOL_ENVELOPE_IS_DSN:
            r.flags |= RECIPIENT_DELAY_DUE
            m.report_count += 1
            m.is_dirty = True

    cdef int find_chunks(self, message *m, Shard shard, octets *envelope) except -1:
        """A streamed message: remember its chunks' segments, whose pins are ours to give back."""
        cdef spool_envelope view
        cdef spool_chunk chunk
        cdef uint32_t i
        if spool_envelope_open(envelope.data, envelope.length, &view) != 0:
            raise SpoolError("an envelope in the spool cannot be read")
        if view.chunk_count == 0:
            return 0
        m.where.chunks = <message_chunks *>malloc(sizeof(message_chunks) + (view.chunk_count - 1) * sizeof(spool_segment *))
        if m.where.chunks == NULL:
            raise MemoryError()
        m.where.chunks.count = view.chunk_count
        m.where.chunks.offset = spool_envelope_chunk(&view, 0).offset
        for i in range(view.chunk_count):
            chunk = spool_envelope_chunk(&view, i)
            m.where.chunks.segments[i] = shard.segment(chunk.segment_serial)
        return 0

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

    # ---- outcomes ----

    cdef void delivered(self, ReadyQueue ready, transaction *t, uint32_t i, uint16_t code, const uint8_t *text,
                        size_t text_length, const uint8_t *remote, size_t remote_length, uint64_t elapsed_ms,
                        bint peer_has_dsn, const char *tls_version, const char *tls_cipher,
                        const char *tls_policy, const char *tls_policy_from) noexcept:
        cdef recipient *r = t.recipients[i]
        cdef message *m = t.message
        r.link.tally += 1
        log_outcome(self.journal, b"delivered", m, r, ready.site_name, ready.source_name, remote, remote_length,
                    code, 0, 0, 0, text, text_length, elapsed_ms, tls_version, tls_cipher,
                    tls_policy, tls_policy_from, NULL)
        recipients_delivered.cell[0] += 1
        r.outcome = OUTCOME_DELIVERED
        if r.notify & SMTP_NOTIFY_SUCCESS and not peer_has_dsn or r.flags & RECIPIENT_TRACED:
            if ready.site.protocol == "smtp":       # LMTP and Maildirs are the end of the way (RFC 3461 §5.2.2)
                r.flags |= RECIPIENT_RELAYED
            if remote_length:       # what a local delivery says (a path) is the operator's, not the sender's
                self.note_trouble(m, r, Trouble(code, (2, 0, 0), text[:text_length].decode("utf-8", "replace"),
                                                remote[:remote_length].decode("utf-8", "replace")))
            self.report_due(m, r)
        self.detach(r)

    cdef void deferred(self, ReadyQueue ready, transaction *t, uint32_t i, object trouble, uint64_t elapsed_ms) noexcept:
        ready.last_trouble = trouble.text
        self.conclude(t.message, t.recipients[i], ready, trouble, False, elapsed_ms)

    cdef void failed(self, ReadyQueue ready, transaction *t, uint32_t i, object trouble, uint64_t elapsed_ms) noexcept:
        self.conclude(t.message, t.recipients[i], ready, trouble, True, elapsed_ms)

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

    cdef void conclude(self, message *m, recipient *r, ReadyQueue ready, object trouble, bint is_permanent,
                       uint64_t elapsed_ms) noexcept:
        """One attempt of r has ended without delivery. r is in no list; the message's envelope is in memory if it can be."""
        cdef bytes text, remote, name
        cdef uint64_t now = utc_ms()
        cdef uint64_t begun_ms = m.received_utc_ms
        cdef uint64_t age_ms
        cdef message_terms terms
        cdef const char *event = b"deferred"
        cdef bytes site = ready.site_name if ready is not None else None
        cdef bytes source = ready.source_name if ready is not None else None
        cdef double delay_s
        try:
            terms.by_mode = 0
            if m.flags & MESSAGE_HAS_TERMS and terms_of(m, &terms):
                begun_ms = max(begun_ms, terms.hold_until_utc_s * 1000)
                if not is_permanent and terms.by_mode == c'R' and now >= <uint64_t>terms.by_utc_s * 1000:
                    is_permanent = True
                    trouble = too_late(trouble)
            age_ms = now - begun_ms if now > begun_ms else 0
            if r.link.tally < 65535:
                r.link.tally += 1
            self.note_trouble(m, r, trouble)
            if trouble.is_of_source and r.flags >> RECIPIENT_SOURCE_SHIFT < 255:
                r.flags += <uint16_t>(1 << RECIPIENT_SOURCE_SHIFT)
            if is_permanent:
                event = b"failed"
                r.outcome = OUTCOME_FAILED
                recipients_failed.cell[0] += 1
            elif age_ms >= <uint64_t>(self.max_age_s * 1000):
                event = b"expired"
                r.outcome = OUTCOME_EXPIRED
                recipients_expired.cell[0] += 1
            else:
                recipients_deferred.cell[0] += 1
                if r.notify & SMTP_NOTIFY_DELAY and self.delay_report_s and age_ms >= <uint64_t>(self.delay_report_s * 1000):
                    self.delay_due(m, r, True)
            bounce_class = self.class_of(trouble)
            name = bounce_class.encode("ascii")
            text = trouble.text.encode("utf-8", "replace")
            remote = trouble.remote.encode("utf-8", "replace")
            log_outcome(self.journal, event, m, r, site, source, <const uint8_t *>(<const char *>remote), len(remote),
                        trouble.code, trouble.status[0], trouble.status[1], trouble.status[2],
                        <const uint8_t *>(<const char *>text), len(text), elapsed_ms, NULL, NULL, NULL, NULL, name)
            m.is_dirty = True
            if r.outcome != OUTCOME_WAITING:
                if self.on_failed is not None:
                    self.tell_failed(m, r, bounce_class)
                if self.wants_failure_report(m, r):
                    self.report_due(m, r)
                self.detach(r)
                return
            delay_s = self.retry_delay_s(m, r, trouble.delay_s, ready)
            # The last attempt falls on the expiry itself, so that giving up is not late by up to a whole interval.
            delay_s = min(delay_s, max((self.max_age_s * 1000 - age_ms) / 1000.0, 1.0))
        except Exception as error:
            self.journal.log("error", where="conclude", reason=repr(error))
            delay_s = self.retry_first_s
        self.defer(r, <uint64_t>(delay_s * 1000))

    cdef str class_of(self, object trouble):
        try:
            return self.classifier.count(trouble)
        except Exception as error:          # what the failure means for statistics may not keep its outcome from being told
            self.journal.log("error", where="classify", reason=repr(error))
            return UNCLASSIFIED

    cdef bint wants_failure_report(self, message *m, recipient *r) noexcept:
        # Whether there is somebody to tell (null reverse-path) is known to the reporter, who reads the envelope.
        return not m.flags & SPOOL_ENVELOPE_IS_DSN and (r.notify == 0 or r.notify & SMTP_NOTIFY_FAILURE)

    cdef void report_due(self, message *m, recipient *r) noexcept:
        r.flags |= RECIPIENT_REPORT_DUE
        m.report_count += 1
        m.is_dirty = True

    cdef void conclude_later(self, recipient *r, object ready, object trouble, bint is_permanent) noexcept:
        """conclude() for a recipient in no list whose envelope may have to be read back first (the log line and the
        report name it)."""
        cdef message *m = message_of(r)
        r.link.where = PLACE_IN_HAND
        if m.envelope != NULL:
            self.hold(m)
            self.conclude(m, r, ready, trouble, is_permanent, 0)
            self.release(m)
            return
        self.hold(m)
        self.conclusions_waiting += 1
        try:
            fetch_envelope(self, m, functools.partial(self.concluded_later, <size_t>r, ready, trouble, is_permanent))
        except Exception as error:
            self.conclusions_waiting -= 1
            self.journal.log("error", where="read back", reason=repr(error))
            self.conclude(m, r, ready, trouble, is_permanent, 0)
            self.release(m)

    def concluded_later(self, size_t pointer, ReadyQueue ready, trouble, bint is_permanent, int error):
        cdef recipient *r = <recipient *>pointer
        cdef message *m = message_of(r)
        self.conclusions_waiting -= 1
        self.conclude(m, r, ready, trouble, is_permanent, 0)
        self.release(m)

    cdef bint is_behind(self) noexcept:
        return self.conclusions_waiting >= CONCLUSIONS_AT_ONCE

    cdef int later(self, callback, trouble, bint is_permanent, uint64_t remaining) except -1:
        if self.is_behind():
            self.loop.call_later(BEHIND_S, callback, trouble, is_permanent, remaining)
        else:
            self.loop.call_soon(callback, trouble, is_permanent, remaining)
        return 0

    cdef void note_trouble(self, message *m, recipient *r, object trouble) noexcept:
        try:
            self.troubles.note(r, trouble)
        except Exception as error:          # out of memory: the attempt counts, its reason is not kept
            self.journal.log("error", where="trouble", reason=repr(error))

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

    cdef void defer(self, recipient *r, uint64_t delay_ms) noexcept:
        """Puts r (in no list) into the wheel."""
        r.link.where = PLACE_DEFERRED
        message_of(r).deferred_count += 1
        queue_deferred.cell[0] += 1
        self.wheel.arm(&r.link, delay_ms)

    cdef void undefer(self, recipient *r) noexcept:
        """Takes a deferred recipient out of the wheel; the caller routes or ends it."""
        self.wheel.disarm(&r.link)
        r.link.where = PLACE_NOWHERE
        message_of(r).deferred_count -= 1
        queue_deferred.cell[0] -= 1

    cdef bint take_out(self, recipient *r) noexcept:
        """Takes a recipient out of whatever list it waits in; False when it is in hand."""
        if r.link.where == PLACE_DEFERRED:
            self.undefer(r)
        elif r.link.where == PLACE_READY:
            (<ReadyQueue>self.ready_numbers[r.link.due]).remove(r)
        elif r.link.where == PLACE_UNROUTED:
            (<DomainQueue>r.domain).unrouted -= 1
            list_remove(&r.link)
            r.link.where = PLACE_NOWHERE
        else:
            return False
        return True

    cdef double retry_delay_s(self, message *m, recipient *r, double least_s, ReadyQueue ready) noexcept:
        """first * factor^(attempts - 1), capped; the jitter is the same for all recipients of a message at the same
        attempt, so that they travel together again."""
        cdef double delay = self.retry_first_s, factor = self.retry_factor, most = self.retry_max_s
        cdef double jitter = self.retry_jitter
        cdef int i
        cdef uint64_t mixed = (m.id + r.link.tally) * <uint64_t>0x9E3779B97F4A7C15ULL
        if ready is not None and ready.retry_first_s > 0.0:
            delay, factor, most, jitter = ready.retry_first_s, ready.retry_factor, ready.retry_max_s, ready.retry_jitter
        for i in range(1, r.link.tally):
            delay *= factor
            if delay >= most:
                delay = most
                break
        delay *= 1.0 + jitter * (<double>(mixed >> 40) / <double>(1 << 23) - 1.0)
        return max(delay, least_s, 0.1)

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
            return
        if m.live_count == m.deferred_count and m.is_hot:
            self.cool(m)
        if m.is_dirty and not m.state_in_flight:
            self.write_state(m)

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

    # ---- reading back ----

    cdef bint has_envelope_and_body(self, message *m) noexcept:
        return m.envelope != NULL and not wants_body(m)

    cdef int fetch(self, message *m, object done) except -1:
        return fetch_message(self, m, done)

    # ---- start and end ----

    def close(self):
        """Nothing new is started: no look-ups, no reports. In-hand work may still settle."""
        self.is_closing = True
        for task in list(self.plan_tasks):
            task.cancel()
        self.deadlines.clear()
        self.wheel.close()

    def depth(self):
        """Numbers of now, for status: messages, recipients, ready, deferred, hot octets."""
        return {
            "messages": self.index.count,
            "recipients": queue_recipients.cell[0],
            "ready": self.ready_recipients(),
            "deferred": queue_deferred.cell[0],
            "hot_octets": self.hot_octets,
            "domains": len(self.domains),
            "ready_queues": len(self.ready),
        }

