# What an outbound connection has in hand: transactions, and a body that is sent in chunks.
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from angarium.model.octets cimport octets
from angarium.queue.message cimport domain_budget, transaction
from angarium.queue.ready cimport ReadyQueue
from angarium.queue.scheduler cimport Scheduler
from angarium.smtp.client_dialogue cimport CLIENT_RECIPIENTS_MAX, client_event
from angarium.smtp.client_session cimport CLIENT_SLOTS, ClientSession
from angarium.spool.cspool cimport spool_envelope, spool_read_op

cdef enum hand_state:
    HAND_EMPTY = 0
    HAND_FETCHING                       # envelope or body is being read back
    HAND_READY                          # may be sent
    HAND_OPEN                           # the session works on it

cdef struct hand:                       # a transaction in hand
    transaction t
    spool_envelope *envelope            # view into `envelope_octets`; malloc, NULL when empty: few of a connection's hands are full at once
    octets *envelope_octets             # own references, NULL when empty
    octets *body                        # NULL: streamed
    uint64_t started_ms                 # mono; when MAIL went out
    uint8_t state
    uint32_t untried_count
    uint8_t untried[(CLIENT_RECIPIENTS_MAX + 7) >> 3]    # bits: those told "too many", given back at the end

cdef struct body_stream:                # a body sent chunk by chunk; one at a time
    spool_read_op *op                   # malloc, with the first body that is streamed
    octets *chunk                       # read, waits until the socket takes more
    uint32_t index                      # of the chunk in `op` or `chunk`
    uint32_t count
    uint64_t octets_left
    uint8_t slot
    bint is_active
    bint is_reading                     # `op` belongs to the reader thread
    bint has_failed                     # the spool, not the peer, ended the connection


cdef class Carrier:
    """The dialogue with one peer and the transactions of it. A base of Connection, in a file of its own."""
    cdef ClientSession session
    cdef readonly ReadyQueue ready
    cdef Scheduler scheduler
    cdef readonly str remote            # "host[address]:port"
    cdef bytes remote_octets
    cdef const char *tls_version        # static texts; NULL in clear
    cdef const char *tls_cipher
    cdef bytes policy_name              # of TLS, and whose word it is: for the log
    cdef bytes policy_origin
    cdef bint submits                   # AUTH= of MAIL names who authenticated to us
    cdef bint takes_requiretls          # messages with REQUIRETLS may be given to this peer
    cdef hand hands[CLIENT_SLOTS]       # by session slot
    cdef hand next                      # being prepared
    cdef body_stream stream
    cdef const uint8_t *piece           # body octets of the write being put together, lie at `piece_at` in session.out
    cdef size_t piece_length
    cdef size_t piece_at
    cdef uint32_t armed_reply_count
    cdef domain_budget domains          # of the session, where the peer announces RCPTDOMAINMAX
    cdef public object session_domains  # tls_witness.SessionDomains, or None: TLS reports count nothing here
    cdef object last_domain             # keeps domains.last: no other can come to lie there
    cdef bint is_queued                 # octets wait in the transport: no direct send until they are gone
    cdef bint is_closed
    cdef readonly uint64_t taken_count      # transactions begun
    cdef readonly uint64_t finished_count   # transactions that got their last reply

    # Connection's:
    cdef int advance(self) except -1                    # begins whatever may begin, sends what is due, sets the deadline
    cdef int flush(self) except -1
    cdef int broken_inside(self, object error) except -1
    cdef void end(self, object judgement) noexcept      # the connection is over
    cdef void conclude(self) noexcept                   # nobody reads for it any more

    cdef object stage_now(self)
    cdef object judge_reply(self, client_event *event)
    cdef int judged_slot(self) noexcept
    cdef int tell_refused(self, int slot, uint32_t i, object judgement) except -1
    cdef int tell_rest(self, hand *h, const uint8_t *states, object judgement) except -1
    cdef int tell_delivered(self, int slot, uint32_t i) noexcept
    cdef int settle(self, hand *h) except -1
    cdef int give_back(self, hand *h) except -1
    cdef int keep_untried(self, int slot) noexcept
    cdef int give_back_untold(self, int slot) except -1
