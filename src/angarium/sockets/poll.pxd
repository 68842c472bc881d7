from libc.stdint cimport uint32_t


cdef extern from "<sys/epoll.h>" nogil:
    enum: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP

    ctypedef union epoll_data_t:
        void *ptr

    struct epoll_event:
        uint32_t events
        epoll_data_t data


cdef enum:
    POLL_EVENTS = 256               # taken in one turn of the loop; who else waits comes with the next


cdef struct poll_node:
    void (*ready)(poll_node *node, uint32_t events) noexcept    # events == 0: what postpone() asked for
    poll_node *next                 # among those postponed
    int fd                          # the owner's; -1: none
    uint32_t wanted                 # EPOLLIN, EPOLLOUT; 0: not watched. EPOLLERR and EPOLLHUP come with either


cdef class Poll:
    """Sockets of one loop without an object of the loop's for each: an epoll set of our own, which is one descriptor to
    the loop.

    Nodes belong to their owners, who must want() nothing of them before they free them or close the descriptor.
    Single-threaded: the loop's.
    """
    cdef object loop
    cdef int fd                     # -1 until something is watched; kept from then on: another one may not be had
    cdef bint is_open               # the loop watches it: something is watched in it
    cdef size_t watched
    cdef epoll_event events[POLL_EVENTS]
    cdef int event_count            # of the turn under way
    cdef int at
    cdef bint is_in_turn
    cdef bint is_scheduled          # the loop will call for those postponed
    cdef poll_node *postponed

    cdef int want(self, poll_node *node, uint32_t events) noexcept      # -1: errno says why, and it is not watched
    cdef void postpone(self, poll_node *node) noexcept      # calls ready(node, 0) later: at the end of this turn, or soon

    cdef int open(self) except -1
    cdef void close(self) noexcept
    cdef void forget(self, poll_node *node) noexcept
    cdef void run_postponed(self) noexcept
