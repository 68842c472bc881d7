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
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memset

from angarium.events.journal cimport Journal
from angarium.metrics.counters cimport Counter
from angarium.model.clock cimport mono_ms, utc_ms
from angarium.model.octets cimport octets, octets_copy, octets_new, octets_ref, octets_unref
from angarium.queue.index cimport MessageIndex
from angarium.queue.log cimport envelope_recipient, log_outcome
from angarium.queue.message cimport (OUTCOME_DELIVERED, OUTCOME_EXPIRED, OUTCOME_FAILED, OUTCOME_WAITING,
                                     PLACE_DEFERRED, PLACE_IN_HAND, PLACE_NOWHERE, PLACE_READY, PLACE_SETTLED,
                                     PLACE_UNROUTED, RECIPIENT_RELAYED, RECIPIENT_REPORT_DUE, message,
                                     message_of, recipient, transaction)
from angarium.queue.record cimport apply_state, state_record
from angarium.queue.shares cimport Share, Shares
from angarium.queue.wheel cimport Wheel, wheel_node
from angarium.smtp.csmtp cimport SMTP_NOTIFY_FAILURE, SMTP_NOTIFY_SUCCESS
from angarium.spool.cspool cimport (SPOOL_ENVELOPE, SPOOL_ENVELOPE_IS_DSN, SPOOL_OUTCOME, spool_chunk, spool_envelope,
                                    spool_envelope_add_recipient, spool_envelope_begin, spool_envelope_chunk,
                                    spool_envelope_finish, spool_envelope_next_recipient, spool_envelope_open,
                                    spool_id_encode,
                                    spool_op, spool_read_op, spool_recipient, spool_recovered, spool_segment,
                                    spool_segment_serial, spool_span)
from angarium.spool.shard cimport Shard

import collections
import functools
import random
import time

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
cdef Counter recovered = counter("angarium_messages_recovered_total", "Messages found in the spool at start.")
cdef Counter state_errors = counter("angarium_outcome_write_errors_total",
                                    "Outcomes that could not be written to the spool (they may be repeated).")
cdef Counter damaged = counter("angarium_messages_damaged_total", "Messages whose octets on disk are damaged.")
cdef Counter queue_messages = gauge("angarium_queue_messages", "Messages in the queue now.")
cdef Counter queue_recipients = gauge("angarium_queue_recipients", "Recipients waiting now, wherever they are.")
cdef Counter queue_ready = gauge("angarium_queue_ready", "Recipients in ready queues now.")
cdef Counter queue_deferred = gauge("angarium_queue_deferred", "Recipients waiting for their next attempt now.")

cdef enum:
    PLANS_AT_ONCE = 256         # look-ups under way; more domains wait in line
    SLICE = 1000                # recipients handled in one turn of the loop by work that may be long
    FETCH_BODY_MAX = 1 << 20    # a larger body is streamed chunk by chunk, never held whole


cdef inline void list_init(wheel_node *head) noexcept nogil:
    head.next = head
    head.previous = head


cdef inline void list_append(wheel_node *head, wheel_node *node) noexcept nogil:
    node.next = head
    node.previous = head.previous
    head.previous.next = node
    head.previous = node


cdef inline void list_prepend(wheel_node *head, wheel_node *node) noexcept nogil:
    node.previous = head
    node.next = head.next
    head.next.previous = node
    head.next = node


cdef inline void list_remove(wheel_node *node) noexcept nogil:
    node.previous.next = node.next
    node.next.previous = node.previous
    node.next = NULL
    node.previous = NULL


cdef class Egress:
    cdef void wake(self, ReadyQueue ready) noexcept:
        pass


@cython.final
@cython.no_gc
cdef class DomainQueue:
    """Kept by the scheduler while it has recipients or a usable plan; recipients borrow it."""

    def __cinit__(self, bytes domain):
        list_init(&self.head)
        self.domain = domain
        self.count = 0
        self.unrouted = 0
        self.plan = None
        self.plan_expires_mono_s = 0.0
        self.is_resolving = False
        self.generation = 0
        self.only = None


@cython.final
cdef class ReadyQueue:
    """Kept by the scheduler for as long as it runs or until it is empty and unused for a while."""

    def __cinit__(self, Scheduler scheduler, object site, object source):
        global resume_offset
        # Where `resume` lies in every object of this class: how resumed() finds the owner of a due node.
        resume_offset = <size_t>&self.resume - <size_t><PyObject *>self
        list_init(&self.head)
        memset(&self.resume, 0, sizeof(self.resume))
        self.resume.kind = <uint8_t>scheduler.resume_kind
        self.scheduler = scheduler
        self.site = site
        self.source = source
        self.site_name = site.name.encode("utf-8", "replace")
        self.source_name = source.name.encode("utf-8", "replace")
        self.share = scheduler.shares.share(site.name)
        self.paused_until_mono_s = 0.0
        self.last_trouble = ""
        self.configure()

    cdef void configure(self) noexcept:
        shaping = self.scheduler.shaping
        try:
            self.connection_limit = shaping.connections
            self.recipient_limit = shaping.recipients
            self.messages_per_connection = shaping.messages_per_connection
            if shaping.rate is None or not shaping.rate.is_limited:
                self.rate_interval_ns = 0
                self.rate_burst = 1
            else:
                self.rate_interval_ns = <uint64_t>(1e9 / shaping.rate)
                # A tenth of a second's worth at once: timers are 100 ms ticks, a smaller burst could not reach the rate.
                self.rate_burst = max(1, <uint32_t>(shaping.rate / 10))
        except Exception as error:      # options are checked when they are read: this is a bug, and a visible one
            self.scheduler.journal.log("error", where="ready queue configuration", reason=repr(error))

    cdef void push(self, recipient *r) noexcept:
        list_append(&self.head, &r.link)
        r.link.where = PLACE_READY
        r.link.due = self.number        # free outside the wheel: says whose list this is
        self.count += 1
        queue_ready.cell[0] += 1
        self.egress.wake(self)

    cdef bint take(self, transaction *into, uint32_t limit) noexcept:
        cdef recipient *r
        cdef recipient **grown
        cdef message *m
        cdef uint64_t wait_ns
        into.message = NULL
        into.count = 0
        if self.count == 0 or self.paused_until_mono_s != 0.0:
            return False
        if self.rate_interval_ns:
            wait_ns = self.share.take_message(self.rate_interval_ns, self.rate_burst)
            if wait_ns:
                self.pause(<double>wait_ns / 1e9)
                return False
        if limit > self.recipient_limit:
            limit = self.recipient_limit
        r = <recipient *>self.head.next
        m = message_of(r)
        while True:
            if into.count == into.capacity:
                grown = <recipient **>realloc(into.recipients, (into.capacity * 2 + 1) * sizeof(recipient *))
                if grown == NULL:
                    break
                into.recipients = grown
                into.capacity = into.capacity * 2 + 1
            list_remove(&r.link)
            r.link.where = PLACE_IN_HAND
            into.recipients[into.count] = r
            into.count += 1
            if into.count == limit or self.head.next == &self.head:
                break
            r = <recipient *>self.head.next
            if message_of(r) != m:
                break
        if into.count == 0:
            return False
        self.count -= into.count
        queue_ready.cell[0] -= into.count
        into.message = m
        m.hand_count += into.count
        return True

    cdef void give_back(self, transaction *from_) noexcept:
        cdef uint32_t i
        cdef recipient *r
        cdef message *m = from_.message
        cdef uint32_t given = 0
        for i in range(from_.count, 0, -1):
            r = from_.recipients[i - 1]
            if r.link.where == PLACE_IN_HAND:
                list_prepend(&self.head, &r.link)
                r.link.where = PLACE_READY
                r.link.due = self.number
                given += 1
        self.count += given
        queue_ready.cell[0] += given
        self.scheduler.settle(from_)
        if given:
            self.egress.wake(self)

    cpdef pause(self, double seconds):
        cdef double until = time.monotonic() + seconds
        if until > self.paused_until_mono_s:
            self.paused_until_mono_s = until
            self.scheduler.wheel.arm(&self.resume, <uint64_t>(max(seconds, 0.0) * 1000))

    cpdef bint may_connect(self):
        if self.share.take_connection(self.connection_limit):
            return True
        if self.resume.next == NULL:
            self.scheduler.wheel.arm(&self.resume, 100)
        return False

    cpdef connection_closed(self):
        self.share.give_connection()

    cpdef bint is_contended(self):
        return self.share.is_wanted()

    cpdef defer_all(self, object trouble):
        self.last_trouble = trouble.text
        if not self.is_deferring and self.count:
            self.is_deferring = True
            self.conclude_slice(trouble, False, self.count)

    cpdef fail_all(self, object trouble):
        self.last_trouble = trouble.text
        if not self.is_deferring and self.count:
            self.is_deferring = True
            self.conclude_slice(trouble, True, self.count)

    def conclude_slice(self, trouble, bint is_permanent, uint64_t remaining):
        cdef recipient *r
        cdef int i
        for i in range(SLICE):
            if remaining == 0 or self.count == 0:
                self.is_deferring = False
                return
            r = <recipient *>self.head.next
            list_remove(&r.link)
            self.count -= 1
            queue_ready.cell[0] -= 1
            remaining -= 1
            self.scheduler.conclude_later(r, self, trouble, is_permanent)
        self.scheduler.loop.call_soon(self.conclude_slice, trouble, is_permanent, remaining)

    @property
    def connections(self):
        """Connections of the whole machine to the site."""
        return self.share.machine_count


cdef void resumed(wheel_node *node, void *context) noexcept:
    cdef ReadyQueue ready = <ReadyQueue><PyObject *>(<char *>node - resume_offset)
    ready.paused_until_mono_s = 0.0
    if ready.count:
        ready.egress.wake(ready)


cdef size_t resume_offset = 0


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
    if op.error == 0:
        m.state_segment = op.place.segment
    else:
        # What is on disk is older than the truth; the next change writes all of it again.
        state_errors.cell[0] += 1
    octets_unref(op.payload)
    free(op)
    scheduler.settle_message(m)


cdef struct fetch_op:
    spool_read_op envelope
    spool_read_op body
    message *message
    PyObject *scheduler
    PyObject *done
    int error


cdef void fetch_ended(fetch_op *fetch) noexcept:
    cdef Scheduler scheduler = <Scheduler>fetch.scheduler
    cdef object done = <object>fetch.done
    cdef message *m = fetch.message
    if fetch.error == 0:
        scheduler.heat(m, fetch.envelope.out, fetch.body.out)
    else:
        damaged.cell[0] += 1
        scheduler.heat(m, fetch.envelope.out, NULL)     # a report can be made from the envelope alone
    octets_unref(fetch.envelope.out)
    octets_unref(fetch.body.out)
    try:
        done(fetch.error)
    except Exception as error:      # a callback's bug must not cost the message: it stays in the spool
        scheduler.journal.log("error", where="fetch", reason=repr(error))
    Py_XDECREF(fetch.done)
    Py_XDECREF(fetch.scheduler)
    free(fetch)
    scheduler.release(m)


cdef void body_read(spool_read_op *op, void *context) noexcept:
    cdef fetch_op *fetch = <fetch_op *>context
    fetch.error = op.error
    fetch_ended(fetch)


cdef void envelope_read(spool_read_op *op, void *context) noexcept:
    cdef fetch_op *fetch = <fetch_op *>context
    fetch.error = op.error
    if op.error == 0 and wants_body(fetch.message):
        start_body(fetch)
    else:
        fetch_ended(fetch)


cdef bint wants_body(message *m) noexcept:
    return m.body == NULL and m.body_segment != NULL and m.body_length <= FETCH_BODY_MAX


cdef void envelope_only_read(spool_read_op *op, void *context) noexcept:
    cdef fetch_op *fetch = <fetch_op *>context
    fetch.error = op.error
    fetch_ended(fetch)


cdef void start_body(fetch_op *fetch) noexcept:
    cdef message *m = fetch.message
    fetch.body.place.segment = m.body_segment
    fetch.body.place.offset = m.body_offset
    fetch.body.place.length = m.body_length
    fetch.body.done = body_read
    fetch.body.context = fetch
    (<Shard>m.shard).read(&fetch.body)


cdef struct inject_op:
    spool_op op
    PyObject *scheduler
    PyObject *shard
    PyObject *done


cdef void injected(spool_op *op, void *context) noexcept:
    cdef inject_op *inject = <inject_op *>op
    cdef Scheduler scheduler = <Scheduler>inject.scheduler
    cdef object done = <object>inject.done
    try:
        if op.error == 0:
            scheduler.admit(<Shard>inject.shard, op)
        done(op.error, op.id)
    except Exception as error:
        scheduler.journal.log("error", where="inject", reason=repr(error))
    octets_unref(op.payload)
    octets_unref(op.body)
    Py_XDECREF(inject.done)
    Py_XDECREF(inject.shard)
    Py_XDECREF(inject.scheduler)
    free(inject)


@cython.final
cdef class Scheduler:
    """Owns all messages of a worker. Single-threaded: the loop's."""

    def __init__(self, loop, Wheel wheel, Journal journal, Shares shares, *, router, pool, shaping, options,
                 str hostname, uint64_t hot_limit_octets=24 << 20):
        self.loop = loop
        self.wheel = wheel
        self.journal = journal
        self.shares = shares
        self.hostname = hostname
        self.index = MessageIndex()
        self.domains = {}
        self.ready = {}
        self.ready_numbers = {}
        self.ready_count = 0
        self.egresses = {}
        self.to_resolve = collections.deque()
        self.plan_tasks = set()
        self.last_domain = None
        self.hot_octets = 0
        self.hot_limit_octets = hot_limit_octets
        self.is_closing = False
        self.is_recovering = False
        self.reporter = None
        self.retry_kind = wheel.register(retry_due, <void *>self)
        self.resume_kind = wheel.register(resumed, <void *>self)
        self.generation = 0
        self.reconfigure(router=router, pool=pool, shaping=shaping, options=options)

    def reconfigure(self, *, router, pool, shaping, options):
        """New routing and limits, at once: plans are made anew, and recipients in ready queues are routed again."""
        cdef ReadyQueue ready
        self.router = router
        self.pool = pool
        self.shaping = shaping
        self.options = options
        self.retry_first_s = options.retry.first
        self.retry_factor = options.retry.factor
        self.retry_max_s = options.retry.max
        self.retry_jitter = options.retry.jitter
        self.max_age_s = options.max_age
        self.generation += 1
        self.last_domain = None
        for ready in list(self.ready.values()):
            ready.configure()
            self.reroute(ready, ready.count)

    def reroute(self, ReadyQueue ready, uint64_t remaining):
        cdef recipient *r
        cdef int i
        for i in range(SLICE):
            if remaining == 0 or ready.count == 0:
                return
            r = <recipient *>ready.head.next
            list_remove(&r.link)
            ready.count -= 1
            queue_ready.cell[0] -= 1
            remaining -= 1
            r.link.where = PLACE_NOWHERE
            self.route(r)
        self.loop.call_soon(self.reroute, ready, remaining)

    def set_egress(self, str protocol, Egress egress):
        """Who serves ready queues whose site speaks `protocol` (model.plan.Site.protocol)."""
        self.egresses[protocol] = egress

    # ---- a message comes in ----

    cdef message *make_message(self, Shard shard, octets *envelope) except NULL:
        cdef spool_envelope view
        cdef spool_recipient found
        cdef const uint8_t *cursor
        cdef message *m
        cdef recipient *r
        cdef DomainQueue domain
        cdef uint32_t i = 0
        if spool_envelope_open(envelope.data, envelope.length, &view) != 0 or view.recipient_count == 0:
            raise SpoolError("an envelope in the spool cannot be read")
        m = <message *>calloc(1, sizeof(message) + (view.recipient_count - 1) * sizeof(recipient))
        if m == NULL:
            raise MemoryError()
        m.id = view.id
        m.received_utc_ms = view.received_utc_ms
        m.message_octets = view.message_octets
        m.flags = view.flags
        m.shard = <void *>shard
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
            domain = self.domain_queue(found.forward_path.data + found.domain_offset,
                                       found.forward_path.length - found.domain_offset)
            domain.count += 1           # from here on the scheduler keeps it: a borrowed pointer is enough
            r.domain = <void *>domain
            i += 1
        self.index.add(m)
        queue_messages.cell[0] += 1
        queue_recipients.cell[0] += m.recipient_count
        return m

    cdef DomainQueue domain_queue(self, const uint8_t *data, size_t length):
        """The queue of a domain in any case. An address literal keeps its brackets."""
        cdef DomainQueue found = self.last_domain
        cdef uint8_t folded[255]
        cdef size_t i
        cdef bytes key
        if length > 255:
            length = 255
        for i in range(length):
            folded[i] = data[i] + 32 if c'A' <= data[i] <= c'Z' else data[i]
        if found is not None and <size_t>len(found.domain) == length and \
                memcmp(<const char *>found.domain, folded, length) == 0:
            return found
        key = folded[:length]
        found = self.domains.get(key)
        if found is None:
            found = DomainQueue.__new__(DomainQueue, key)
            self.domains[key] = found
        self.last_domain = found
        return found

    cdef int admit(self, Shard shard, spool_op *op) except -1:
        cdef message *m = self.make_message(shard, op.payload)
        cdef spool_envelope view
        cdef uint32_t i
        m.home = op.place.segment
        m.envelope_offset = op.place.offset
        m.envelope_length = op.place.length
        if op.body != NULL:
            m.body_segment = op.body_place.segment
            m.body_offset = op.body_place.offset
            m.body_length = op.body_place.length
        else:
            self.find_chunks(m, shard, op.payload)
        self.heat(m, op.payload, op.body)
        admitted.cell[0] += 1
        # A recipient may be taken, sent and settled while the others are being routed: hold the message.
        self.hold(m)
        for i in range(m.recipient_count):
            self.route(&m.recipients[i])
        self.release(m)
        return 0

    cdef int find_chunks(self, message *m, Shard shard, octets *envelope) except -1:
        """A streamed message: remember its chunks' segments, whose pins are ours to give back."""
        cdef spool_envelope view
        cdef spool_chunk chunk
        cdef uint32_t i
        if spool_envelope_open(envelope.data, envelope.length, &view) != 0:
            raise SpoolError("an envelope in the spool cannot be read")
        if view.chunk_count == 0:
            return 0
        m.chunk_segments = <spool_segment **>malloc(view.chunk_count * sizeof(spool_segment *))
        if m.chunk_segments == NULL:
            raise MemoryError()
        m.chunk_count = view.chunk_count
        for i in range(view.chunk_count):
            chunk = spool_envelope_chunk(&view, i)
            m.chunk_segments[i] = shard.segment(chunk.segment_serial)
        if view.chunk_count == 1:
            m.body_segment = m.chunk_segments[0]
            m.body_offset = chunk.offset
            m.body_length = chunk.length
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

    # ---- from domain to ready queue ----

    cdef bint plan_is_usable(self, DomainQueue domain) noexcept:
        if domain.plan is None or domain.generation != self.generation:
            return False
        return domain.plan_expires_mono_s > mono_ms() / 1000.0

    cdef void route(self, recipient *r) noexcept:
        cdef DomainQueue domain = <DomainQueue>r.domain
        cdef ReadyQueue ready = None
        try:
            if domain.generation != self.generation and not domain.is_resolving:
                self.take_plan(domain, self.router.plan_now(domain.domain))
            if domain.only is not None and self.plan_is_usable(domain):
                ready = domain.only
            elif self.plan_is_usable(domain):
                ready = self.ready_queue(domain)
            if ready is not None:
                ready.push(r)
                return
            list_append(&domain.head, &r.link)
            r.link.where = PLACE_UNROUTED
            domain.unrouted += 1
            if not domain.is_resolving:
                domain.is_resolving = True
                self.to_resolve.append(domain)
                self.start_resolving()
        except Exception as error:      # a bug in routing must not lose the recipient: it waits and is tried again
            self.journal.log("error", where="route", domain=domain.domain, reason=repr(error))
            self.conclude_later(r, None, Trouble(0, (4, 3, 5), f"routing failed: {error}"), False)

    cdef int take_plan(self, DomainQueue domain, object plan) except -1:
        domain.plan = plan
        domain.only = None
        if plan is None:
            domain.plan_expires_mono_s = 0.0
            return 0
        domain.generation = self.generation
        domain.plan_expires_mono_s = plan.expires_mono_s
        if self.pool.only is not None:
            domain.only = self.ready_queue_of(plan.site, self.pool.only)
        return 0

    cdef ReadyQueue ready_queue(self, DomainQueue domain):
        return self.ready_queue_of(domain.plan.site, self.pool.choose())

    cdef ReadyQueue ready_queue_of(self, object site, object source):
        cdef tuple key = (site.name, source.name)
        cdef ReadyQueue ready = self.ready.get(key)
        if ready is None:
            ready = ReadyQueue.__new__(ReadyQueue, self, site, source)
            ready.egress = self.egresses[site.protocol]
            self.ready[key] = ready
            self.ready_count += 1
            ready.number = self.ready_count
            self.ready_numbers[ready.number] = ready
        else:
            ready.site = site           # same name, perhaps newer addresses
            ready.source = source
        return ready

    cdef void start_resolving(self) noexcept:
        cdef DomainQueue domain
        try:
            while self.to_resolve and len(self.plan_tasks) < PLANS_AT_ONCE and not self.is_closing:
                domain = self.to_resolve.popleft()
                task = self.loop.create_task(self.router.plan(domain.domain))
                self.plan_tasks.add(task)
                task.add_done_callback(functools.partial(self.planned, domain))
        except Exception as error:
            self.journal.log("error", where="resolving", reason=repr(error))

    def planned(self, DomainQueue domain, task):
        """A look-up has ended: on with everybody who waited for it."""
        cdef recipient *r
        self.plan_tasks.discard(task)
        trouble = None
        is_permanent = False
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self.take_plan(domain, task.result())
        else:
            domain.plan = None
            domain.only = None
            if isinstance(error, RoutingTrouble):
                is_permanent = error.is_permanent
                trouble = Trouble(0, error.status, error.text)
            else:
                self.journal.log("error", where="router", domain=domain.domain, reason=repr(error))
                trouble = Trouble(0, (4, 3, 5), f"routing failed: {error}")
        domain.is_resolving = False
        self.pass_on(domain, trouble, is_permanent, domain.unrouted)
        self.start_resolving()

    def pass_on(self, DomainQueue domain, trouble, bint is_permanent, uint64_t remaining):
        cdef recipient *r
        cdef int i
        for i in range(SLICE):
            if remaining == 0 or domain.unrouted == 0:
                return
            r = <recipient *>domain.head.next
            list_remove(&r.link)
            domain.unrouted -= 1
            remaining -= 1
            r.link.where = PLACE_NOWHERE
            if trouble is None:
                self.route(r)
            else:
                self.conclude_later(r, None, trouble, is_permanent)
        self.loop.call_soon(self.pass_on, domain, trouble, is_permanent, remaining)

    # ---- outcomes ----

    cdef void delivered(self, ReadyQueue ready, transaction *t, uint32_t i, uint16_t code, const uint8_t *text,
                        size_t text_length, const uint8_t *remote, size_t remote_length, uint64_t elapsed_ms,
                        bint peer_has_dsn) noexcept:
        cdef recipient *r = t.recipients[i]
        cdef message *m = t.message
        r.link.tally += 1
        log_outcome(self.journal, b"delivered", m, r, ready.site_name, ready.source_name, remote, remote_length,
                    code, 0, 0, 0, text, text_length, elapsed_ms)
        recipients_delivered.cell[0] += 1
        r.outcome = OUTCOME_DELIVERED
        if r.notify & SMTP_NOTIFY_SUCCESS and not peer_has_dsn:
            if ready.site.protocol == "smtp":       # LMTP and Maildirs are the end of the way (RFC 3461 §5.2.2)
                r.flags |= RECIPIENT_RELAYED
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
        cdef bytes text, remote
        cdef uint64_t now = utc_ms()
        cdef uint64_t age_ms = now - m.received_utc_ms if now > m.received_utc_ms else 0
        cdef const char *event = b"deferred"
        cdef bytes site = ready.site_name if ready is not None else None
        cdef bytes source = ready.source_name if ready is not None else None
        cdef double delay_s
        try:
            if r.link.tally < 65535:
                r.link.tally += 1
            self.note_trouble(m, r, trouble)
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
            text = trouble.text.encode("utf-8", "replace")
            remote = trouble.remote.encode("utf-8", "replace")
            log_outcome(self.journal, event, m, r, site, source, <const uint8_t *>(<const char *>remote), len(remote),
                        trouble.code, trouble.status[0], trouble.status[1], trouble.status[2],
                        <const uint8_t *>(<const char *>text), len(text), elapsed_ms)
            m.is_dirty = True
            if r.outcome != OUTCOME_WAITING:
                if self.wants_failure_report(m, r):
                    self.report_due(m, r)
                self.detach(r)
                return
            delay_s = self.retry_delay_s(m, r, trouble.delay_s)
            # The last attempt falls on the expiry itself, so that giving up is not late by up to a whole interval.
            delay_s = min(delay_s, max((self.max_age_s * 1000 - age_ms) / 1000.0, 1.0))
        except Exception as error:
            self.journal.log("error", where="conclude", reason=repr(error))
            delay_s = self.retry_first_s
        r.link.where = PLACE_DEFERRED
        m.deferred_count += 1
        queue_deferred.cell[0] += 1
        self.wheel.arm(&r.link, <uint64_t>(delay_s * 1000))

    cdef bint wants_failure_report(self, message *m, recipient *r) noexcept:
        # Whether there is somebody to tell (null reverse-path) is known to the reporter, who reads the envelope.
        return not m.flags & SPOOL_ENVELOPE_IS_DSN and (r.notify == 0 or r.notify & SMTP_NOTIFY_FAILURE)

    cdef void report_due(self, message *m, recipient *r) noexcept:
        r.flags |= RECIPIENT_REPORT_DUE
        m.report_count += 1
        m.is_dirty = True

    cdef void conclude_later(self, recipient *r, ReadyQueue ready, object trouble, bint is_permanent) noexcept:
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
        try:
            self.fetch_envelope(m, functools.partial(self.concluded_later, <size_t>r, ready, trouble, is_permanent))
        except Exception as error:
            self.journal.log("error", where="read back", reason=repr(error))
            self.conclude(m, r, ready, trouble, is_permanent, 0)
            self.release(m)

    def concluded_later(self, size_t pointer, ReadyQueue ready, trouble, bint is_permanent, int error):
        cdef recipient *r = <recipient *>pointer
        cdef message *m = message_of(r)
        self.conclude(m, r, ready, trouble, is_permanent, 0)
        self.release(m)

    cdef void note_trouble(self, message *m, recipient *r, object trouble) noexcept:
        cdef dict troubles
        if m.trouble == NULL:
            troubles = {}
            Py_INCREF(troubles)
            m.trouble = <void *>troubles
        else:
            troubles = <dict><PyObject *>m.trouble
        troubles[r.index] = trouble

    cdef void detach(self, recipient *r) noexcept:
        """r is final: it counts nowhere any more."""
        cdef message *m = message_of(r)
        cdef DomainQueue domain = <DomainQueue>r.domain
        r.link.where = PLACE_SETTLED
        m.live_count -= 1
        if m.live_count:
            m.is_dirty = True
        domain.count -= 1
        queue_recipients.cell[0] -= 1

    cdef void undefer(self, recipient *r) noexcept:
        """Takes a deferred recipient out of the wheel; the caller routes or ends it."""
        self.wheel.disarm(&r.link)
        r.link.where = PLACE_NOWHERE
        message_of(r).deferred_count -= 1
        queue_deferred.cell[0] -= 1

    cdef bint take_out(self, recipient *r) noexcept:
        """Takes a recipient out of whatever list it waits in; False when it is in hand."""
        cdef ReadyQueue ready
        if r.link.where == PLACE_DEFERRED:
            self.undefer(r)
            return True
        if r.link.where == PLACE_UNROUTED:
            (<DomainQueue>r.domain).unrouted -= 1
        elif r.link.where == PLACE_READY:
            ready = self.ready_numbers[r.link.due]
            ready.count -= 1
            queue_ready.cell[0] -= 1
        else:
            return False
        list_remove(&r.link)
        r.link.where = PLACE_NOWHERE
        return True

    cdef double retry_delay_s(self, message *m, recipient *r, double least_s) noexcept:
        """first * factor^(attempts - 1), capped; the jitter is the same for all recipients of a message at the same
        attempt, so that they travel together again."""
        cdef double delay = self.retry_first_s
        cdef int i
        cdef uint64_t mixed = (m.id + r.link.tally) * <uint64_t>0x9E3779B97F4A7C15ULL
        for i in range(1, r.link.tally):
            delay *= self.retry_factor
            if delay >= self.retry_max_s:
                delay = self.retry_max_s
                break
        delay *= 1.0 + self.retry_jitter * (<double>(mixed >> 40) / <double>(1 << 23) - 1.0)
        return max(delay, least_s, 0.1)

    # ---- what follows from outcomes ----

    cdef void settle_message(self, message *m) noexcept:
        """Called whenever something about m has come to rest. May free m."""
        if m.hand_count:
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
        """The reporter is done with these recipients: their report is in the spool (error 0) or must be tried again."""
        cdef message *m = <message *>pointer
        cdef recipient *r
        cdef uint32_t i
        m.report_in_flight = False
        if error == 0:
            for i in indexes:
                r = &m.recipients[i]
                if r.flags & RECIPIENT_REPORT_DUE:
                    r.flags &= <uint16_t>~RECIPIENT_REPORT_DUE
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
        m.is_dirty = False
        (<Shard>m.shard).submit(&op.op)

    cdef void finish(self, message *m) noexcept:
        cdef Shard shard = <Shard>m.shard
        cdef uint32_t i
        for i in range(m.chunk_count):
            if m.chunk_segments[i] != NULL:
                shard.release(m.chunk_segments[i])
        shard.free(m.id, m.home, m.state_segment)
        self.cool(m)
        self.index.remove(m)
        free(m.chunk_segments)
        Py_XDECREF(<PyObject *>m.trouble)
        free(m)
        finished.cell[0] += 1
        queue_messages.cell[0] -= 1

    # ---- reading back ----

    cdef bint has_envelope_and_body(self, message *m) noexcept:
        return m.envelope != NULL and not wants_body(m)

    cdef int fetch(self, message *m, object done) except -1:
        cdef fetch_op *op = <fetch_op *>calloc(1, sizeof(fetch_op))
        if op == NULL:
            raise MemoryError()
        op.message = m
        Py_INCREF(self)
        op.scheduler = <PyObject *>self
        Py_INCREF(done)
        op.done = <PyObject *>done
        self.hold(m)
        if m.envelope == NULL:
            self.read_envelope(op)
        elif wants_body(m):
            start_body(op)
        else:
            self.loop.call_soon(self.fetch_had_all, <size_t>op)
        return 0

    def fetch_had_all(self, size_t pointer):
        fetch_ended(<fetch_op *>pointer)

    cdef int fetch_envelope(self, message *m, object done) except -1:
        """fetch() without the body."""
        cdef fetch_op *op = <fetch_op *>calloc(1, sizeof(fetch_op))
        if op == NULL:
            raise MemoryError()
        op.message = m
        Py_INCREF(self)
        op.scheduler = <PyObject *>self
        Py_INCREF(done)
        op.done = <PyObject *>done
        self.hold(m)
        self.read_envelope(op)
        op.envelope.done = envelope_only_read
        return 0

    cdef void read_envelope(self, void *fetch) noexcept:
        cdef fetch_op *op = <fetch_op *>fetch
        cdef message *m = op.message
        op.envelope.place.segment = m.home
        op.envelope.place.offset = m.envelope_offset
        op.envelope.place.length = m.envelope_length
        op.envelope.done = envelope_read
        op.envelope.context = op
        (<Shard>m.shard).read(&op.envelope)

    # ---- messages of our own ----

    def inject(self, Shard shard, bytes reverse_path, list recipients, bytes body, uint32_t flags, done,
               uint64_t id=0):
        """Puts a message of our own into the spool and the queue.

        recipients  forward-paths (mailboxes without brackets). body: CRLF lines. flags: SPOOL_ENVELOPE_*.
        id          of Shard.new_id() when it is known already; 0: a new one.
        done(error, id) is called on the loop when the message is on stable storage (error 0) or is not (errno).
        """
        cdef inject_op *op
        cdef octets *envelope = octets_new(512)
        cdef spool_span empty, path
        cdef bytes forward_path
        cdef int error
        empty.data = NULL
        empty.length = 0
        path.data = <const uint8_t *>(<const char *>reverse_path)
        path.length = <uint32_t>len(reverse_path)
        if id == 0:
            id = shard.next_id()
        if envelope == NULL:
            raise MemoryError()
        error = spool_envelope_begin(&envelope, path, empty, empty, empty, empty)
        for forward_path in recipients:
            path.data = <const uint8_t *>(<const char *>forward_path)
            path.length = <uint32_t>len(forward_path)
            if error == 0:
                error = spool_envelope_add_recipient(&envelope, path, <uint32_t>(forward_path.rfind(b"@") + 1), empty, 0)
        if error == 0:
            error = spool_envelope_finish(&envelope, id, utc_ms(), flags, <uint64_t>len(body), NULL, 0)
        op = <inject_op *>calloc(1, sizeof(inject_op)) if error == 0 else NULL
        if op != NULL:
            op.op.body = octets_copy(<const uint8_t *>(<const char *>body), len(body))
        if op == NULL or op.op.body == NULL:
            octets_unref(envelope)
            free(op)
            raise SpoolError(f"a message to {recipients!r} cannot be put into the spool: error {-error}")
        op.op.kind = SPOOL_ENVELOPE
        op.op.id = id
        op.op.payload = envelope
        op.op.done = injected
        Py_INCREF(self)
        op.scheduler = <PyObject *>self
        Py_INCREF(shard)
        op.shard = <PyObject *>shard
        Py_INCREF(done)
        op.done = <PyObject *>done
        shard.submit(&op.op)

    # ---- start and end ----

    def recover(self, Shard shard, uint32_t limit=500):
        """Takes over messages found in the shard's old segments, at most `limit` in one call.

        True: more may come (call again when the shard's event fires or next turn). False: the scan has ended.
        """
        cdef spool_recovered found
        cdef uint32_t i
        cdef int result
        for i in range(limit):
            result = shard.recover_next(&found)
            if result <= 0:
                return result == 0
            try:
                self.take_over(shard, &found)
            except Exception as error:
                # It stays in the spool, pinned: an operator can look at it; it is not deleted unseen.
                damaged.cell[0] += 1
                self.journal.log("error", where="recovery", id=spool_id(found.id), reason=str(error))
            octets_unref(found.envelope)
            octets_unref(found.state)
        return True

    cdef int take_over(self, Shard shard, spool_recovered *found) except -1:
        cdef message *m = self.make_message(shard, found.envelope)
        cdef uint64_t *due_utc_s
        cdef uint64_t now_s = utc_ms() // 1000
        cdef uint32_t i
        cdef recipient *r
        cdef spool_envelope view
        cdef spool_chunk chunk
        m.home = found.place.segment
        m.envelope_offset = found.place.offset
        m.envelope_length = found.place.length
        m.state_segment = found.state_segment
        spool_envelope_open(found.envelope.data, found.envelope.length, &view)
        if view.chunk_count == 1 and spool_envelope_chunk(&view, 0).segment_serial == spool_segment_serial(m.home) \
                and spool_envelope_chunk(&view, 0).offset < m.envelope_offset:
            chunk = spool_envelope_chunk(&view, 0)
            m.body_segment = m.home
            m.body_offset = chunk.offset
            m.body_length = chunk.length
        self.find_chunks(m, shard, found.envelope)
        due_utc_s = <uint64_t *>calloc(m.recipient_count, sizeof(uint64_t))
        if due_utc_s == NULL:
            raise MemoryError()
        self.hold(m)
        try:
            if found.state != NULL:
                apply_state(m, found.state, due_utc_s)
        except Exception as error:
            self.journal.log("error", where="recovery", id=spool_id(m.id), reason=str(error))
        recovered.cell[0] += 1
        for i in range(m.recipient_count):
            r = &m.recipients[i]
            if r.outcome != OUTCOME_WAITING:
                (<DomainQueue>r.domain).count -= 1
                queue_recipients.cell[0] -= 1
            elif due_utc_s[i] > now_s:
                r.link.where = PLACE_DEFERRED
                m.deferred_count += 1
                queue_deferred.cell[0] += 1
                self.wheel.arm(&r.link, (due_utc_s[i] - now_s) * 1000)
            else:
                self.route(r)
        free(due_utc_s)
        self.release(m)
        return 0

    def close(self):
        """Nothing new is started: no look-ups, no reports. In-hand work may still settle."""
        self.is_closing = True
        for task in list(self.plan_tasks):
            task.cancel()
        self.wheel.close()

    def sweep(self):
        """Forgets domains and ready queues that nobody needs; returns how many. Called every minute or so."""
        cdef DomainQueue domain
        cdef ReadyQueue ready
        cdef int forgotten = 0
        cdef double now = time.monotonic()
        for domain in list(self.domains.values()):
            if domain.count == 0 and not domain.is_resolving and (
                    domain.plan is None or domain.generation != self.generation or domain.plan_expires_mono_s <= now
                    or len(self.domains) > 100000):
                del self.domains[domain.domain]
                if self.last_domain is domain:
                    self.last_domain = None
                forgotten += 1
        used = {domain.only for domain in self.domains.values() if domain.only is not None}
        for key, ready in list(self.ready.items()):
            if ready.count == 0 and ready.state is None and ready.share.own == 0 and ready.resume.next == NULL \
                    and not ready.is_deferring and ready not in used:
                del self.ready[key]
                del self.ready_numbers[ready.number]
                forgotten += 1
        return forgotten

    def ready_queues(self):
        return list(self.ready.values())

    def domain_queues(self):
        return list(self.domains.values())

    def depth(self):
        """Numbers of now, for status: messages, recipients, ready, deferred, hot octets."""
        return {
            "messages": self.index.count,
            "recipients": queue_recipients.cell[0],
            "ready": queue_ready.cell[0],
            "deferred": queue_deferred.cell[0],
            "hot_octets": self.hot_octets,
            "domains": len(self.domains),
            "ready_queues": len(self.ready),
        }


cdef str spool_id(uint64_t id):
    cdef char text[13]
    spool_id_encode(id, text)
    return text[:13].decode("ascii")
