from libc.stdint cimport uint8_t, uint32_t, uint64_t
from angarium.admission.bounds cimport Places
from angarium.inbound.client cimport Client, sockaddr_storage
from angarium.sockets.poll cimport poll_node
from angarium.model.octets cimport octets
from angarium.queue.wheel cimport wheel_node
from angarium.tls.session cimport TlsSession


cdef enum connection_phase:
    PHASE_OPEN = 0
    PHASE_PROXIED               # a load balancer has not said yet for whom it speaks
    PHASE_LINGERING             # the last reply is out; input is read away so that it arrives
    PHASE_CLOSED


cdef class InboundConnection(Client):
    """Owns the Client part, a socket among the worker's (wire.pyx) and a deadline in the wheel; borrows the worker's read
    buffer.
    """
    cdef poll_node wire             # its descriptor is -1 before accepted() and after the end
    cdef octets *backlog            # what the socket did not take yet, or NULL
    cdef size_t backlog_sent        # of it
    cdef Places places              # of the listener: it has one among them; None: it is not counted
    cdef uint8_t phase
    cdef bint is_write_paused
    cdef bint is_read_paused
    cdef bint is_read_over          # no reader is left: the peer has shut its side, or we close
    cdef bint is_closing            # behind the backlog, which is all that is sent
    cdef bint is_eof_due            # behind the backlog
    cdef bint is_pumping
    cdef bint has_eof
    cdef bint is_held_back          # the reply waits in the session's output for the timer
    cdef uint32_t data_began        # tick
    cdef bint is_timing_data
    cdef wheel_node deadline
    cdef bytes header               # PHASE_PROXIED: what has come of the PROXY header
    cdef bytes proxied_ends         # what it said beyond the client's address (ends.py); None: no balancer's

    cdef void accepted(self, int fd, const sockaddr_storage *peer) noexcept     # the descriptor is owned from now on
    cdef void received(self, size_t length) noexcept        # so much is in the worker's read buffer
    cdef bint eof_received(self) noexcept                   # False: there is nothing left to say
    cdef void lost(self) noexcept                           # the socket is gone
    cdef void begin(self, const uint8_t *early, size_t length) noexcept
    cdef bint has_place(self) noexcept
    cdef void begin_session(self, const uint8_t *early, size_t length) noexcept
    cdef bint is_in_handshake(self) noexcept
    cdef void begin_tls(self, TlsSession layer) noexcept
    cdef void receive_encrypted(self, size_t length) noexcept
    cdef void pump(self) noexcept
    cdef void turn(self) noexcept
    cdef bint flush(self) noexcept
    cdef void arm_deadline(self, bint has_replied) noexcept
    cdef uint64_t data_time_left_ms(self) noexcept
    cdef void expire(self) noexcept
    cdef void tighten(self) noexcept
    cdef bint hold_reply(self) noexcept
    cdef void release_reply(self) noexcept
    cdef void pause_or_resume_reading(self, bint wants_pause) noexcept
    cdef void close_tls(self) noexcept
    cdef void begin_close(self) noexcept
