# The greeting: judges of the connection are asked, and who talks first is found out (RFC 5321 §3.1: the server speaks first).
from libc.stdint cimport uint8_t
from angarium.inbound.client cimport Client
from angarium.inbound.connection cimport InboundConnection
from angarium.inbound.inquiry cimport inquire

from angarium.inbound.judgement import ConnectCase

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *data, size_t length, int flags)
    enum: MSG_DONTWAIT, MSG_PEEK


cdef void welcome(InboundConnection connection, size_t early_length) noexcept:
    cdef tuple judges
    if early_length:
        return                                  # the session refuses the octets when they are read
    if connection.context.judges is not None:
        judges = connection.context.judges.connect
        if judges:
            inquire(connection, judges, ConnectCase(connection), judged)
            return
    greet(connection)


cdef void judged(Client client, object case, object refusal) noexcept:
    if refusal is not None:
        client.tell_refusal(NULL, 0, refusal)
        client.session.close_with(refusal.reply)
    else:
        greet(<InboundConnection>client)
    client.resume()


cdef void greet(InboundConnection connection) noexcept:
    """One recv(2) that takes nothing, a microsecond of the fifty that a connection costs; no client waits for it. Under TLS what
    follows the handshake was read with it."""
    cdef uint8_t octet
    if connection.tls is not None or recv(connection.wire.fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT) != 1:
        connection.session.greet()
