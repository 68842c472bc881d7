# RCPT: may this client send to this recipient through us? Denied unless the client's network or
# identity or the recipient's domain says yes, decided on the forward-path as it will be stored (after <Postmaster> got its domain).
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy
from angarium.inbound.client cimport Client
from angarium.inbound.transaction cimport transaction_add_recipient
from angarium.smtp.server_session cimport ServerSession

from angarium.smtp import replies

cdef bytes RELAY_DENIED = replies.RELAY_DENIED
cdef bytes LOCAL_TROUBLE = replies.LOCAL_TROUBLE
cdef bytes NO_MEMORY = replies.NO_MEMORY

cdef enum:
    POSTMASTER_OCTETS = 10 + 1 + 255


cdef void proceed_rcpt(Client client) noexcept:
    cdef ServerSession session = client.session
    cdef const uint8_t *path = session.path
    cdef uint32_t length = session.path_length, domain_offset = session.domain_offset
    cdef uint8_t[POSTMASTER_OCTETS] postmaster
    cdef bytes hostname = client.context.settings.hostname
    if domain_offset == length:             # RFC 5321 §4.1.1.3: <Postmaster> is ours
        memcpy(postmaster, path, length)
        postmaster[length] = c'@'
        memcpy(postmaster + length + 1, PyBytes_AS_STRING(hostname), PyBytes_GET_SIZE(hostname))
        path = postmaster
        domain_offset = length + 1
        length = domain_offset + <uint32_t>PyBytes_GET_SIZE(hostname)
    if not client.may_relay and not client.context.is_relay_domain(path + domain_offset, length - domain_offset):
        refuse(client, path, length, RELAY_DENIED)
    elif client.rights is not None and (reply := refusal(client)) is not None:
        refuse(client, path, length, reply)
    elif transaction_add_recipient(client.transaction, path, length, domain_offset, session.rcpt.orcpt,
                                   session.rcpt.orcpt_length, session.rcpt.notify) != 0:
        refuse(client, path, length, NO_MEMORY)
    else:
        session.accept()


cdef bytes refusal(Client client):
    """What the identity's quota says against one more, or None."""
    try:
        return client.rights.refuses_rcpt()
    except Exception as error:
        client.context.intake.journal.log("error", where="rights", reason=repr(error))
        return LOCAL_TROUBLE


cdef void refuse(Client client, const uint8_t *path, uint32_t length, bytes reply) noexcept:
    client.tell_rejected_path(path, length, reply)
    client.session.refuse(reply)
