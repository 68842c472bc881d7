from angarium.outbound.carrier cimport Carrier

cdef int stream_begin(Carrier self, int slot) except -1     # of the transaction in that hand
cdef int stream_read(Carrier self) except -1                # the next chunk
cdef int stream_send(Carrier self) except -1                # the chunk that was read; the transport must hold nothing
cdef void stream_arrived(Carrier self) noexcept
cdef int stream_failed(Carrier self, int error) except -1
