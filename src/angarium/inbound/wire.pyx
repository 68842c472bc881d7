# The socket of an accepted connection: octets in, octets out, its end. What they mean is not known here.
#
# A reply leaves in one send(2) at once. What the kernel does not take waits in the backlog and goes first from then on; past
# HIGH_WATER nothing more is asked of the session until the peer has read down to LOW_WATER.
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t
from libc.string cimport memmove
from posix.unistd cimport close
from angarium.inbound.connection cimport InboundConnection
from angarium.inbound.context cimport READ_OCTETS, Intake
from angarium.sockets.poll cimport EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, poll_node
from angarium.model.octets cimport octets, octets_append, octets_unref
from angarium.smtp.message_reader cimport RUN_SLACK_OCTETS

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void *data, size_t length, int flags)
    ssize_t recv(int fd, void *data, size_t length, int flags)
    int shutdown(int fd, int how)
    enum: MSG_DONTWAIT, MSG_NOSIGNAL, SHUT_WR

cdef enum:
    HIGH_WATER = 64 << 10
    LOW_WATER = 16 << 10


cdef void wire_open(InboundConnection connection, int fd) noexcept:
    connection.wire.fd = fd
    connection.wire.ready = ready


cdef void wire_want(InboundConnection connection) noexcept:
    cdef uint32_t events = 0
    if connection.wire.fd < 0:
        return
    if not (connection.is_read_paused or connection.is_read_over):
        events |= EPOLLIN
    if connection.backlog != NULL:
        events |= EPOLLOUT
    if connection.context.intake.poll.want(&connection.wire, events) != 0:
        wire_abort(connection)          # memory is out, or the administrator's limit of watched descriptors is reached


cdef void ready(poll_node *node, uint32_t events) noexcept:
    cdef size_t offset = <size_t>&(<InboundConnection><void *>NULL).wire
    cdef InboundConnection connection = <InboundConnection><void *>(<char *>node - offset)
    if events == 0:
        connection.lost()
        return
    if node.wanted & EPOLLOUT and events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
        send_backlog(connection)
    if node.wanted & EPOLLIN and events & (EPOLLIN | EPOLLERR | EPOLLHUP):
        receive(connection)


cdef void receive(InboundConnection connection) noexcept:
    cdef Intake intake = connection.context.intake
    cdef size_t size = READ_OCTETS
    cdef ssize_t got
    # Five hundred large messages at once: what a read brings beyond a full run stays in memory while the disk is behind.
    if connection.session.message.body != NULL and connection.session.message.body.length > RUN_SLACK_OCTETS:
        size = RUN_SLACK_OCTETS
    while True:
        got = recv(connection.wire.fd, intake.read_octets, size, MSG_DONTWAIT)
        if got >= 0 or errno != EINTR:
            break
    if got > 0:
        connection.received(got)
    elif got == 0:
        connection.is_read_over = True
        if connection.eof_received():
            wire_want(connection)
        else:
            wire_close(connection)
    elif errno != EAGAIN:
        wire_abort(connection)          # reset by the peer


cdef ssize_t send_some(InboundConnection connection, octets *output, size_t offset) noexcept:
    """How many octets the kernel took; -1: the peer is gone, and so is the connection."""
    cdef ssize_t sent
    while True:
        sent = send(connection.wire.fd, output.data + offset, output.length - offset, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent >= 0:
            return sent
        if errno == EAGAIN:
            return 0
        if errno != EINTR:
            wire_abort(connection)
            return -1


cdef void wire_send(InboundConnection connection, octets *output) noexcept:
    cdef ssize_t sent
    if connection.wire.fd < 0 or connection.is_closing:
        octets_unref(output)
        return
    if connection.backlog != NULL:
        if connection.backlog_sent >= HIGH_WATER:       # a peer that never reads all of it: what it has read must not pile up
            connection.backlog.length -= connection.backlog_sent
            memmove(connection.backlog.data, connection.backlog.data + connection.backlog_sent, connection.backlog.length)
            connection.backlog_sent = 0
        if octets_append(&connection.backlog, output.data, output.length) != 0:
            wire_abort(connection)
        octets_unref(output)
    else:
        sent = send_some(connection, output, 0)
        if sent < 0 or <size_t>sent == output.length:
            octets_unref(output)
            return
        connection.backlog = output
        connection.backlog_sent = <size_t>sent
        wire_want(connection)
    if connection.backlog != NULL and connection.backlog.length - connection.backlog_sent > HIGH_WATER:
        connection.is_write_paused = True


cdef void send_backlog(InboundConnection connection) noexcept:
    cdef ssize_t sent = send_some(connection, connection.backlog, connection.backlog_sent)
    cdef size_t left
    if sent < 0:
        return
    connection.backlog_sent += <size_t>sent
    left = connection.backlog.length - connection.backlog_sent
    if left == 0:
        octets_unref(connection.backlog)
        connection.backlog = NULL
        if connection.is_closing:
            end(connection)
            return
        if connection.is_eof_due:
            shutdown(connection.wire.fd, SHUT_WR)
        wire_want(connection)
    if left <= LOW_WATER and connection.is_write_paused and not connection.is_closing:
        connection.is_write_paused = False
        connection.pump()


cdef void wire_send_eof(InboundConnection connection) noexcept:
    connection.is_eof_due = True
    if connection.wire.fd >= 0 and connection.backlog == NULL:
        shutdown(connection.wire.fd, SHUT_WR)


cdef void wire_close(InboundConnection connection) noexcept:
    connection.is_closing = True
    connection.is_read_over = True
    if connection.backlog == NULL:
        end(connection)
    else:
        wire_want(connection)


cdef void wire_abort(InboundConnection connection) noexcept:
    end(connection)


cdef void end(InboundConnection connection) noexcept:
    if connection.wire.fd < 0:
        return
    connection.is_closing = True
    connection.context.intake.poll.want(&connection.wire, 0)
    close(connection.wire.fd)
    connection.wire.fd = -1
    octets_unref(connection.backlog)
    connection.backlog = NULL
    connection.context.intake.poll.postpone(&connection.wire)
