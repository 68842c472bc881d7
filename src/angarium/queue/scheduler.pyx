# The scheduler: where every recipient is, from its commit to its outcome. It decides when, routing/ decides where,
# outbound/ does it. No sockets, no DNS, no SMTP here.
#
#   admit ─> DomainQueue (waits for a plan) ─> ReadyQueue ─> in hand of an Egress ─> delivered | failed
#                     ^                                                └─> deferred ─> timer wheel ─┐
#                     └────────────────────────────────────────────────────────────────────────────┘
#
# It is made of five: planner.pyx (which ready queue), keeper.pyx (messages, their memory and records), outcomes.pyx (what
# attempts end in), steering.pyx (standing orders), and here how a message comes in and the times that it sets itself.
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from angarium.events.journal cimport Journal
from angarium.metrics.counters cimport Counter
from angarium.model.clock cimport utc_ms
from angarium.model.octets cimport octets
from angarium.queue.fetch cimport fetch_envelope
from angarium.queue.log cimport log_outcome
from angarium.queue.message cimport (
    MESSAGE_HAS_TERMS, NOTIFY_EXPANDED, OUTCOME_DELIVERED, OUTCOME_WAITING, PLACE_NOWHERE, message, recipient,
)
from angarium.queue.outcomes cimport retry_due
from angarium.queue.ready cimport ready_resumed
from angarium.queue.shares cimport Shares
from angarium.queue.steering cimport Steering
from angarium.queue.terms cimport message_terms, tenant_in, terms_of, terms_read
from angarium.queue.wheel cimport Alarm, Wheel
from angarium.smtp.csmtp cimport SMTP_NOTIFY_DELAY
from angarium.spool.cspool cimport (
    SPOOL_ENVELOPE_IS_DSN, spool_envelope, spool_envelope_next_recipient, spool_envelope_open, spool_op,
    spool_recipient,
)
from angarium.spool.shard cimport Shard

import functools

from angarium.bounces.classifier import shared_classifier
from angarium.metrics.counters import counter
from angarium.model.outcome import Trouble
from angarium.queue.outcomes import TOO_LATE

cdef double CALL_BACK_S = 0.1       # judged: another worker answers in a turn or two of its loop

cdef Counter admitted = counter("angarium_messages_admitted_total", "Messages taken into the queue.")


@cython.final
cdef class Scheduler(Steering):
    """Owns all messages of a worker. Single-threaded: the loop's."""

    def __init__(self, loop, Wheel wheel, Journal journal, Shares shares, *, router, pool, shaping, options,
                 str hostname, uint64_t hot_limit_octets=24 << 20):
        self.loop = loop
        self.wheel = wheel
        self.journal = journal
        self.shares = shares
        self.hostname = hostname
        self.hot_octets = 0
        self.hot_limit_octets = hot_limit_octets
        self.is_closing = False
        self.classifier = shared_classifier()
        self.on_failed = None
        self.suppressed = None
        self.verp = None
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

    def deadline_due(self, uint64_t id, bint is_second=False):
        """The by-time of a message is here: its waiting recipients are given up or told of. Those in hand: conclude()."""
        cdef message *m = self.index.find(id)
        self.deadlines.pop(id, None)
        if m == NULL or self.is_closing:
            return
        self.hold(m)
        if m.envelope != NULL:
            self.deadline_passed(id, is_second, 0)
        else:
            fetch_envelope(self, m, functools.partial(self.deadline_passed, id, is_second))

    def deadline_passed(self, uint64_t id, bint is_second, int error):
        cdef message *m = self.index.find(id)       # held
        cdef message_terms terms
        cdef recipient *r
        cdef uint32_t i
        cdef bint is_called_back = False
        terms_of(m, &terms)
        for i in range(m.recipient_count):
            r = &m.recipients[i]
            if r.outcome != OUTCOME_WAITING:
                continue
            if terms.by_mode == c'N':
                self.delay_due(m, r, r.notify == 0 or r.notify & SMTP_NOTIFY_DELAY)
            elif terms.by_mode == c'R':
                if self.take_out(r):
                    self.conclude(m, r, None, TOO_LATE, True, 0)
                elif not is_second and self.call_back(r):
                    is_called_back = True
        self.release(m)
        if is_called_back:
            self.loop.call_later(CALL_BACK_S, self.deadline_due, id, True)

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
            "recipients": self.recipients_waiting(),
            "ready": self.ready_recipients(),
            "behind": self.overflow_recipients(),
            "deferred": self.deferred_now(),
            "hot_octets": self.hot_octets,
            "domains": len(self.domains),
            "ready_queues": len(self.ready),
        }
