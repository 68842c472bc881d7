from angarium.inbound.connection cimport InboundConnection
from angarium.model.octets cimport octets

# The socket is connection.wire. After wire_close() and wire_abort() nothing is read or sent; connection.lost() follows, never
# from inside of these calls.
cdef void wire_open(InboundConnection connection, int fd) noexcept      # owned from now on; not read before wire_want()
cdef void wire_want(InboundConnection connection) noexcept              # what is watched, after a change of its flags
cdef void wire_send(InboundConnection connection, octets *output) noexcept      # takes over the reference
cdef void wire_send_eof(InboundConnection connection) noexcept          # behind what is still to be sent
cdef void wire_close(InboundConnection connection) noexcept             # behind what is still to be sent
cdef void wire_abort(InboundConnection connection) noexcept             # at once
