"""What an egress source may do besides what its sites allow: in all, towards one site, and while it is warmed up."""
from libc.stdint cimport uint32_t, uint64_t
from angarium.queue.rations cimport Ration
from angarium.queue.shares cimport Share, Shares


cdef class Allowance:
    """Limits that one entry or two of the shared table count: connections and messages in one, new connections in the other."""
    cdef Shares shares
    cdef str name
    cdef Share share
    cdef Share dial_share               # None: new connections are not limited
    cdef uint32_t connection_limit      # 0: none
    cdef uint64_t rate_interval_ns      # 0: none
    cdef uint32_t rate_burst
    cdef uint64_t dial_interval_ns      # 0: none
    cdef uint32_t dial_burst

    cdef int configure(self, object limits) except -1
    cdef uint64_t message_wait(self) noexcept           # ns until one may go; nothing is taken
    cdef void take_message(self) noexcept
    cdef uint64_t take_connection(self) noexcept        # 0: taken, else ns until it is worth asking again
    cdef void give_connection(self) noexcept
    cdef bint must_yield(self) noexcept                 # it has more than its part of the places, and another worker asks


cdef class Gate:
    """A source as one worker sees it. Ready queues that it has to keep waiting stand in line, so that one timer serves however
    many sites there are, and each gets its turn."""
    cdef object loop
    cdef Allowance allowance
    cdef readonly object line           # deque of ReadyQueue that wait to send
    cdef readonly object dial_line      # and to connect
    cdef uint32_t turns_out             # given to the front of `line` a moment ago, and not used yet
    cdef bint is_armed
    cdef bint is_dial_armed

    cdef void stand(self, object ready, uint64_t wait_ns) noexcept
    cdef void stand_to_dial(self, object ready, uint64_t wait_ns) noexcept


cdef class Passage:
    """One ready queue's way past the limits of its source."""
    cdef Gate gate
    cdef Allowance pair                 # source and site
    cdef readonly Ration ration         # None: the source is not warmed up, or is warm
    cdef readonly uint32_t held         # connections counted
    cdef bint is_in_line
    cdef bint has_turn
    cdef bint is_in_dial_line
    cdef bint has_dial_turn

    cdef uint64_t message_wait(self, object ready) noexcept     # as Allowance; in line it stands by itself then
    cdef void take_message(self) noexcept
    cdef bint take_connection(self, object ready) noexcept      # False: it stands in line
    cdef void give_connection(self) noexcept
    cdef bint must_yield(self, bint had_its_turn) noexcept
    cdef bint others_wait(self) noexcept                        # for a place of the source
