# The memory of a transaction and its envelope; policy and commit are elsewhere.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport PyObject, Py_XDECREF
from libc.errno cimport ENOMEM
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memmove
from angarium.model.octets cimport octets, octets_append, octets_new, octets_unref
from angarium.queue.message cimport NOTIFY_EXPANDED
from angarium.spool.cspool cimport (
    spool_chunk, spool_envelope_add_attribute, spool_envelope_add_recipient, spool_envelope_begin, spool_envelope_cut, spool_envelope_finish, spool_envelope_has_recipient, spool_segment, spool_span,
)

cdef enum:
    # Fixed part, five short texts, one recipient: most envelopes never move.
    FIRST_ENVELOPE_OCTETS = 256
    # Postfix' duplicate_filter_limit: a look at each of a thousand takes some microseconds.
    DUPLICATES_LIMIT = 1000


cdef inline spool_span span(const uint8_t *data, size_t length) noexcept:
    cdef spool_span result
    result.data = data
    result.length = <uint32_t>length
    return result


cdef inbound_transaction *transaction_new(const uint8_t *reverse_path, size_t reverse_path_length,
                                          const uint8_t *envid, size_t envid_length,
                                          const uint8_t *helo, size_t helo_length,
                                          const uint8_t *address, size_t address_length,
                                          const uint8_t *listener, size_t listener_length) noexcept:
    cdef inbound_transaction *self = <inbound_transaction *>calloc(1, sizeof(inbound_transaction))
    if self == NULL:
        return NULL
    self.envelope = octets_new(FIRST_ENVELOPE_OCTETS)
    if self.envelope == NULL or spool_envelope_begin(
            &self.envelope, span(reverse_path, reverse_path_length), span(envid, envid_length),
            span(helo, helo_length), span(address, address_length), span(listener, listener_length)) != 0:
        transaction_free(self)
        return NULL
    self.recipients_offset = <uint32_t>self.envelope.length
    # The texts stand at the end of what begin wrote, this one first (csrc/spool/envelope.c).
    self.reverse_path_length = <uint32_t>reverse_path_length
    self.reverse_path_offset = <uint32_t>(self.envelope.length - reverse_path_length - envid_length - helo_length
                                          - address_length - listener_length)
    return self


cdef int transaction_add_recipient(inbound_transaction *self, const uint8_t *forward_path, size_t forward_path_length,
                                   uint32_t domain_offset, const uint8_t *orcpt, size_t orcpt_length,
                                   uint8_t notify) noexcept:
    cdef int result = spool_envelope_add_recipient(&self.envelope, span(forward_path, forward_path_length),
                                                   domain_offset, span(orcpt, orcpt_length), notify)
    if result == 0:
        if self.recipient_count == 0:
            self.first_path_length = <uint32_t>forward_path_length
            self.first_path_offset = <uint32_t>(self.envelope.length - orcpt_length - forward_path_length)
        self.recipient_count += 1
    return result


cdef bint transaction_has_recipient(inbound_transaction *self, const uint8_t *forward_path, size_t length) noexcept:
    return spool_envelope_has_recipient(self.envelope, span(forward_path, length), NOTIFY_EXPANDED, DUPLICATES_LIMIT)


cdef struct entry:                  # of self.attributes; its text follows
    uint32_t length
    uint16_t key


cdef int transaction_set_attribute(inbound_transaction *self, uint16_t key, const uint8_t *text, size_t length) noexcept:
    cdef entry head
    cdef octets *block = self.attributes
    cdef size_t at = 0, size
    while block != NULL and at < block.length:
        memcpy(&head, block.data + at, sizeof(entry))
        size = sizeof(entry) + head.length
        if head.key == key:
            memmove(block.data + at, block.data + at + size, block.length - at - size)
            block.length -= size
            break
        at += size
    if block == NULL:
        self.attributes = octets_new(64)
        if self.attributes == NULL:
            return -ENOMEM
    head.key = key
    head.length = <uint32_t>length
    if octets_append(&self.attributes, <const uint8_t *>&head, sizeof(entry)) != 0:
        return -ENOMEM
    if octets_append(&self.attributes, text, length) != 0:
        self.attributes.length -= sizeof(entry)
        return -ENOMEM
    return 0


cdef int transaction_set_attributes(inbound_transaction *self, dict attributes) noexcept:
    cdef int error = 0
    cdef bytes text
    for key, text in attributes.items():
        error = transaction_set_attribute(self, key, <const uint8_t *>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        if error != 0:
            break
    return error


cdef void transaction_forget_recipients(inbound_transaction *self, size_t length, uint32_t count) noexcept:
    spool_envelope_cut(self.envelope, length, count)
    self.recipient_count = count


cdef int add_attributes(inbound_transaction *self) noexcept:
    cdef entry head
    cdef size_t at = 0
    cdef int error = 0
    while error == 0 and at < self.attributes.length:
        memcpy(&head, self.attributes.data + at, sizeof(entry))
        at += sizeof(entry)
        error = spool_envelope_add_attribute(&self.envelope, head.key, span(self.attributes.data + at, head.length))
        at += head.length
    return error


cdef int transaction_add_chunk(inbound_transaction *self) noexcept:
    cdef uint32_t capacity
    cdef void *chunks
    cdef void *pins
    if self.chunk_count < self.chunk_capacity:
        return 0
    capacity = self.chunk_capacity * 2 if self.chunk_capacity else 8
    chunks = realloc(self.chunks, capacity * sizeof(spool_chunk))
    if chunks == NULL:
        return -ENOMEM
    self.chunks = <spool_chunk *>chunks
    pins = realloc(self.pins, capacity * sizeof(spool_segment *))
    if pins == NULL:
        return -ENOMEM
    self.pins = <spool_segment **>pins
    self.chunk_capacity = capacity
    return 0


cdef int transaction_finish_envelope(inbound_transaction *self, uint64_t received_utc_ms) noexcept:
    cdef int error
    if self.attributes != NULL:
        error = add_attributes(self)
        if error != 0:
            return error
    return spool_envelope_finish(&self.envelope, self.id, received_utc_ms, self.flags, self.message_octets,
                                 self.chunks, self.chunk_count)


cdef void transaction_free(inbound_transaction *self) noexcept:
    octets_unref(self.envelope)
    octets_unref(self.attributes)
    octets_unref(self.op.body)
    free(self.chunks)
    free(self.pins)
    Py_XDECREF(<PyObject *>self.context)
    Py_XDECREF(<PyObject *>self.identity)
    Py_XDECREF(<PyObject *>self.refusal)
    Py_XDECREF(<PyObject *>self.forwarded)
    free(self)
