# The connections of one ready queue: when to dial, who gets the next message, when to stop.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from angarium.outbound.connection cimport Connection, ConnectionOwner
from angarium.queue.ready cimport ReadyQueue
from angarium.queue.scheduler cimport Scheduler


cdef class Pool(ConnectionOwner):
    cdef readonly ReadyQueue ready
    cdef Scheduler scheduler
    cdef object loop
    cdef object dialer                  # outbound.dialer.Dialer
    cdef object options                 # outbound.options.OutboundOptions
    cdef object on_empty                # called with the pool when it is drained
    cdef int deadline_kind              # of the wheel, for connections
    cdef set connections
    cdef set dials                      # tasks
    cdef Connection idle_top            # a stack: what was used last is used next, the rest grows old and leaves
    cdef readonly uint32_t idle_count
    cdef readonly uint32_t busy_count
    cdef readonly double window         # connections at most, by what the site has shown so far
    cdef double threshold               # up to here it grows by one a success, from here by one for each of a round
    cdef bint is_narrowed               # connections above it are to leave
    cdef bint is_shedding               # for that, or because the ready queue has too many: they ask before each message
    cdef double narrowed_s              # mono; when it was last halved
    cdef readonly double average_ms     # from MAIL to the last reply, recent transactions
    cdef uint64_t finished_sum          # transactions; finished_seen: at the last look for more connections
    cdef uint64_t finished_seen
    cdef double site_pause_s
    cdef double dial_after_s            # mono
    cdef uint64_t idle_ms
    cdef set stale_dials                # of `dials`: begun by another policy, or with other certificates; None: there are none
    cdef readonly object policy         # tls_policy.TlsPolicy
    cdef int tls_floor                  # of it: what a connection must have (tls_policy.Level)
    cdef object material                # tls_contexts.Material
    cdef str login                      # of [login.NAME]; "": none
    cdef object login_options           # sasl.login_options.LoginOptions, or None
    cdef object limits                  # shaping.Limits that these were made of
    cdef bint is_due                    # distribute() follows in this turn of the loop
    cdef bint is_patient                # messages wait; look_again() follows within RECHECK_S
    cdef bint is_watching               # whether another worker wants places
    cdef readonly bint is_draining

    cdef void wake(self) noexcept
    cdef int look_at_limits(self) except -1
    cdef bint is_good_still(self, Connection connection) except -1
    cdef void narrow(self) noexcept
    cdef int encrypted_count(self) except -1
    cdef bint has_had_trouble(self) noexcept    # the window is smaller than the limit for that
    cdef void hand_out(self, bint is_overdue) noexcept
    cdef void look_again_later(self) noexcept
    cdef void dial(self, uint64_t want) noexcept
    cdef void join(self, Connection connection) noexcept
    cdef void put(self, Connection connection, int place) noexcept
    cdef void shrink(self) noexcept                             # the ready queue has too many since a limit became lower
    cdef bint give_up(self, Connection connection) noexcept     # this one is to end for that
    cdef int64_t surplus(self) noexcept
    cdef bint must_yield(self, Connection connection) noexcept
    cdef bint must_yield_gate(self, Connection connection) noexcept     # others need its place at one of our gates more
    cdef int put_off_dialling(self) except -1
    cdef int tell_if_empty(self) except -1
    cdef bint may_be_forgotten(self) noexcept
    cdef void drain(self) noexcept
    cdef void abort(self) noexcept
    cdef void site_failed(self, object judgement) noexcept
    cdef void source_down(self, object trouble) noexcept
    cdef void source_up(self) noexcept
    cdef void spare(self) noexcept
