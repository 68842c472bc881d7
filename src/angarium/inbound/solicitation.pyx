# The header field Solicitation (RFC 3865 §2.5), on listeners with NO-SOLICITING: a message whose sender said nothing with MAIL
# is judged, and passed on, by what its header says (§2.3, §2.7).
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from angarium.inbound.client cimport Client
from angarium.inbound.submitted cimport HEADER_REFUSED
from angarium.inbound.transaction cimport transaction_set_attribute
from angarium.mime.cheader cimport mime_field, mime_field_find, mime_field_is
from angarium.model.octets cimport octets
from angarium.smtp.csmtp cimport smtp_solicit_is_valid, smtp_solicit_meets
from angarium.smtp.server_parameters cimport MAIL_SOLICIT
from angarium.smtp.server_session cimport ServerSession
from angarium.spool.cspool cimport SPOOL_ATTRIBUTE_SOLICIT

from angarium.smtp import replies

cdef enum:
    NAME_OCTETS = 12                # "Solicitation"

cdef bytes NO_MEMORY = replies.NO_MEMORY
# Replies as they were said, by their keywords: a transaction borrows its refusal, and a reload may replace the settings before
# it is said. One for each configuration that this process has had.
cdef dict refusals = {}


cdef void solicitation_look(Client client, const octets *body) noexcept:
    cdef ServerSession session = client.session
    cdef const uint8_t *header = body.data + client.transaction.trace_octets
    cdef size_t length = body.length - client.transaction.trace_octets, at = 0
    cdef bytes unwanted = session.settings.no_soliciting, keywords
    cdef mime_field field
    # Behind a line that is no field, too: many readers find it there.
    while mime_field_find(header, length, &at, &field):
        if not mime_field_is(header, &field, <const uint8_t *>b"Solicitation", NAME_OCTETS):
            continue
        # Read leniently: folded, or with white space behind the commas, it is meant all the same.
        keywords = header[field.value:field.end]
        keywords = b"".join(keywords.split())
        if not smtp_solicit_is_valid(<const uint8_t *>PyBytes_AS_STRING(keywords), PyBytes_GET_SIZE(keywords)):
            continue
        if smtp_solicit_meets(<const uint8_t *>PyBytes_AS_STRING(keywords), PyBytes_GET_SIZE(keywords),
                              <const uint8_t *>PyBytes_AS_STRING(unwanted), PyBytes_GET_SIZE(unwanted)):
            refuse(client, refusals.setdefault(unwanted, session.settings.solicitation_reply))
            return
        # Of several fields the last: they had to be one (RFC 5322 §3.6 knows no field of that name twice).
        if not session.mail.flags & MAIL_SOLICIT and transaction_set_attribute(
                client.transaction, SPOOL_ATTRIBUTE_SOLICIT, <const uint8_t *>PyBytes_AS_STRING(keywords),
                PyBytes_GET_SIZE(keywords)) != 0:
            refuse(client, NO_MEMORY)
            return


cdef void refuse(Client client, bytes reply) noexcept:
    client.transaction.header = HEADER_REFUSED
    client.transaction.header_refusal = <void *>reply
