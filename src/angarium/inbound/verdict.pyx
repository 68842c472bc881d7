# The judges of messages: when they are asked, and what they decided, carried out: fields of the header section, recipients,
# attributes. They see a message once: when all of it is there, or the first run of one that is streamed, which is kept back
# for that. When that is, and what happens next, is data.pyx's.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memmove
from angarium.inbound.client cimport Client
from angarium.inbound.data cimport finish_message
from angarium.inbound.inquiry cimport inquire
from angarium.inbound.transaction cimport (
    inbound_transaction, transaction_add_recipient, transaction_forget_recipients, transaction_set_attributes,
)
from angarium.model.octets cimport octets, octets_reserve
from angarium.smtp.server_session cimport ServerSession
from angarium.spool.cspool cimport SPOOL_ENVELOPE_8BIT, SPOOL_ENVELOPE_SMTPUTF8

from angarium.inbound.judgement import MessageCase
from angarium.model.refusal import Refusal
from angarium.smtp import replies

cdef object FAILED = Refusal(reply=replies.LOCAL_TROUBLE, reason="judge-failed")

cdef enum:
    RECIPIENTS_MAX = 100000             # as rcpt.pyx


cdef uint8_t message_verdict(Client client, bint is_whole) noexcept:
    cdef inbound_transaction *transaction = client.transaction
    if transaction.verdict == VERDICT_NONE:
        transaction.verdict = VERDICT_PENDING
        transaction.is_asking = True
        try:
            inquire(client, client.context.judges.message, case_of(client, is_whole), conclude)
        except Exception as error:
            fail(client, error)
        transaction.is_asking = False
    return transaction.verdict


cdef object case_of(Client client, bint is_whole):
    cdef inbound_transaction *transaction = client.transaction
    cdef octets *body = client.session.message.body
    cdef const uint8_t *reverse_path = transaction.envelope.data + transaction.reverse_path_offset
    cdef size_t trace = transaction.trace_octets
    return MessageCase(
        client, transaction.id, reverse_path[:transaction.reverse_path_length],
        trace=PyBytes_FromStringAndSize(<const char *>body.data, trace),
        content=PyBytes_FromStringAndSize(<const char *>body.data + trace, body.length - trace),
        is_whole=is_whole, is_smtputf8=bool(transaction.flags & SPOOL_ENVELOPE_SMTPUTF8))


cdef void conclude(Client client, object case, object refusal) noexcept:
    cdef inbound_transaction *transaction = client.transaction
    if refusal is not None:
        refuse(transaction, refusal)
    else:
        try:
            apply(client, case)
        except Exception as error:
            fail(client, error)
    if transaction.is_asking:
        return                              # answered at once: message_verdict() returns it
    if transaction.awaits_verdict:
        finish_message(client)
    client.resume()


cdef void refuse(inbound_transaction *transaction, object refusal) noexcept:
    Py_INCREF(refusal)                      # given back by transaction_free()
    transaction.refusal = <void *>refusal
    transaction.verdict = VERDICT_REFUSED


cdef void fail(Client client, object error) noexcept:
    client.context.intake.journal.log("error", where="message", reason=repr(error))
    refuse(client.transaction, FAILED)


cdef int apply(Client client, object case) except -1:
    cdef inbound_transaction *transaction = client.transaction
    cdef bytes header
    if case.attributes and transaction_set_attributes(transaction, case.attributes) != 0:
        raise MemoryError
    if case.recipients is not None:
        replace_recipients(transaction, case.recipients)
    if case.fields and transaction.recipient_count:
        header = case.new_header()
        replace_start(&client.session.message.body, transaction.trace_octets + <size_t>case.header_octets, header)
        if not header.isascii():
            transaction.flags |= SPOOL_ENVELOPE_8BIT
    transaction.verdict = VERDICT_KEPT if transaction.recipient_count else VERDICT_DISCARDED
    return 0


cdef int replace_recipients(inbound_transaction *transaction, list recipients) except -1:
    cdef bytes path, orcpt
    if len(recipients) > RECIPIENTS_MAX:
        raise ValueError(f"{len(recipients)} recipients")
    transaction_forget_recipients(transaction, transaction.recipients_offset, 0)
    for each in recipients:
        path, orcpt = each.forward_path, each.orcpt
        if transaction_add_recipient(
                transaction, <const uint8_t *>PyBytes_AS_STRING(path), PyBytes_GET_SIZE(path), path.rfind(b"@") + 1,
                <const uint8_t *>PyBytes_AS_STRING(orcpt), PyBytes_GET_SIZE(orcpt), each.notify) != 0:
            raise MemoryError
    return 0


cdef int replace_start(octets **body, size_t before, bytes start) except -1:
    """The first `before` octets become `start`; what is behind them moves and stays as it is."""
    cdef size_t now = PyBytes_GET_SIZE(start)
    if before > body[0].length:
        raise ValueError("a header section longer than its message")
    if now > before and octets_reserve(body, now - before) != 0:
        raise MemoryError
    memmove(body[0].data + now, body[0].data + before, body[0].length - before)
    memcpy(body[0].data, PyBytes_AS_STRING(start), now)
    body[0].length = body[0].length - before + now
    return 0
