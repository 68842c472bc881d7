from libc.stdint cimport uint8_t, uint64_t
from angarium.model.octets cimport octets
from angarium.queue.index cimport MessageIndex
from angarium.queue.message cimport message, recipient
from angarium.queue.planner cimport Planner
from angarium.queue.slab cimport Slab
from angarium.spool.cspool cimport spool_envelope
from angarium.spool.shard cimport Shard


cdef class Keeper(Planner):
    cdef public object reporter         # queue.reports.Reporter
    cdef readonly MessageIndex index
    cdef Slab slab                      # of messages with one recipient
    cdef int retry_kind                 # the wheel's, of recipients
    cdef uint64_t structure_octets      # messages with their recipients
    cdef readonly uint64_t hot_octets
    cdef public uint64_t hot_limit_octets
    cdef dict deadlines                 # id -> Alarm, of messages with a by-time
    cdef readonly uint64_t states_in_flight     # state records on their way to the disk; a shutdown waits for them

    # From an envelope in the spool. The caller says where it and the body lie, and what becomes of the recipients.
    cdef message *make_message(self, Shard shard, octets *envelope) except NULL
    cdef uint8_t number_of(self, Shard shard) except? 0xff
    cdef int read_from(self, uint8_t number, Shard shard) except -1
    cdef bint is_of_others(self, uint8_t number) except -1
    cdef int find_chunks(self, message *m, Shard shard, octets *envelope) except -1
    cdef void read_terms(self, message *m, const spool_envelope *view) noexcept
    cdef void cool(self, message *m) noexcept

    cdef void settle_message(self, message *m) noexcept
    cdef void report_due(self, message *m, recipient *r) noexcept
    cdef void write_state(self, message *m) noexcept
    cdef void finish(self, message *m) noexcept
    cdef void detach(self, recipient *r) noexcept
    cdef void leave(self, recipient *r) noexcept
    cdef uint64_t recipients_waiting(self) noexcept

    # Envelope and body of a message in hand. fetch() reads what is not in memory (the envelope, and the body when it lies
    # in one chunk of at most 1 MiB) and calls done(error) on the loop: 0 or an errno (EBADMSG: damaged).
    cdef bint has_envelope_and_body(self, message *m) noexcept
    cdef int fetch(self, message *m, object done) except -1
