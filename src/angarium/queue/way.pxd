"""The gates that a ready queue passes: limits that hold besides those of its site."""
from libc.stdint cimport uint32_t
from angarium.queue.passage cimport Gate, Passage


cdef class Way:
    """Made anew with each configuration; the Passages stay. A ready queue that passes no gate has none."""
    cdef readonly list passages         # of Passage, one at least, in the order in which the gates are asked
    cdef bint is_metered                # one of the gates has a rate of messages
    cdef uint32_t missed                # times in a row that one gate had no place while another had
    cdef uint32_t times_kept
    cdef bint keeps_places              # it waits at one gate with places at others in hand

    cdef Passage passage_of(self, Gate gate)                    # None: it does not pass there
    # One message, one connection: of all gates or of none.
    cdef bint take_message(self, object ready) noexcept         # False: it stands in line at one of them
    cdef void give_message(self) noexcept                       # what was taken last, unused
    cdef bint take_connection(self, object ready) noexcept      # False: likewise
    cdef void untake_connection(self, object ready) noexcept    # what was taken last was not dialled
    cdef int keep(self, object ready, int count) except -1      # the places of the first so many, for a moment
    cdef void let_go(self, object ready) noexcept               # of places that it keeps
    cdef void give_connection(self, object ready, bint was_leaving) noexcept
    # One of the connections is to end, for its site or a gate has too many; it leaves all gates then. False: none has to.
    cdef bint leave(self, bint by_site) noexcept
    cdef bint is_over(self) noexcept                            # one of them has more connections than it allows
    cdef bint is_in_line(self) noexcept                         # for a message
    cdef bint must_yield(self, bint had_its_turn) noexcept      # a connection is to end behind its message
    cdef bint others_wait(self) noexcept                        # for a place at one of them
    cdef bint is_in_dial_line(self) noexcept
    cdef void leave_dial_lines(self, object ready) noexcept     # it wants no connection any more
    cdef bint has_surplus(self) noexcept                        # this worker has more than its part at one of them


# Which gates ReadyQueue `ready` passes now: its `way` is made anew, and connections that it has are counted from the first.
cdef int look_at_gates(object ready) except -1
# It passes none any more.
cdef void leave_gates(object ready) noexcept
