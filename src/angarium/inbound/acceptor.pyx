# Accepting: a listening socket is one node more in the worker's epoll set; who comes is a session at once, in the same turn.
cimport cython
from libc.errno cimport ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stdint cimport uint32_t
from libc.string cimport memset
from posix.unistd cimport close
from angarium.inbound.client cimport sockaddr, sockaddr_storage, socklen_t
from angarium.inbound.connection cimport InboundConnection
from angarium.inbound.context cimport InboundContext
from angarium.sockets.poll cimport EPOLLIN, poll_node

import os
import socket

cdef extern from "<sys/socket.h>" nogil:
    int accept4(int fd, sockaddr *address, socklen_t *length, int flags)
    int getpeername(int fd, sockaddr *address, socklen_t *length)
    enum: SOCK_NONBLOCK, SOCK_CLOEXEC

cdef enum:
    # In one turn: sessions that are there have theirs too, and where workers share a socket, others their part.
    ACCEPT_LIMIT = 16

REST_S = 1.0


@cython.final
cdef class Acceptor:
    cdef poll_node node
    cdef InboundContext context
    cdef object sock
    cdef object resting

    def __cinit__(self, InboundContext context not None, sock not None):
        self.context = context
        self.sock = sock
        self.node.fd = -1
        self.node.ready = ready

    def start(self):
        self.resting = None
        self.sock.setblocking(False)                # accept(2) must not wait for who is not there
        if self.sock.family != socket.AF_UNIX:
            # Accepted sockets have it from the one they come from (tcp(7)): a reply never waits for an acknowledgement.
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.node.fd = self.sock.fileno()
        if self.context.intake.poll.want(&self.node, EPOLLIN) != 0:
            raise OSError(errno, os.strerror(errno))

    def again(self):
        try:
            self.start()
        except OSError as error:
            self.rest(error.errno or ENOMEM)

    def stop(self):
        self.context.intake.poll.want(&self.node, 0)
        if self.resting is not None:
            self.resting.cancel()
            self.resting = None

    cdef void rest(self, int number) noexcept:
        """Level-triggered, the socket would be ready again and again while nothing can be done for who waits."""
        self.context.intake.poll.want(&self.node, 0)
        try:
            self.resting = self.context.intake.loop.call_later(REST_S, self.again)
            self.context.intake.journal.log(
                "error", where="accept", reason=f"{os.strerror(number)}: no connections are accepted for {REST_S:g} s")
        except Exception as error:
            self.context.intake.journal.log("error", where="accept", reason=repr(error))


cdef void ready(poll_node *node, uint32_t events) noexcept:
    cdef size_t offset = <size_t>&(<Acceptor><void *>NULL).node
    cdef Acceptor acceptor = <Acceptor><void *>(<char *>node - offset)
    cdef sockaddr_storage peer
    cdef socklen_t length
    cdef int fd, _i
    for _i in range(ACCEPT_LIMIT):
        length = sizeof(peer)
        fd = accept4(node.fd, <sockaddr *>&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd >= 0:
            begin(acceptor.context, fd, &peer)
        elif errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
            acceptor.rest(errno)
            return
        elif errno != EINTR and errno != ECONNABORTED:
            return                                  # EAGAIN, or what went wrong with a connection that is gone (accept(2))


cdef void begin(InboundContext context, int fd, const sockaddr_storage *peer) noexcept:
    cdef InboundConnection connection
    try:
        connection = InboundConnection.__new__(InboundConnection, context)
    except Exception as error:
        close(fd)
        context.intake.journal.log("error", where="accept", reason=repr(error))
        return
    connection.accepted(fd, peer)


def adopt(InboundContext context not None, sock not None):
    cdef sockaddr_storage peer
    cdef socklen_t length = sizeof(peer)
    cdef int fd
    memset(&peer, 0, sizeof(peer))
    sock.setblocking(False)
    fd = sock.detach()
    getpeername(fd, <sockaddr *>&peer, &length)
    begin(context, fd, &peer)
