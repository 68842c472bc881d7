from angarium.outbound.connection cimport Connection

cdef extern from "sys/uio.h" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len

# The socket is connection.wire; the connection lives as long as it is open. Nothing is read or sent after wire_close() and
# wire_abort().
cdef int wire_open(Connection connection, int fd) except -1             # takes the descriptor over, also when it raises
cdef int wire_send(Connection connection, iovec *parts, size_t count) except -1     # is_queued: not all of it has left
cdef void wire_close(Connection connection) noexcept                    # behind what is still to be sent
cdef void wire_abort(Connection connection) noexcept                    # at once
