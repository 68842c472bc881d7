# RCPT: may this client send to this recipient through us? Denied unless the client's network or
# identity or the recipient's domain says yes, decided on the forward-path as it will be stored (after <Postmaster> got its domain).
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy
from angarium.admission.tallies cimport TALLY_RECIPIENTS
from angarium.inbound.client cimport Client
from angarium.inbound.inquiry cimport inquire
from angarium.inbound.limits cimport limits_one_more, limits_over
from angarium.inbound.transaction cimport (
    inbound_transaction, transaction_add_recipient, transaction_forget_recipients, transaction_has_recipient,
    transaction_set_attributes,
)
from angarium.model.clock cimport mono_ms
from angarium.queue.message cimport NOTIFY_EXPANDED
from angarium.smtp.server_session cimport ServerSession

from angarium.inbound.judgement import NewRecipient, RcptCase
from angarium.model.refusal import Refusal
from angarium.smtp import replies

cdef bytes RELAY_DENIED = replies.RELAY_DENIED
cdef object RELAYING = Refusal(reply=replies.RELAY_DENIED, reason="relay-denied")
cdef bytes LOCAL_PART_ROUTES = replies.LOCAL_PART_ROUTES
cdef bytes LOCAL_TROUBLE = replies.LOCAL_TROUBLE
cdef bytes NO_MEMORY = replies.NO_MEMORY
cdef bytes TOO_MANY_RECIPIENTS = replies.TOO_MANY_RECIPIENTS

cdef enum:
    POSTMASTER_OCTETS = 10 + 1 + 255
    RECIPIENTS_MAX = 100000             # of one message, what aliases make of them included; as many as max_recipients may say


cdef void proceed_rcpt(Client client) noexcept:
    cdef ServerSession session = client.session
    cdef const uint8_t *path = session.path
    cdef uint32_t length = session.path_length, domain_offset = session.domain_offset
    cdef uint8_t[POSTMASTER_OCTETS] postmaster
    cdef bytes hostname = client.context.settings.hostname
    cdef bint is_ours = False               # from anybody (RFC 5321 §4.5.1)
    if domain_offset == length:             # RFC 5321 §4.1.1.3: <Postmaster> is ours
        is_ours = client.context.intake.has_postmaster
        memcpy(postmaster, path, length)
        postmaster[length] = c'@'
        memcpy(postmaster + length + 1, PyBytes_AS_STRING(hostname), PyBytes_GET_SIZE(hostname))
        path = postmaster
        domain_offset = length + 1
        length = domain_offset + <uint32_t>PyBytes_GET_SIZE(hostname)
    if not client.may_relay and not is_ours and not client.context.is_relay_domain(path + domain_offset, length - domain_offset):
        deny(client, path, length)
    elif not client.may_relay and local_part_routes(path, domain_offset - 1):
        refuse(client, path, length, LOCAL_PART_ROUTES)
    elif client.rights is not None and (reply := refusal(client)) is not None:
        refuse(client, path, length, reply)
    elif client.counted is not None and (reply := limits_over(client, TALLY_RECIPIENTS)) is not None:
        refuse(client, path, length, reply)
    elif client.context.judges is not None and (judges := judges_of(client)):
        inquire(client, judges, case_of(client, path[:length]), judged)
    elif (reply := limits_one_more(client, TALLY_RECIPIENTS)) is not None:
        refuse(client, path, length, reply)
    elif transaction_add_recipient(client.transaction, path, length, domain_offset, session.rcpt.orcpt,
                                   session.rcpt.orcpt_length, session.rcpt.notify) != 0:
        refuse(client, path, length, NO_MEMORY)
    else:
        session.accept()


cdef bint local_part_routes(const uint8_t *local_part, size_t length) noexcept:
    """Whether the host behind might send it on to elsewhere, sendmail's and UUCP's way, or take it for a file or a command."""
    cdef size_t i, first = 0
    # Whoever takes the quotes off takes these off, too: a backslash before "|" hides nothing (RFC 5321 §4.1.2, quoted-pairSMTP).
    while first + 1 < length and (local_part[first] == c'"' or local_part[first] == c'\\' or local_part[first] == c' '):
        first += 1
    if local_part[first] == c'/' or local_part[first] == c'|':
        return True
    for i in range(length):
        if local_part[i] == c'%' or local_part[i] == c'!' or local_part[i] == c'@':
            return True
    return False


cdef tuple judges_of(Client client):
    """Who has let a client in is not asked again for a while."""
    if client.let_in_until_ms and mono_ms() < client.let_in_until_ms:
        return client.context.rcpt_judges
    return client.context.entry_judges


cdef object case_of(Client client, bytes forward_path):
    cdef ServerSession session = client.session
    cdef inbound_transaction *transaction = client.transaction
    cdef const uint8_t *reverse_path = transaction.envelope.data + transaction.reverse_path_offset
    return RcptCase(client, reverse_path[:transaction.reverse_path_length], forward_path,
                    session.rcpt.orcpt[:session.rcpt.orcpt_length], session.rcpt.notify,
                    transaction.recipient_count)


cdef void judged(Client client, object case, object refusal) noexcept:
    cdef bytes forward_path = case.forward_path
    cdef const uint8_t *path = <const uint8_t *>PyBytes_AS_STRING(forward_path)
    cdef bytes reply = None
    cdef inbound_transaction *transaction = client.transaction
    cdef size_t before = transaction.envelope.length
    cdef uint32_t count_before = transaction.recipient_count
    if refusal is not None:
        refuse_as(client, path, <uint32_t>PyBytes_GET_SIZE(forward_path), refusal)
        client.resume()
        return
    try:
        reply = add_all(transaction, case)
    except Exception as error:
        client.context.intake.journal.log("error", where="recipients", reason=repr(error))
        reply = LOCAL_TROUBLE
    if reply is None:
        reply = limits_one_more(client, TALLY_RECIPIENTS)
    if reply is not None:
        # Whoever is answered no comes again: nobody of this RCPT may be left in the envelope, or gets the mail twice.
        transaction_forget_recipients(transaction, before, count_before)
        refuse(client, path, <uint32_t>PyBytes_GET_SIZE(forward_path), reply)
    else:
        client.session.accept()
    client.resume()


cdef bytes add_all(inbound_transaction *transaction, object case):
    """Adds the recipients that judges made of one. None, or why not: some may have been added then."""
    cdef bytes path, orcpt
    recipients = case.recipients
    if recipients is None:
        recipients = (NewRecipient(case.forward_path, case.orcpt, case.notify),)
    if transaction.recipient_count + len(recipients) > RECIPIENTS_MAX:
        return TOO_MANY_RECIPIENTS
    for each in recipients:
        path, orcpt = each.forward_path, each.orcpt
        # Two aliases with a member in common, or two reasons for one copy: one message is enough.
        if not each.notify & NOTIFY_EXPANDED and transaction_has_recipient(
                transaction, <const uint8_t *>PyBytes_AS_STRING(path), PyBytes_GET_SIZE(path)):
            continue
        if transaction_add_recipient(
                transaction, <const uint8_t *>PyBytes_AS_STRING(path), PyBytes_GET_SIZE(path), path.rfind(b"@") + 1,
                <const uint8_t *>PyBytes_AS_STRING(orcpt), PyBytes_GET_SIZE(orcpt), each.notify) != 0:
            return NO_MEMORY
    if case.attributes and transaction_set_attributes(transaction, case.attributes) != 0:
        return NO_MEMORY
    return None


cdef bytes refusal(Client client):
    """What the identity's quota says against one more, or None."""
    try:
        return client.rights.refuses_rcpt()
    except Exception as error:
        client.context.intake.journal.log("error", where="rights", reason=repr(error))
        return LOCAL_TROUBLE


cdef void deny(Client client, const uint8_t *path, uint32_t length) noexcept:
    """No relaying; or what a policy service wants to be said instead (access(5), DEFER_IF_REJECT)."""
    cdef object instead = RELAYING
    try:
        if client.visit is not None:
            instead = client.visit.in_place_of(RELAYING)
    except Exception as error:
        client.context.intake.journal.log("error", where="policy", reason=repr(error))
    if instead is RELAYING:
        refuse(client, path, length, RELAY_DENIED)
    else:
        refuse_as(client, path, length, instead)


cdef void refuse_as(Client client, const uint8_t *path, uint32_t length, object refusal) noexcept:
    """With a reply and a reason of somebody else's."""
    cdef bytes reply = refusal.reply
    cdef bytes said = client.session.count_refused_rcpt(reply)
    if said is reply:
        client.tell_refusal(path, length, refusal)
    else:
        client.tell_rejected_path(path, length, said)
    client.session.refuse(said)


cdef void refuse(Client client, const uint8_t *path, uint32_t length, bytes reply) noexcept:
    reply = client.session.count_refused_rcpt(reply)
    client.tell_rejected_path(path, length, reply)
    client.session.refuse(reply)
