# One outbound connection: the socket under a ClientSession, and the transactions it has in hand.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from angarium.model.octets cimport octets
from angarium.queue.message cimport message, transaction
from angarium.queue.ready cimport ReadyQueue
from angarium.queue.scheduler cimport Scheduler
from angarium.queue.wheel cimport wheel_node
from angarium.smtp.client_session cimport CLIENT_RECIPIENTS_MAX, CLIENT_SLOTS, ClientSession, client_event
from angarium.spool.cspool cimport spool_envelope, spool_read_op

cdef enum hand_state:
    HAND_EMPTY = 0
    HAND_FETCHING                       # envelope or body is being read back
    HAND_READY                          # may be sent
    HAND_OPEN                           # the session works on it

cdef struct hand:                       # a transaction in hand
    transaction t
    spool_envelope envelope             # view into `envelope_octets`
    octets *envelope_octets             # own references, NULL when empty
    octets *body                        # NULL: streamed
    uint64_t started_ms                 # mono; when MAIL went out
    uint8_t state
    uint32_t untried_count
    uint8_t is_untried[CLIENT_RECIPIENTS_MAX]   # told "too many": given back at the end

cdef struct deadline_node:              # what the wheel holds; `node` first, so that a node is found again
    wheel_node node
    void *connection                    # Connection, borrowed

cdef struct body_stream:                # a body sent chunk by chunk; one at a time
    spool_read_op op
    octets *chunk                       # read, waits until the socket takes more
    uint32_t index                      # of the chunk in `op` or `chunk`
    uint32_t count
    uint64_t octets_left
    uint8_t slot
    bint is_active
    bint is_reading                     # `op` belongs to the reader thread
    bint has_failed                     # the spool, not the peer, ended the connection


cdef class ConnectionOwner:
    """Who keeps connections: the pool. Called by Connection; none of these may raise."""
    cdef bint may_take(self, Connection connection) noexcept        # may it begin another transaction?
    cdef void idle(self, Connection connection) noexcept            # nothing left to do for now
    cdef void leaving(self, Connection connection) noexcept         # QUIT is out: it takes nothing any more
    cdef void finished(self, Connection connection, uint64_t elapsed_ms) noexcept       # a transaction got its last reply
    cdef void closed(self, Connection connection, object judgement) noexcept    # gone; judgement None: in good order


cdef class Connection:
    cdef ClientSession session
    cdef readonly ReadyQueue ready
    cdef Scheduler scheduler
    cdef ConnectionOwner owner
    cdef object transport
    cdef readonly object hello          # asyncio.Future: None when transactions may start, or raises HelloFailed
    cdef readonly str remote            # "host[address]:port"
    cdef bytes remote_octets
    cdef readonly object host_key       # for the memory of broken hosts
    cdef int fd                         # -1: no socket
    cdef bint is_queued                 # octets wait in the transport: no direct send until they are gone
    cdef bint is_closed
    cdef bint is_in_pool                # the pool counts it: its hello went well
    cdef bint is_idle
    cdef bint is_busy_inside            # inside receive() or start(): others must not call in
    cdef object loss                    # Judgement kept until reads in flight come back
    cdef hand hands[CLIENT_SLOTS]       # by session slot
    cdef hand next                      # being prepared
    cdef body_stream stream
    cdef deadline_node deadline
    cdef const uint8_t *piece           # body octets of the write being put together, lie at `piece_at` in session.out
    cdef size_t piece_length
    cdef size_t piece_at
    cdef uint32_t armed_reply_count
    cdef readonly uint64_t taken_count      # transactions begun
    cdef readonly uint64_t finished_count   # transactions that got their last reply
    cdef uint8_t place                  # the pool's: busy, idle ...
    cdef Connection next_idle           # the pool's stack
    cdef Connection previous_idle

    cdef void start(self) noexcept                      # idle: look for work
    cdef void leave(self) noexcept                      # QUIT when nothing is in hand, at once or then
    cdef void abort(self) noexcept                      # now; what is in hand is deferred or given back
    cdef void expired(self) noexcept                    # the wheel says the deadline is over

    cdef int receive(self, size_t length) except -1
    cdef int on_event(self, client_event *event) except -1
    cdef int advance(self) except -1
    cdef int prepare(self) except -1
    cdef int check(self, hand *h) except -1
    cdef int transmit(self) except -1
    cdef int send_body(self, int slot) except -1
    cdef int flush(self) except -1
    cdef int arm(self) noexcept
    cdef int stream_read(self) except -1
    cdef int stream_send(self) except -1
    cdef void stream_arrived(self) noexcept
    cdef int tell_refused(self, int slot, uint32_t i, object judgement) except -1
    cdef int tell_rest(self, hand *h, const uint8_t *states, object judgement) except -1
    cdef int tell_delivered(self, int slot, uint32_t i) noexcept
    cdef object judge_reply(self, client_event *event)
    cdef int settle(self, hand *h) except -1
    cdef int give_back(self, hand *h) except -1
    cdef void end(self, object judgement) noexcept
    cdef void conclude(self) noexcept
    cdef int judged_slot(self) noexcept
    cdef object stage_now(self)
    cdef int stream_failed(self, int error) except -1
    cdef int give_back_untold(self, int slot) except -1
    cdef int broken_inside(self, object error) except -1
