# One mail transaction, MAIL to end of data and until its commit is done (RFC 5321 §3.3). C memory that outlives its
# connection: a commit that runs when the client is gone is finished all the same.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from angarium.model.octets cimport octets
from angarium.spool.cspool cimport spool_chunk, spool_op, spool_segment

cdef enum:
    CHUNKS_IN_FLIGHT = 2            # of one message: memory per connection is bounded by that

cdef struct inbound_transaction:
    spool_op op                     # the ENVELOPE op; op.body is the whole message when it was not streamed
    octets *envelope
    octets *attributes              # of the envelope, until it is finished; NULL: none
    uint64_t id                     # 0 until data begins
    uint64_t started_mono_ms        # at MAIL
    uint64_t announced_octets
    uint64_t message_octets         # our trace field included
    uint64_t streamed_octets
    uint32_t flags                  # SPOOL_ENVELOPE_*
    uint32_t recipient_count
    uint32_t reverse_path_offset    # in the envelope
    uint32_t reverse_path_length
    uint32_t first_path_offset      # the forward-path of the first recipient, likewise
    uint32_t first_path_length
    uint32_t recipients_offset      # where they begin in it
    uint32_t trace_octets           # of the body in front of what the client sends
    uint32_t chunk_count
    uint32_t chunk_capacity
    uint32_t in_flight              # ops submitted and not done
    int error                       # the first one of any chunk
    uint8_t header                  # submitted_header (submitted.pxd)
    void *header_refusal            # bytes of replies.py, borrowed, when that is HEADER_REFUSED
    bint is_ended                   # end of data was seen: the envelope follows the last chunk
    bint is_dropped                 # no message will come of it
    uint8_t verdict                 # VERDICT_*: what the judges of the message say (verdict.pyx)
    bint is_asking                  # they are, in this very call
    bint awaits_verdict             # the end of data is there, and they are still asked
    void *refusal                   # Refusal, a counted reference: theirs, for the end of data; NULL: none
    const char *protocol            # as in the Received field: "ESMTPSA"
    const char *tls_version         # static texts; NULL in clear
    const char *tls_cipher
    void *forwarded                 # dict of XFORWARD (claims.py), a counted reference; NULL: nothing was said
    void *identity                  # bytes, a counted reference; NULL: not authenticated
    spool_chunk *chunks
    spool_segment **pins            # of each chunk
    void *client                    # Client, borrowed; NULL when the connection is gone
    void *context                   # InboundContext, a counted reference

# Who owns what: the client owns the transaction until it ends or is dropped; with ops in flight, their done callbacks
# own it from then on. NULL when memory is out; the envelope is begun.
cdef inbound_transaction *transaction_new(const uint8_t *reverse_path, size_t reverse_path_length,
                                          const uint8_t *envid, size_t envid_length,
                                          const uint8_t *helo, size_t helo_length,
                                          const uint8_t *address, size_t address_length,
                                          const uint8_t *listener, size_t listener_length) noexcept
# 0, -ENOMEM or -EINVAL.
cdef int transaction_add_recipient(inbound_transaction *self, const uint8_t *forward_path, size_t forward_path_length,
                                   uint32_t domain_offset, const uint8_t *orcpt, size_t orcpt_length,
                                   uint8_t notify) noexcept
# Whether it is among the first thousand, aside from aliases that were written out (queue/message.pxd, NOTIFY_EXPANDED).
cdef bint transaction_has_recipient(inbound_transaction *self, const uint8_t *forward_path, size_t length) noexcept
# Of the message: SPOOL_ATTRIBUTE_*, until data ends; replaces what the key had. 0 or -ENOMEM; -EINVAL shows in finish.
cdef int transaction_set_attribute(inbound_transaction *self, uint16_t key, const uint8_t *text, size_t length) noexcept
# The same for a dict of int and bytes.
cdef int transaction_set_attributes(inbound_transaction *self, dict attributes) noexcept
# Back to an envelope of `length` octets with `count` recipients.
cdef void transaction_forget_recipients(inbound_transaction *self, size_t length, uint32_t count) noexcept
# Room for one more chunk. 0 or -ENOMEM.
cdef int transaction_add_chunk(inbound_transaction *self) noexcept
# Completes the envelope. 0, -ENOMEM or -EINVAL.
cdef int transaction_finish_envelope(inbound_transaction *self, uint64_t received_utc_ms) noexcept
# Frees the memory; pins must have been released or handed on before.
cdef void transaction_free(inbound_transaction *self) noexcept
