# MAIL: may this identity, is there room, and where the transaction begins. Syntax and order were checked by the session.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint8_t, uint32_t
from angarium.admission.tallies cimport TALLY_MESSAGES
from angarium.inbound.client cimport Client
from angarium.inbound.commit cimport commit_drop
from angarium.inbound.context cimport Intake
from angarium.inbound.inquiry cimport inquire
from angarium.inbound.limits cimport limits_one_more, limits_over
from angarium.inbound.terms cimport terms_take
from angarium.inbound.transaction cimport inbound_transaction, transaction_new, transaction_set_attributes
from angarium.inbound.transmission cimport lmtp_transmission_type, transmission_type
from angarium.model.clock cimport mono_ms
from angarium.smtp.server_parameters cimport (
    MAIL_BODY_8BITMIME, MAIL_BODY_BINARYMIME, MAIL_REQUIRETLS, MAIL_RET_FULL, MAIL_RET_HDRS, MAIL_SMTPUTF8, MAIL_TERMS,
)
from angarium.smtp.server_session cimport ServerSession
from angarium.spool.cspool cimport (
    SPOOL_ENVELOPE_BINARYMIME, SPOOL_ENVELOPE_BODY_8BITMIME, SPOOL_ENVELOPE_REQUIRETLS, SPOOL_ENVELOPE_RET_FULL,
    SPOOL_ENVELOPE_RET_HDRS,
    SPOOL_ENVELOPE_SMTPUTF8,
)

from angarium.inbound.judgement import MailCase
from angarium.smtp import replies

cdef bytes NO_ROOM = replies.NO_ROOM
cdef bytes QUEUE_FULL = replies.QUEUE_FULL
cdef bytes LOCAL_TROUBLE = replies.LOCAL_TROUBLE
cdef bytes NO_MEMORY = replies.NO_MEMORY


cdef void proceed_mail(Client client) noexcept:
    cdef ServerSession session = client.session
    # What would be refused below anyway is refused before anybody is asked; it is taken when nothing else says no.
    if client.rights is not None and (reply := refusal(client)) is not None:
        refuse(client, reply)
        return
    if client.counted is not None and (reply := limits_over(client, TALLY_MESSAGES)) is not None:
        refuse(client, reply)
        return
    if client.context.intake.slowness is not None:
        judges = () if client.context.judges is None else client.context.judges.mail
        inquire(client, (*judges, client.context.intake.slowness), case_of(client), judged)
    elif client.context.judges is not None and client.context.judges.mail:
        inquire(client, client.context.judges.mail, case_of(client), judged)
    else:
        begin(client, None)


cdef object case_of(Client client):
    cdef ServerSession session = client.session
    return MailCase(client, session.path[:session.path_length], session.mail.envid[:session.mail.envid_length],
                    session.mail.announced_octets, bool(session.mail.flags & MAIL_SMTPUTF8))


cdef void judged(Client client, object case, object refusal) noexcept:
    cdef ServerSession session = client.session
    cdef bytes reverse_path = case.reverse_path, envid = case.envid
    if refusal is not None:
        client.tell_refusal(NULL, 0, refusal)
        session.refuse(refusal.reply)
    else:
        session.path = <const uint8_t *>PyBytes_AS_STRING(reverse_path)     # the line itself is gone
        session.path_length = <uint32_t>PyBytes_GET_SIZE(reverse_path)
        session.mail.envid = <const uint8_t *>PyBytes_AS_STRING(envid)
        begin(client, case.attributes)
    client.resume()


cdef void begin(Client client, dict attributes) noexcept:
    cdef ServerSession session = client.session
    cdef Intake intake = client.context.intake
    cdef inbound_transaction *transaction
    if not intake.shard.has_room() or intake.is_overloaded() or intake.is_spool_low:
        refuse(client, NO_ROOM)
        return
    if intake.is_queue_full:
        refuse(client, QUEUE_FULL)
        return
    transaction = transaction_new(
        session.path, session.path_length, session.mail.envid, session.mail.envid_length,
        <const uint8_t *>PyBytes_AS_STRING(session.helo), PyBytes_GET_SIZE(session.helo),
        <const uint8_t *>client.address, client.address_length,
        <const uint8_t *>PyBytes_AS_STRING(client.context.name), PyBytes_GET_SIZE(client.context.name))
    if transaction == NULL:
        refuse(client, NO_MEMORY)
        return
    Py_INCREF(client.context)               # given back by transaction_free()
    transaction.context = <void *>client.context
    transaction.client = <void *>client
    transaction.started_mono_ms = mono_ms()
    transaction.announced_octets = session.mail.announced_octets
    if session.settings.is_lmtp:
        transaction.protocol = lmtp_transmission_type(session.mail.flags & MAIL_SMTPUTF8, session.is_tls,
                                                      session.identity is not None)
    else:
        transaction.protocol = transmission_type(session.is_ehlo, session.mail.flags & MAIL_SMTPUTF8,
                                                 session.is_tls, session.identity is not None)
    if client.tls is not None:
        transaction.tls_version = client.tls.version_text()
        transaction.tls_cipher = client.tls.cipher_text()
    if client.forwarded is not None:
        Py_INCREF(client.forwarded)         # likewise; it holds for one transaction (XFORWARD_README)
        transaction.forwarded = <void *>client.forwarded
        client.forwarded = None
    if session.identity is not None:
        Py_INCREF(session.identity)         # likewise
        transaction.identity = <void *>session.identity
    if session.mail.flags & MAIL_BODY_8BITMIME:
        transaction.flags |= SPOOL_ENVELOPE_BODY_8BITMIME
    if session.mail.flags & MAIL_SMTPUTF8:
        transaction.flags |= SPOOL_ENVELOPE_SMTPUTF8
    if session.mail.flags & MAIL_REQUIRETLS:
        transaction.flags |= SPOOL_ENVELOPE_REQUIRETLS
    if session.mail.flags & MAIL_RET_FULL:
        transaction.flags |= SPOOL_ENVELOPE_RET_FULL
    if session.mail.flags & MAIL_RET_HDRS:
        transaction.flags |= SPOOL_ENVELOPE_RET_HDRS
    if session.mail.flags & MAIL_BODY_BINARYMIME:
        transaction.flags |= SPOOL_ENVELOPE_BINARYMIME
    client.transaction = transaction
    intake.transaction_began()
    if session.mail.flags & MAIL_TERMS:
        reply = terms_take(client, transaction)
        if reply is not None:
            refuse(client, reply)
            commit_drop(client)
            return
    if attributes and transaction_set_attributes(transaction, attributes) != 0:
        refuse(client, NO_MEMORY)
        commit_drop(client)
        return
    if (reply := limits_one_more(client, TALLY_MESSAGES)) is not None:
        refuse(client, reply)
        commit_drop(client)
        return
    session.accept()


cdef bytes refusal(Client client):
    """What the identity's rights say against it, or None."""
    cdef ServerSession session = client.session
    try:
        return client.rights.refuses_mail(PyBytes_FromStringAndSize(<const char *>session.path, session.path_length)
                                          if session.path_length else b"")
    except Exception as error:
        client.context.intake.journal.log("error", where="rights", reason=repr(error))
        return LOCAL_TROUBLE


cdef void refuse(Client client, bytes reply) noexcept:
    client.tell_rejected(reply)
    client.session.refuse(reply)
