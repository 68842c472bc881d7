"""What the queue holds in memory: C structures, nothing for the garbage collector.

A message owns its recipients (one allocation). A recipient is in exactly one place at a time, said by `link.where`.
"""
from libc.stdint cimport int8_t, uint8_t, uint16_t, uint32_t, uint64_t
from angarium.model.octets cimport octets
from angarium.queue.wheel cimport wheel_node
from angarium.spool.cspool cimport SPOOL_ENVELOPE_INLINE, spool_place, spool_segment

cdef enum recipient_place:              # wheel_node.where of a recipient
    PLACE_NOWHERE = 0
    PLACE_UNROUTED                      # waiting in its domain queue for a plan (MX)
    PLACE_READY                         # in a ready queue
    PLACE_IN_HAND                       # in a transaction, or waiting for its envelope to be read back
    PLACE_DEFERRED                      # in the timer wheel
    PLACE_SETTLED                       # outcome final
    PLACE_AWAITING                      # in line for its envelope, of which standing orders ask something
    PLACE_BEHIND                        # behind a ready queue that is full: overflow.pxd
    PLACE_HANDED                        # in hand of another worker, the home of its site: link.due, see handed_to()

cdef enum recipient_outcome:            # as in spool state records
    OUTCOME_WAITING = 0
    OUTCOME_DELIVERED = 1
    OUTCOME_FAILED = 2
    OUTCOME_EXPIRED = 3

cdef enum:                              # recipient.flags
    RECIPIENT_REPORT_DUE = 1            # final, and somebody must be told by a DSN first
    NOTIFY_EXPANDED = 16                # of recipient.notify, beside SMTP_NOTIFY_*: an alias, whose sender is told and nobody else
    RECIPIENT_RELAYED = 2               # delivered to a next hop that knows no DSN (action "relayed")
    RECIPIENT_DELAY_DUE = 4             # waits still, and somebody must be told that it does
    RECIPIENT_DELAY_TOLD = 8            # that was done, once
    RECIPIENT_TRACED = 16               # "relayed" is told though NOTIFY did not ask (RFC 2852)
    RECIPIENT_SUSPENDED = 32            # waits in the wheel for the end of an order, not for its next attempt
    RECIPIENT_MOVED = 64                # its domain queue is not the one that its envelope says: an order moved it
    RECIPIENT_SOURCE_SHIFT = 8          # above this bit: how often another source was tried because of the source

cdef enum:                              # message.flags, beside SPOOL_ENVELOPE_*
    MESSAGE_IS_MOVING = 0x8000          # compaction has it in hand and writes its state itself
    MESSAGE_HAS_TERMS = 0x4000          # its envelope has attributes that mean something to the queue: terms.pxd

cdef enum:                              # message.state_in_flight
    STATE_ELSEWHERE = 2                 # another worker's message, whose outcomes that one writes: guests.pxd

cdef struct recipient:
    wheel_node link                     # 24 octets; link.tally: attempts so far
    void *domain                        # DomainQueue (borrowed; it outlives its recipients)
    void *trouble                       # PyObject (Trouble, one for all who have the same) or NULL; a counted reference
    uint32_t index                      # in message.recipients and in the envelope
    uint8_t outcome
    uint8_t notify                      # SMTP_NOTIFY_* of RCPT, 0 when not given
    uint16_t flags                      # RECIPIENT_*

cdef struct message_chunks:             # of a streamed message: one pin for each chunk
    uint32_t count
    uint32_t offset                     # of the first one's record
    uint32_t flow                       # flows.pxd
    spool_segment *segments[1]          # count of them; NULL: recovery did not find it

cdef struct message_beside:
    uint32_t body_offset                # where the union has it
    uint32_t flow                       # flows.pxd

cdef union message_body:                # which of the two: SPOOL_ENVELOPE_INLINE
    uint32_t offset                     # of its record in home
    message_beside beside               # and behind it
    message_chunks *chunks              # owned; NULL: none

# Ten million of these are what a bad day leaves behind: 96 octets, and 48 for each recipient. Messages of one recipient lie in
# a Slab.
cdef struct message:
    uint64_t id
    uint64_t received_utc_ms
    octets *envelope                    # NULL: read it back from home
    octets *body                        # NULL: read it back (or streamed in chunks)
    spool_segment *home                 # segment of the envelope record
    spool_segment *state_segment        # of the newest OUTCOME record, or NULL
    message_body where
    uint32_t message_octets             # at most 2^32 - 1: the envelope has the whole number
    uint32_t envelope_offset
    uint32_t envelope_length
    uint32_t recipient_count
    uint32_t live_count                 # recipients without a final outcome
    uint32_t deferred_count             # of those, the ones in the wheel or behind a full ready queue: nobody is about to try them
    uint32_t hand_count                 # holds on the message: recipients in hand, reads and reports under way
    uint32_t report_count               # recipients with RECIPIENT_REPORT_DUE or RECIPIENT_DELAY_DUE
    uint16_t flags                      # SPOOL_ENVELOPE_*, MESSAGE_*
    uint8_t shard_number                # see ledger.shard_of(); ids have 8 bits for it
    int8_t priority                     # -9 to 9 (RFC 6710)
    uint8_t is_dirty                    # the state on disk is behind
    uint8_t state_in_flight             # 1: a record of it is being written
    uint8_t report_in_flight
    uint8_t is_hot                      # envelope or body is counted in the scheduler's cache
    recipient recipients[1]             # recipient_count of them


cdef inline uint32_t chunk_count_of(message *m) noexcept nogil:
    """Of a streamed message; 0 for a body beside its envelope."""
    return 0 if m.flags & SPOOL_ENVELOPE_INLINE or m.where.chunks == NULL else m.where.chunks.count


cdef inline uint32_t flow_of(message *m) noexcept nogil:
    """Whose mail it is, for fairness: its number in Flows. A streamed message has it once its chunks are found."""
    if m.flags & SPOOL_ENVELOPE_INLINE:
        return m.where.beside.flow
    return m.where.chunks.flow if m.where.chunks != NULL else 0


cdef inline spool_place body_place(message *m) noexcept nogil:
    """Of a body in one record; segment NULL when there are several, or none. Its length is message_octets."""
    cdef spool_place place
    place.segment = NULL
    place.offset = place.length = 0
    if m.flags & SPOOL_ENVELOPE_INLINE:
        place.segment = m.home
        place.offset = m.where.offset
        place.length = m.message_octets
    elif chunk_count_of(m) == 1:
        place.segment = m.where.chunks.segments[0]
        place.offset = m.where.chunks.offset
        place.length = m.message_octets
    return place


cdef inline message *message_of(recipient *r) noexcept nogil:
    """The message that owns r: recipients lie in one array behind the message's fixed part."""
    return <message *>(<char *>(r - r.index) - <size_t>(&(<message *>NULL).recipients[0]))


cdef inline uint64_t record_octets(message *m) noexcept nogil:
    """Of the envelope record and a body beside it: what lives in the home segment because of m."""
    return <uint64_t>m.envelope_length + (m.message_octets if m.flags & SPOOL_ENVELOPE_INLINE else 0)


cdef inline uint64_t chunk_octets(message *m) noexcept nogil:
    """About what one chunk of a streamed message has."""
    return m.message_octets // m.where.chunks.count


cdef struct transaction:                # recipients of one message that travel together
    message *message
    uint32_t count
    uint32_t capacity
    uint32_t ration_day                 # of the warm-up that it was taken from; 0: of none
    recipient **recipients              # owned by the connection that holds the transaction


cdef struct domain_budget:              # domains that recipients may still be of (RFC 9422 §4.3)
    void *last                          # DomainQueue of the last recipient taken, borrowed; NULL: none yet
    uint32_t left                       # others; each change counts, who comes back to a domain uses up another


# link.due of who is PLACE_HANDED: the worker, and the ready queue that it comes back to (26 bits of its number).
cdef inline uint32_t handed_to(int worker, uint32_t ready_number) noexcept nogil:
    return ready_number << 6 | <uint32_t>worker


cdef inline int worker_of(uint32_t due) noexcept nogil:
    return <int>(due & 63)


cdef inline uint32_t ready_number_of(uint32_t due) noexcept nogil:
    return due >> 6
