# The socket of an outbound connection: octets in, octets out, its end. What they mean is not known here.
#
# What is written leaves in one sendmsg(2), straight from the buffers that hold it. What the kernel does not take waits in the
# backlog and goes first from then on; there is little more of it than one write, as nobody writes bodies while something is queued.
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset
from posix.unistd cimport close

from angarium.model.octets cimport octets, octets_append, octets_new, octets_unref
from angarium.outbound.connection cimport Connection
from angarium.sockets.poll cimport EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, poll_node

import os

from angarium.model.errors import RemoteProtocolError

cdef extern from "sys/socket.h" nogil:
    enum:
        MSG_NOSIGNAL
        MSG_DONTWAIT
        SHUT_RDWR
    int shutdown(int fd, int how)
    cdef struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    ssize_t recv(int fd, void *data, size_t length, int flags)

cdef enum:
    READ_OCTETS = 65536         # one buffer for all outbound connections: replies are parsed before the next read
    LINGER_MS = 10000           # judged: how long QUIT may wait for a peer that reads nothing
    BACKLOG_OCTETS = 4 << 20    # a body that is held whole, four times: what TLS answers may grow it, to a peer that reads nothing

cdef uint8_t read_octets[READ_OCTETS]


cdef int wire_open(Connection connection, int fd) except -1:
    connection.wire.fd = fd
    connection.wire.ready = ready
    if connection.owner.poll.want(&connection.wire, EPOLLIN) != 0:
        error = OSError(errno, os.strerror(errno))
        connection.wire.fd = -1
        close(fd)
        raise error
    Py_INCREF(connection)
    return 0


cdef void ready(poll_node *node, uint32_t events) noexcept:
    cdef size_t offset = <size_t>&(<Connection><void *>NULL).wire
    cdef Connection connection = <Connection><void *>(<char *>node - offset)
    if events == 0:
        Py_DECREF(connection)                   # wire_open()'s
        return
    if node.wanted & EPOLLOUT and events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
        send_backlog(connection)
    if node.wanted & EPOLLIN and events & (EPOLLIN | EPOLLERR | EPOLLHUP):
        receive(connection)


cdef void receive(Connection connection) noexcept:
    cdef ssize_t got
    while True:
        got = recv(connection.wire.fd, read_octets, READ_OCTETS, MSG_DONTWAIT)
        if got >= 0 or errno != EINTR:
            break
    if got > 0:
        connection.received(read_octets, <size_t>got)
    elif got == 0:
        connection.lost(0)
    elif errno != EAGAIN:
        connection.lost(errno)


cdef int wire_send(Connection connection, iovec *parts, size_t count) except -1:
    cdef msghdr header
    cdef ssize_t sent = 0
    cdef size_t i, skip
    if connection.wire.fd < 0:
        return 0
    if connection.backlog == NULL:
        memset(&header, 0, sizeof(header))
        header.msg_iov = parts
        header.msg_iovlen = count
        while True:
            sent = sendmsg(connection.wire.fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent >= 0 or errno != EINTR:
                break
        if sent < 0:
            if errno != EAGAIN:
                give_up(connection)
                return 0
            sent = 0
    elif connection.backlog.length > BACKLOG_OCTETS:
        raise RemoteProtocolError("too much waits for it to be read")
    skip = <size_t>sent
    for i in range(count):
        if skip >= parts[i].iov_len:
            skip -= parts[i].iov_len
            continue
        if connection.backlog == NULL:
            connection.backlog = octets_new(parts[i].iov_len - skip)
            connection.backlog_sent = 0
        if connection.backlog == NULL or octets_append(
                &connection.backlog, <const uint8_t *>parts[i].iov_base + skip, parts[i].iov_len - skip) != 0:
            raise MemoryError
        skip = 0
    if connection.backlog != NULL and not connection.is_queued:
        connection.is_queued = True
        if connection.owner.poll.want(&connection.wire, EPOLLIN | EPOLLOUT) != 0:
            raise OSError(errno, os.strerror(errno))
    return 0


cdef void send_backlog(Connection connection) noexcept:
    cdef iovec part
    cdef msghdr header
    cdef ssize_t sent
    part.iov_base = connection.backlog.data + connection.backlog_sent
    part.iov_len = connection.backlog.length - connection.backlog_sent
    memset(&header, 0, sizeof(header))
    header.msg_iov = &part
    header.msg_iovlen = 1
    sent = sendmsg(connection.wire.fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT)
    if sent < 0:
        if errno == EAGAIN or errno == EINTR:
            return
        give_up(connection)
        sent = <ssize_t>part.iov_len
    connection.backlog_sent += <size_t>sent
    if connection.backlog_sent < connection.backlog.length:
        return
    drop_backlog(connection)
    if connection.is_closed:
        end(connection)
        return
    connection.owner.poll.want(&connection.wire, EPOLLIN)       # less than before: it cannot fail
    connection.drained()


cdef void give_up(Connection connection) noexcept:
    # That it is broken is told by the read side, behind what the peer still had to say. Nothing may leave behind what did not, where
    # the connection as such lives on (memory was out): a body with a hole would be taken for the whole.
    shutdown(connection.wire.fd, SHUT_RDWR)


cdef void drop_backlog(Connection connection) noexcept:
    octets_unref(connection.backlog)
    connection.backlog = NULL
    connection.is_queued = False


cdef void wire_close(Connection connection) noexcept:
    if connection.backlog == NULL or connection.owner.poll.want(&connection.wire, EPOLLOUT) != 0:
        end(connection)
    else:
        connection.scheduler.wheel.arm(&connection.deadline.node, LINGER_MS)


cdef void wire_abort(Connection connection) noexcept:
    end(connection)


cdef void end(Connection connection) noexcept:
    if connection.wire.fd < 0:
        return
    connection.scheduler.wheel.disarm(&connection.deadline.node)
    connection.owner.poll.want(&connection.wire, 0)
    close(connection.wire.fd)
    connection.wire.fd = -1
    if connection.backlog != NULL:
        drop_backlog(connection)
    connection.owner.poll.postpone(&connection.wire)
