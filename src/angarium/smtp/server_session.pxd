from libc.stdint cimport uint8_t
from angarium.model.octets cimport octets
from angarium.smtp.server_dialogue cimport ServerDialogue, server_event


cdef class ServerSession(ServerDialogue):
    """One SMTP dialogue, server side: commands in, events out."""
    cpdef void greet(self) noexcept
    cdef void receive_octets(self, const uint8_t *data, size_t length) noexcept
    cdef server_event advance(self) noexcept
    cdef void hold(self) noexcept
    cdef size_t held_octets(self) noexcept
    cdef size_t buffer_octets(self) noexcept
    cpdef bint has_transaction(self) noexcept
    cpdef bint is_idle(self) noexcept
    cpdef bint is_in_data(self) noexcept

    cpdef void assume_tls(self) noexcept
    cpdef void accept(self) noexcept
    cpdef void refuse(self, bytes reply) noexcept
    cpdef void challenge(self, bytes octets)
    cpdef void authenticate(self, bytes identity) noexcept
    cpdef void answer(self, bytes reply) noexcept
    cpdef void reintroduce(self, bytes helo, bint is_ehlo, bytes identity) noexcept
    cdef void begin_data_with(self, octets *body) noexcept
    cdef void finish_with(self, const uint8_t *reply, size_t length) noexcept
    cdef void finish_refused(self, bytes reply) noexcept
    cpdef void close_with(self, bytes reply) noexcept
    cpdef void part_with(self, bytes reply) noexcept
    cdef octets *take_body_octets(self) noexcept
    cdef octets *take_output_octets(self) noexcept

    cdef server_event _line(self) noexcept
    cdef server_event _noise(self, bytes reply) noexcept
    cdef server_event _skip_line(self) noexcept
    cdef server_event _command(self, const uint8_t *line, size_t length) noexcept
    cdef bytes _taken(self, octets *taken)
