"""Limits that hold besides those of the site: of an egress source, of a tenant, and what automation allows."""
from libc.stdint cimport uint32_t, uint64_t
from angarium.queue.dial_line cimport DialLine
from angarium.queue.shares cimport Share, Shares, pace

cdef enum:
    ANY_NUMBER = 65535                  # what the table counts to: places are taken without a limit, too, for a reload may bring one


cdef class Gate:
    """One such limit as one worker sees it. Ready queues that it has to keep waiting stand in line, so that one timer serves
    however many sites there are, and each gets its turn."""
    cdef uint32_t queue_count           # ready queues that pass here
    cdef object loop
    cdef Shares shares
    cdef Share share                    # where its connections and messages are counted
    cdef Share dial_share               # and connections begun
    cdef uint32_t connection_limit
    cdef pace rate
    cdef pace dial_rate
    cdef readonly object line           # deque of ReadyQueue that wait to send
    cdef readonly DialLine dial_line    # of those that wait to connect
    cdef bint is_armed
    cdef bint is_dial_armed
    cdef bint is_serving                # serve() follows in this turn of the loop
    cdef object hastened_for            # who waits with places at other gates in hand, and for whom one ends already

    cdef int configure(self, object limits) except -1   # shaping_options.AllSites, or None: no limits
    cdef void stand(self, object ready, uint64_t wait_ns, bint is_first) noexcept
    cdef int arm(self, uint64_t wait_ns) except -1
    cdef void stand_to_dial(self, object ready, Passage passage, uint64_t wait_ns, bint is_first) noexcept
    cdef int arm_dial(self, uint64_t wait_ns) except -1
    cdef void serve_soon(self) noexcept                 # a place may have come free for who stands in line
    cdef uint64_t give_turns(self, list given) except? 0    # to as many as may find a place; ns until it is worth trying again
    cdef uint32_t free_places(self) noexcept            # 0: other workers have them, and are told that one is wanted
    cdef bint is_owed(self, uint32_t held) noexcept     # a place, by who has so many
    cdef bint must_hasten(self) noexcept                # a place is owed at once: the first in line keeps others' places waiting
    cdef uint64_t take_connection(self) noexcept        # 0: taken, else ns until it is worth asking again
    cdef Passage passage_of(self, object ready)         # through this gate; None: it goes through another since a reload
    cdef bint has_surplus(self) noexcept                # this worker has more than its part of the connections
    cdef bint is_over(self) noexcept                    # there are more connections than it allows since it allows less


cdef class Passage:
    """One ready queue at one gate."""
    cdef Gate gate
    cdef readonly str whose             # limits: of its "source", its "tenant", those "shared" by sites, or of "automation"
    cdef readonly str for_whom          # of "automation": adjustments.Restraint.whose
    cdef readonly uint32_t held         # connections counted
    cdef uint32_t leaving               # of them: are to end, for there are too many
    cdef readonly bint is_in_line
    cdef readonly uint32_t turns                 # messages it may take before those who stand in line
    cdef bint is_in_dial_line
    cdef bint has_dial_turn
    cdef bint is_kept                   # a place is counted while its ready queue waits at another gate

    cdef bint take_message(self, object ready) noexcept         # False: it stands in line
    cdef void give_message(self) noexcept                       # what was taken last, unused
    cdef void untake_message(self) noexcept                     # likewise, and with the turn in which it was taken
    cdef bint take_connection(self, object ready) noexcept      # False: it stands in line
    cdef void untake_connection(self, object ready) noexcept    # what was taken last was not dialled
    cdef void give_connection(self, object ready, bint was_leaving) noexcept
    cdef bint leave(self, uint32_t limit) noexcept              # Share.leave()
    cdef void pass_turn(self) noexcept                          # it has a turn to connect, and makes no use of it
    cdef void leave_dial_line(self, object ready) noexcept
    cdef bint must_yield(self, bint had_its_turn) noexcept
    cdef bint others_wait(self) noexcept                        # for a place there
    # Connections that the ready queue had before it passed here; so many of them are to end.
    cdef int take_over(self, uint32_t places, uint32_t leaving) except -1
