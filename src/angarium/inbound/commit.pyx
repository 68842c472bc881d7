# End of data -> spool -> 250: the promise. Nothing else in the code answers 250 to a message.
#
# The envelope op is the commit: its `done` runs after the sync that covers it. A client that is gone by then
# changes nothing: the message is committed, so it is admitted and delivered (RFC 5321 §4.1.1.10, §6.1).
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EDQUOT, ENOMEM, ENOSPC
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen
from angarium.events.journal cimport Journal
from angarium.inbound.client cimport Client
from angarium.inbound.context cimport InboundContext
from angarium.inbound.inquiry cimport inquiry_drop
from angarium.inbound.transaction cimport inbound_transaction, transaction_finish_envelope, transaction_free
from angarium.inbound.verdict cimport VERDICT_PENDING
from angarium.metrics.counters cimport Counter
from angarium.model.clock cimport mono_ms, utc_ms
from angarium.spool.cspool cimport (
    SPOOL_ATTRIBUTE_HOLD_UNTIL, SPOOL_ENVELOPE, spool_attribute, spool_envelope, spool_envelope_next_attribute,
    spool_envelope_next_recipient, spool_envelope_open,
    spool_id_encode, spool_op, spool_recipient, spool_span,
)

from angarium.metrics.counters import counter
from angarium.smtp import replies

cdef Counter messages_total = counter("angarium_in_messages_total", "Messages taken: durable and answered 250.")
cdef Counter octets_total = counter("angarium_in_octets_total", "Octets of messages taken.")
cdef Counter recipients_total = counter("angarium_in_recipients_total", "Recipients of messages taken.")
cdef Counter discarded_total = counter("angarium_in_discarded_total", "Messages answered 250 and dropped, as judges said.")
cdef Counter failed_total = counter("angarium_in_commit_failures_total", "Messages answered 451 or 452 at end of data.")
cdef Counter unheard_total = counter("angarium_in_unheard_total", "Messages taken whose client was gone before the 250.")

cdef enum:
    ATTRIBUTES = 8

# As in the log, by SPOOL_ATTRIBUTE_*.
cdef const char **ATTRIBUTE_NAMES = [b"", b"hold_until", b"deliver_by", b"priority", b"tenant", b"campaign", b"route", b"pool"]

cdef bytes NO_ROOM = replies.NO_ROOM
cdef bytes LOCAL_TROUBLE = replies.LOCAL_TROUBLE
cdef bytes OK_BEFORE_ID = replies.MESSAGE_OK.partition(b"%s")[0]
cdef bytes OK_BEHIND_ID = replies.MESSAGE_OK.partition(b"%s")[2]


cdef void commit_submit(inbound_transaction *self) noexcept:
    cdef InboundContext listener = <InboundContext>self.context
    cdef int error = self.error
    if error == 0 and self.recipient_count == 0:
        commit_discarded(self)
        return
    if error == 0:
        error = -transaction_finish_envelope(self, utc_ms())
    if error != 0:
        commit_failed(self, error)
        return
    self.op.kind = SPOOL_ENVELOPE
    self.op.id = self.id
    self.op.payload = self.envelope
    self.op.done = commit_done
    self.op.context = self
    self.in_flight += 1
    if self.op.body != NULL:
        listener.intake.unsynced_octets += self.op.body.length
    listener.intake.shard.submit(&self.op)


cdef void commit_done(spool_op *op, void *context) noexcept:
    cdef inbound_transaction *self = <inbound_transaction *>context
    cdef InboundContext listener = <InboundContext>self.context
    cdef Client client
    self.in_flight -= 1
    if op.body != NULL:
        listener.intake.unsynced_octets -= op.body.length
    if op.error != 0:
        commit_failed(self, op.error)
        listener.intake.wake_waiting()
        return
    try:
        listener.intake.scheduler.admit(listener.intake.shard, op)
    except BaseException as error:
        # It is on disk, so 250 stays true: recovery finds it at the next start. Somebody must hear of it now.
        listener.intake.shard.has_strangers = True
        listener.intake.loop.call_exception_handler({"message": "a committed message waits for a restart",
                                                     "exception": error})
    messages_total.cell[0] += 1
    octets_total.cell[0] += self.message_octets
    recipients_total.cell[0] += self.recipient_count
    tell_received(listener.intake.journal, self)
    if self.client == NULL:
        unheard_total.cell[0] += 1
        listener.intake.committing -= 1
        transaction_free(self)
        listener.intake.wake_waiting()
        return
    client = <Client>self.client
    answer_queued(client, self.id)
    client.transaction = NULL
    listener.intake.committing -= 1
    transaction_free(self)
    client.resume()
    listener.intake.wake_waiting()


cdef void commit_discarded(inbound_transaction *self) noexcept:
    """Judges took every recipient and put nobody in their place: 250, and the message is nowhere."""
    cdef InboundContext listener = <InboundContext>self.context
    cdef Client client
    cdef uint8_t *reverse_path = self.envelope.data + self.reverse_path_offset
    discarded_total.cell[0] += 1
    listener.intake.committing -= 1
    listener.intake.journal.begin(b"discarded")
    listener.intake.journal.id(b"id", self.id)
    listener.intake.journal.text(b"from", reverse_path, self.reverse_path_length)
    listener.intake.journal.number(b"octets", <int64_t>self.message_octets)
    listener.intake.journal.end()
    if self.client == NULL:
        commit_release(self)
        return
    client = <Client>self.client
    answer_queued(client, self.id)
    client.transaction = NULL
    commit_release(self)
    client.resume()


cdef void answer_queued(Client client, uint64_t message_id) noexcept:
    cdef uint8_t[128] reply
    cdef size_t before = PyBytes_GET_SIZE(OK_BEFORE_ID), behind = PyBytes_GET_SIZE(OK_BEHIND_ID)
    memcpy(reply, PyBytes_AS_STRING(OK_BEFORE_ID), before)
    spool_id_encode(message_id, <char *>reply + before)
    memcpy(reply + before + 13, PyBytes_AS_STRING(OK_BEHIND_ID), behind)
    client.session.finish_with(reply, before + 13 + behind)


cdef void tell_received(Journal journal, inbound_transaction *self) noexcept:
    cdef spool_envelope envelope
    cdef spool_recipient recipient
    cdef const uint8_t *cursor
    cdef spool_attribute attribute
    cdef bytes identity
    if spool_envelope_open(self.envelope.data, self.envelope.length, &envelope) != 0:
        return
    journal.begin(b"received")
    journal.id(b"id", self.id)
    journal.text(b"from", envelope.reverse_path.data, envelope.reverse_path.length)
    journal.texts_begin(b"to")
    cursor = envelope.recipients
    while spool_envelope_next_recipient(&envelope, &cursor, &recipient):
        journal.texts_item(recipient.forward_path.data, recipient.forward_path.length)
    journal.texts_end()
    journal.text(b"client", envelope.client_address.data, envelope.client_address.length)
    journal.text(b"helo", envelope.helo.data, envelope.helo.length)
    journal.number(b"octets", <int64_t>self.message_octets)
    journal.text(b"protocol", <const uint8_t *>self.protocol, strlen(self.protocol))
    if self.tls_version != NULL:
        journal.text(b"tls", <const uint8_t *>self.tls_version, strlen(self.tls_version))
        journal.text(b"cipher", <const uint8_t *>self.tls_cipher, strlen(self.tls_cipher))
    if self.identity != NULL:
        identity = <bytes>self.identity
        journal.text(b"user", <const uint8_t *>PyBytes_AS_STRING(identity), PyBytes_GET_SIZE(identity))
    cursor = envelope.end
    while spool_envelope_next_attribute(&envelope, &cursor, &attribute):
        if attribute.key == SPOOL_ATTRIBUTE_HOLD_UNTIL:
            journal.text(b"hold_until", attribute.text.data, digits(attribute.text))       # what was asked for is for reports
        elif attribute.key < ATTRIBUTES:
            journal.text(ATTRIBUTE_NAMES[attribute.key], attribute.text.data, attribute.text.length)
    if self.forwarded != NULL:
        for key, value in (<dict>self.forwarded).items():
            journal.text(<const char *><bytes>key, <const uint8_t *>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    journal.seconds(b"seconds", mono_ms() - self.started_mono_ms)
    journal.end()


cdef uint32_t digits(spool_span text) noexcept:
    cdef uint32_t i = 0
    while i < text.length and c'0' <= text.data[i] <= c'9':
        i += 1
    return i


cdef void commit_failed(inbound_transaction *self, int error) noexcept:
    cdef InboundContext listener = <InboundContext>self.context
    cdef Client client
    cdef bytes reply = NO_ROOM if error == ENOSPC or error == EDQUOT or error == ENOMEM else LOCAL_TROUBLE
    failed_total.cell[0] += 1
    listener.intake.committing -= 1
    if self.client == NULL:
        commit_release(self)
        return
    client = <Client>self.client
    client.tell_rejected(reply)
    client.transaction = NULL
    client.session.finish_refused(reply)
    commit_release(self)
    client.resume()


cdef void commit_drop(Client client) noexcept:
    cdef inbound_transaction *self = client.transaction
    if self == NULL:
        return
    client.transaction = NULL
    self.client = NULL
    if self.verdict == VERDICT_PENDING and client.inquiry is not None:
        inquiry_drop(client)
    if self.is_ended:
        return                          # commit_done or commit_failed will see to it
    client.context.intake.transaction_ended()
    self.is_dropped = True
    if self.in_flight == 0:
        commit_release(self)


cdef void commit_release(inbound_transaction *self) noexcept:
    cdef uint32_t i
    cdef InboundContext listener = <InboundContext>self.context
    for i in range(self.chunk_count):
        if self.pins[i] != NULL:
            listener.intake.shard.release(self.pins[i], self.chunks[i].length)
    transaction_free(self)
