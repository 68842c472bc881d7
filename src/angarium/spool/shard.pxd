from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from angarium.model.octets cimport octets
from angarium.spool.cspool cimport spool_op, spool_read_op, spool_recovered, spool_segment, spool_shard


cdef class Shard:
    cdef spool_shard *c
    cdef readonly int number
    cdef readonly str name
    cdef object loop
    cdef bint kick_is_due
    cdef bint is_reaping                                    # the kick follows when the callbacks are through
    cdef bint is_stopped
    cdef uint64_t timer_due_ms                              # mono; 0: no timer is set
    cdef object timer
    cdef object bound_kick, bound_tick, bound_reap
    cdef object __weakref__

    # Every one of these may be called from any cdef code on the loop thread.
    cdef uint64_t next_id(self) noexcept
    cdef void submit(self, spool_op *op) noexcept           # the kick follows at the end of the loop turn
    cdef void free(self, uint64_t message_id, spool_segment *home, spool_segment *state, uint64_t octets_count) noexcept
    cdef void read(self, spool_read_op *op) noexcept
    cdef void release(self, spool_segment *segment, uint64_t octets_count) noexcept
    cdef void expect(self, uint32_t active_transactions) noexcept
    cdef bint has_room(self) noexcept
    # The lead needs these two for the scheduler (streamed chunks; messages found at start, spool_shard_recover_next).
    cdef spool_segment *segment(self, uint32_t serial) noexcept
    cdef int recover_next(self, spool_recovered *out) noexcept

    # Compaction (spool.h). has_strangers: something in the spool is not in the queue, so nobody knows what matters.
    cdef public bint has_strangers
    cdef bint is_sealed(self, uint32_t serial) noexcept        # or gone: nothing more is written into it
    cdef uint32_t haste(self) noexcept
    cdef spool_segment *victim(self, bint is_resting) noexcept
    cdef bint has_live(self, const spool_segment *segment) noexcept
    cdef bint frees_others(self, const spool_segment *segment, uint32_t offset) noexcept
    cdef void free_again(self, uint64_t message_id, uint32_t home_serial, spool_segment *victim) noexcept
    cdef int64_t repeats_under_way(self, spool_segment *victim) noexcept
    cdef void victim_done(self, spool_segment *victim, bint is_moved, uint64_t again_mono_ms) noexcept

    cdef int schedule_kick(self) except -1
    cdef int check_open(self) except -1
    cdef spool_segment *known(self, uint32_t serial) except NULL
    cdef object submit_for_future(self, uint8_t kind, uint64_t message_id, uint64_t aux, octets *payload, octets *body,
                                  spool_segment *about, spool_segment *previous_state)
