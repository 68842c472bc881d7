from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from angarium.model.octets cimport octets
from angarium.queue.index cimport MessageIndex
from angarium.queue.message cimport message, recipient, transaction
from angarium.queue.planner cimport Planner
from angarium.queue.ready cimport ReadyQueue
from angarium.queue.slab cimport Slab
from angarium.queue.terms cimport message_terms
from angarium.spool.cspool cimport spool_envelope, spool_op
from angarium.spool.shard cimport Shard


cdef class Scheduler(Planner):
    cdef readonly object options
    cdef public object reporter         # queue.reports.Reporter
    cdef public object classifier       # bounces.classifier.Classifier
    cdef public object on_failed        # callable(class, tenant, forward_path) for each that failed or expired, or None
    cdef public object suppressed       # callable(tenant, forward_path): why it must not be tried, or None; or None
    cdef public object verp             # callable(id, reverse_path, forward_path, tenant): another reverse-path, or None; or None
    cdef readonly str hostname
    cdef readonly MessageIndex index
    cdef Slab slab                      # of messages with one recipient
    cdef int retry_kind
    cdef readonly uint64_t hot_octets
    cdef public uint64_t hot_limit_octets
    cdef double retry_first_s, retry_factor, retry_max_s, retry_jitter, max_age_s, delay_report_s
    cdef dict deadlines                 # id -> Alarm, of messages with a by-time
    cdef uint32_t conclusions_waiting   # for an envelope to be read back
    cdef readonly uint64_t states_in_flight     # state records on their way to the disk; a shutdown waits for them

    # Takes over a message whose ENVELOPE op has just been committed with error 0. Takes its own references to
    # op.payload and op.body.
    cdef int admit(self, Shard shard, spool_op *op) except -1
    cdef void admit_recipient(self, message *m, recipient *r) noexcept
    cdef int suppress(self, message *m, octets *envelope) except -1
    cdef void tell_failed(self, message *m, recipient *r, object name) noexcept
    cdef void expanded(self, message *m, recipient *r) noexcept
    cdef uint8_t number_of(self, Shard shard) except? 0xff
    cdef int find_chunks(self, message *m, Shard shard, octets *envelope) except -1
    cdef void read_terms(self, message *m, const spool_envelope *view) noexcept
    cdef void admit_on_terms(self, message *m, octets *envelope) noexcept
    cdef void watch_deadline(self, message *m, const message_terms *terms) noexcept
    cdef void delay_due(self, message *m, recipient *r, bint is_asked) noexcept
    cdef str class_of(self, object trouble)
    cdef bint wants_failure_report(self, message *m, recipient *r) noexcept
    cdef void report_due(self, message *m, recipient *r) noexcept
    cdef message *make_message(self, Shard shard, octets *envelope) except NULL
    cdef void cool(self, message *m) noexcept

    # Outbound tells what became of recipients in hand. `remote` is "host[address]:port", `text` the reply text.
    # A transaction ends with settle(); every recipient in it must have got delivered/deferred/failed before.
    cdef void delivered(self, ReadyQueue ready, transaction *t, uint32_t i, uint16_t code, const uint8_t *text,
                        size_t text_length, const uint8_t *remote, size_t remote_length, uint64_t elapsed_ms,
                        bint peer_has_dsn, const char *tls_version, const char *tls_cipher,
                        const char *tls_policy, const char *tls_policy_from) noexcept
    cdef void deferred(self, ReadyQueue ready, transaction *t, uint32_t i, object trouble, uint64_t elapsed_ms) noexcept
    cdef void failed(self, ReadyQueue ready, transaction *t, uint32_t i, object trouble, uint64_t elapsed_ms) noexcept

    cdef void conclude(self, message *m, recipient *r, ReadyQueue ready, object trouble, bint is_permanent,
                       uint64_t elapsed_ms) noexcept
    cdef void note_trouble(self, message *m, recipient *r, object trouble) noexcept
    cdef void settle_message(self, message *m) noexcept
    cdef void write_state(self, message *m) noexcept
    cdef void finish(self, message *m) noexcept
    cdef void detach(self, recipient *r) noexcept
    cdef void leave(self, recipient *r) noexcept
    cdef void defer(self, recipient *r, uint64_t delay_ms) noexcept
    cdef void undefer(self, recipient *r) noexcept
    cdef bint take_out(self, recipient *r) noexcept
    cdef double retry_delay_s(self, message *m, recipient *r, double least_s, ReadyQueue ready) noexcept

    # Envelope and body of a message in hand. fetch() reads what is not in memory (the envelope, and the body when it lies
    # in one chunk of at most 1 MiB) and calls done(error) on the loop: 0 or an errno (EBADMSG: damaged).
    cdef bint has_envelope_and_body(self, message *m) noexcept
    cdef int fetch(self, message *m, object done) except -1
