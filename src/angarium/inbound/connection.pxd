from libc.stdint cimport uint8_t, uint32_t, uint64_t
from angarium.inbound.client cimport Client
from angarium.model.octets cimport octets
from angarium.queue.wheel cimport wheel_node
from angarium.tls.session cimport TlsSession


cdef enum connection_phase:
    PHASE_OPEN = 0
    PHASE_PROXIED               # a load balancer has not said yet for whom it speaks
    PHASE_LINGERING             # the last reply is out; input is read away so that it arrives
    PHASE_CLOSED


cdef class InboundConnection(Client):
    """uvloop's protocol object. Owns the Client part and a deadline in the wheel; borrows the worker's read buffer."""
    cdef object transport
    cdef int fd
    cdef uint8_t phase
    cdef bint has_backlog           # the transport holds octets of ours: direct sends would overtake them
    cdef bint is_write_paused
    cdef bint is_read_paused
    cdef bint is_pumping
    cdef bint has_eof
    cdef bint is_held_back          # the reply waits in the session's output for the timer
    cdef uint32_t data_began        # tick
    cdef bint is_timing_data
    cdef wheel_node deadline
    cdef bytes header               # PHASE_PROXIED: what has come of the PROXY header

    cdef void begin(self, const uint8_t *early, size_t length) noexcept
    cdef bint is_in_handshake(self) noexcept
    cdef void begin_tls(self, TlsSession layer) noexcept
    cdef void receive_encrypted(self, size_t length) noexcept
    cdef void pump(self) noexcept
    cdef void turn(self) noexcept
    cdef bint flush(self) noexcept
    cdef void send_octets(self, octets *output) noexcept
    cdef void send_later(self, octets *output, size_t sent) noexcept
    cdef void arm_deadline(self, bint has_replied) noexcept
    cdef uint64_t data_time_left_ms(self) noexcept
    cdef void expire(self) noexcept
    cdef void tighten(self) noexcept
    cdef bint hold_reply(self) noexcept
    cdef void release_reply(self) noexcept
    cdef void pause_or_resume_reading(self, bint wants_pause) noexcept
    cdef void close_tls(self) noexcept
    cdef void begin_close(self) noexcept
