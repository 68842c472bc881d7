# Which sockets are ready, without a handle, a transport and a protocol call of the event loop's for each: nodes embedded in
# their owners, one epoll set for all of them, and that set's descriptor among the loop's own (an epoll set is readable while
# something in it is ready, epoll(7)). A turn is one epoll_wait(2) that does not wait, and a call in C for each socket.
#
# It is no transport: reading, sending and closing are wire.pyx's, accepting is acceptor.pyx's.
cimport cython
from libc.errno cimport errno
from libc.stdint cimport uint32_t
from posix.unistd cimport close

import os
import sys

cdef extern from "<sys/epoll.h>" nogil:
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)
    enum: EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL


@cython.final
cdef class Poll:
    def __cinit__(self, object loop not None):
        self.loop = loop
        self.fd = -1

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)

    cdef int want(self, poll_node *node, uint32_t events) noexcept:
        cdef epoll_event event
        cdef int operation = EPOLL_CTL_MOD
        if events == node.wanted:
            return 0
        event.events = events
        event.data.ptr = node
        if node.wanted == 0:
            operation = EPOLL_CTL_ADD
            if not self.is_open:
                try:
                    self.open()
                except Exception as error:
                    errno = getattr(error, "errno", None) or 12     # ENOMEM
                    return -1
        elif events == 0:
            # Also where the descriptor is about to be closed: a child that is between fork and exec has it too, and what is
            # watched is the socket, not the number.
            operation = EPOLL_CTL_DEL
        if epoll_ctl(self.fd, operation, node.fd, &event) != 0 and operation != EPOLL_CTL_DEL:
            return -1
        node.wanted = events
        if operation == EPOLL_CTL_ADD:
            self.watched += 1
        elif operation == EPOLL_CTL_DEL:
            self.forget(node)
            self.watched -= 1
            if self.watched == 0 and not self.is_in_turn:
                self.close()
        return 0

    cdef void postpone(self, poll_node *node) noexcept:
        node.next = self.postponed
        self.postponed = node
        if self.is_in_turn or self.is_scheduled:
            return
        self.is_scheduled = True
        try:
            self.loop.call_soon(self.later)
        except Exception:                           # the loop is closed, or memory is out: now, then
            self.later()

    cdef int open(self) except -1:
        if self.fd < 0:
            self.fd = epoll_create1(EPOLL_CLOEXEC)
            if self.fd < 0:
                raise OSError(errno, os.strerror(errno))
        self.loop.add_reader(self.fd, self.turn)
        self.is_open = True
        return 0

    cdef void close(self) noexcept:
        # Nothing to do for the loop, then: it may be closed in the next moment.
        try:
            self.loop.remove_reader(self.fd)
        except Exception as error:
            sys.unraisablehook(error)
        self.is_open = False

    cdef void forget(self, poll_node *node) noexcept:
        """Of what this turn has still to tell."""
        cdef int i
        for i in range(self.at, self.event_count):
            if self.events[i].data.ptr == node:
                self.events[i].data.ptr = NULL

    cdef void run_postponed(self) noexcept:
        cdef poll_node *node
        while self.postponed != NULL:
            node = self.postponed
            self.postponed = node.next
            node.next = NULL
            node.ready(node, 0)

    def turn(self):
        cdef poll_node *node
        cdef uint32_t events
        if not self.is_open:
            return                                  # closed while the loop's call was under way
        self.event_count = epoll_wait(self.fd, self.events, POLL_EVENTS, 0)
        self.at = 0
        self.is_in_turn = True
        while self.at < self.event_count:
            node = <poll_node *>self.events[self.at].data.ptr
            events = self.events[self.at].events
            self.at += 1
            if node != NULL:
                node.ready(node, events)
        self.at = self.event_count = 0
        self.run_postponed()
        self.is_in_turn = False
        if self.watched == 0 and self.is_open:
            self.close()

    def later(self):
        self.is_scheduled = False
        self.run_postponed()
