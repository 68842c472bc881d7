from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from angarium.queue.keeper cimport Keeper
from angarium.queue.message cimport message, recipient, transaction
from angarium.queue.ready cimport ReadyQueue
from angarium.queue.wheel cimport wheel_node


cdef class Outcomes(Keeper):
    cdef public object classifier       # bounces.classifier.Classifier
    cdef public object on_failed        # callable(class, tenant, forward_path) for each that failed or expired, or None
    cdef public object notices          # notices.Notices, or None: no rule of automation asks about replies
    cdef bint counts_attempts           # some rule is of a rate
    cdef bint counts_flows              # of a tenant or campaign
    cdef bint asks_envelope             # notices want tenant and campaign
    cdef list tallied                   # ReadyQueues in which attempts have ended since take_tallies() was asked last
    cdef list tallied_flows             # Flows whose have
    cdef bint hastens                   # some order says when deferrals are tried again
    cdef double retry_first_s, retry_factor, retry_max_s, retry_jitter, max_age_s, delay_report_s
    cdef uint32_t conclusions_waiting   # for an envelope to be read back

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
    cdef double retry_delay_s(self, message *m, recipient *r, double least_s, ReadyQueue ready) noexcept
    cdef void tally(self, ReadyQueue ready) noexcept
    cdef void tally_flow(self, message *m, int outcome) noexcept        # 0: delivered, 1: deferred, 2: failed
    # What orders make of the delay before the next attempt of r; at least_s at the least. The envelope is in memory if it can be.
    cdef double hasten(self, message *m, recipient *r, double least_s, double delay_s) except -1.0
    cdef bint noticed(self, message *m, ReadyQueue ready, object trouble, bint is_permanent) noexcept
    cdef object place_of(self, ReadyQueue ready)
    cdef str class_of(self, object trouble)
    cdef bint wants_failure_report(self, message *m, recipient *r) noexcept
    cdef void tell_failed(self, message *m, recipient *r, object name) noexcept
    cdef void note_trouble(self, message *m, recipient *r, object trouble) noexcept
    cdef void delay_due(self, message *m, recipient *r, bint is_asked) noexcept

    cdef void defer(self, recipient *r, uint64_t delay_ms) noexcept
    cdef void undefer(self, recipient *r) noexcept
    cdef bint take_out(self, recipient *r) noexcept
    # r is with another worker, and has been called back: it comes within a moment, if it has not begun there.
    cdef bint call_back(self, recipient *r) noexcept
    cdef uint64_t deferred_now(self) noexcept


# The wheel's callback for recipients; its context is the Scheduler.
cdef void retry_due(wheel_node *node, void *context) noexcept
