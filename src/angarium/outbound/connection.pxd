# One outbound connection: the socket under a ClientSession, and the transactions it has in hand.
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from angarium.model.octets cimport octets
from angarium.outbound.carrier cimport Carrier
from angarium.queue.wheel cimport wheel_node
from angarium.smtp.client_dialogue cimport client_event
from angarium.sockets.poll cimport Poll, poll_node
from angarium.tls.client cimport ClientTls

cdef struct deadline_node:              # what the wheel holds; `node` first, so that a node is found again
    wheel_node node
    void *connection                    # Connection, borrowed


cdef class ConnectionOwner:
    """Who keeps connections: the pool. Called by Connection; none of these may raise."""
    cdef Poll poll                                                  # where their sockets are watched

    cdef bint may_take(self, Connection connection) noexcept        # may it begin another transaction?
    cdef void idle(self, Connection connection) noexcept            # nothing left to do for now
    cdef void leaving(self, Connection connection) noexcept         # QUIT is out: it takes nothing any more
    cdef void finished(self, Connection connection, uint64_t elapsed_ms) noexcept       # a transaction got its last reply
    cdef void closed(self, Connection connection, object judgement) noexcept    # gone; judgement None: in good order


cdef class Connection(Carrier):
    cdef ConnectionOwner owner
    cdef poll_node wire                 # wire.pyx's, as are these two
    cdef octets *backlog                # what the kernel has not taken; NULL: it has all
    cdef size_t backlog_sent
    # asyncio.Future, until it is in the pool: its result is None when transactions may start, or it raises HelloFailed.
    cdef readonly object hello
    cdef readonly object host_key       # for the memory of broken hosts
    cdef readonly object attempt        # dialer.Attempt
    cdef object site                    # the one it was dialled for, or found good enough for since
    cdef ClientTls tls                  # None in clear
    cdef readonly int tls_level         # tls_policy.Level, once the hello is over
    cdef object exchange                # sasl.client.ClientExchange, once AUTH was begun
    cdef object fault                   # why we gave it up
    cdef bint is_in_pool                # the pool counts it: its hello went well
    cdef bint is_idle
    cdef bint is_worn_out                # the peer takes no more transactions on it
    cdef bint is_surplus                # nor do we: there are more than a limit allows since it became lower
    cdef bint is_busy_inside            # inside receive() or start(): others must not call in
    cdef object loss                    # Judgement kept until reads in flight come back
    cdef deadline_node deadline
    cdef uint8_t place                  # the pool's: busy, idle ...
    cdef Connection next_idle           # the pool's stack
    cdef Connection previous_idle

    cdef void start(self) noexcept                      # idle: look for work
    cdef void leave(self) noexcept                      # QUIT when nothing is in hand, at once or then
    cdef void abort(self) noexcept                      # now; what is in hand is deferred or given back
    cdef void expired(self) noexcept                    # the wheel says the deadline is over

    # wire.pyx calls these.
    cdef void received(self, const uint8_t *data, size_t length) noexcept
    cdef void lost(self, int error) noexcept            # the peer has closed, or what errno says
    cdef void drained(self) noexcept                    # what was queued is gone

    cdef void broken(self, object error) noexcept

    cdef int receive(self, const uint8_t *data, size_t length) except -1
    cdef int receive_encrypted(self, const uint8_t *data, size_t length) except -1
    cdef int begin_handshake(self) except -1
    cdef int handshake_over(self) except -1
    cdef int hello_over(self, client_event *event) except -1
    cdef object loss_of(self, str reason, bint is_timeout)
    cdef bint is_setting_up_tls(self) noexcept
    cdef int flush_sealed(self) except -1
    cdef int send_sealed(self) except -1
    cdef int on_event(self, client_event *event) except -1
    cdef int tell_observer(self, str event, object text) except -1
    cdef int arm(self) noexcept
