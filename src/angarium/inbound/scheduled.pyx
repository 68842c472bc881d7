# A header field that says when a message is to be sent, on listeners that look for one: it becomes what HOLDUNTIL is (RFC 4865),
# and is taken out. Of clients that may not relay it means nothing, and stays: their mail is passed on as it came.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.stdio cimport snprintf
from libc.string cimport memmove
from angarium.inbound.client cimport Client
from angarium.inbound.submitted cimport HEADER_REFUSED
from angarium.inbound.transaction cimport transaction_set_attribute
from angarium.mime.cheader cimport (
    MIME_HEADER_BODY, MIME_HEADER_OPEN, mime_field, mime_field_is, mime_field_next, mime_header_end, mime_header_find_end,
)
from angarium.model.clock cimport utc_ms
from angarium.model.octets cimport octets
from angarium.smtp.server_parameters cimport MAIL_DELIVER_BY, MAIL_HOLD_FOR, MAIL_HOLD_UNTIL, mail_parameters
from angarium.smtp.server_session cimport ServerSession
from angarium.spool.cspool cimport SPOOL_ATTRIBUTE_HOLD_UNTIL

from angarium.inbound.send_time import moment_of
from angarium.smtp import replies

cdef bytes HEADER_TOO_BIG = replies.HEADER_TOO_BIG
cdef bytes HOLD_FIELD_UNSEEN = replies.HOLD_FIELD_UNSEEN
cdef bytes HOLD_FIELD_UNREADABLE = replies.HOLD_FIELD_UNREADABLE
cdef bytes HOLD_FIELD_TWICE = replies.HOLD_FIELD_TWICE
cdef bytes HOLD_FIELD_TOO_LATE = replies.HOLD_FIELD_TOO_LATE
cdef bytes HOLD_FIELD_BEYOND_BY = replies.HOLD_FIELD_BEYOND_BY
cdef bytes LOCAL_TROUBLE = replies.LOCAL_TROUBLE
cdef bytes NO_MEMORY = replies.NO_MEMORY


cdef void scheduled_take(Client client, octets *body, bint is_last) noexcept:
    cdef uint8_t *header = body.data + client.transaction.trace_octets
    cdef size_t length = body.length - client.transaction.trace_octets, end, at = 0
    cdef bytes name = client.context.hold_field
    cdef mime_header_end how
    cdef mime_field field, found
    cdef int count = 0
    cdef bytes refusal
    if not client.may_relay:
        return
    how = mime_header_find_end(header, length, &end)
    if how == MIME_HEADER_OPEN and not is_last:
        refuse(client, HEADER_TOO_BIG)          # the field may be further down: it must not go early
        return
    if how == MIME_HEADER_BODY or (how == MIME_HEADER_OPEN and end < length):
        refuse(client, HOLD_FIELD_UNSEEN)       # likewise
        return
    while mime_field_next(header, end, &at, &field):
        if mime_field_is(header, &field, <const uint8_t *>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name)):
            found = field
            count += 1
    if count == 0:
        return
    try:
        refusal = HOLD_FIELD_TWICE if count > 1 else hold(client, header + found.value, found.end - found.value)
    except Exception as error:
        client.context.intake.journal.log("error", where="time of sending", reason=repr(error))
        refusal = LOCAL_TROUBLE
    if refusal is not None:
        refuse(client, refusal)
        return
    memmove(header + found.start, header + found.end, length - found.end)
    body.length -= found.end - found.start


cdef bytes hold(Client client, const uint8_t *value, size_t length):
    """Sets what the field asks for: None, or the reply that refuses it."""
    cdef ServerSession session = client.session
    cdef mail_parameters *mail = &session.mail
    cdef char[24] text
    cdef int64_t now_s = <int64_t>(utc_ms() // 1000)
    cdef int64_t until_s
    cdef int written
    if mail.flags & (MAIL_HOLD_FOR | MAIL_HOLD_UNTIL):
        return HOLD_FIELD_TWICE
    try:
        until_s = moment_of(value[:length])
    except (ValueError, OverflowError):
        return HOLD_FIELD_UNREADABLE
    if until_s > now_s + <int64_t>session.settings.hold_max_s:
        return HOLD_FIELD_TOO_LATE
    if mail.flags & MAIL_DELIVER_BY and until_s > now_s + mail.by.seconds:
        return HOLD_FIELD_BEYOND_BY
    if until_s <= now_s:
        return None                             # a client that was kept waiting comes late: its mail goes now
    written = snprintf(text, sizeof(text), b"%lld", <long long>until_s)
    if transaction_set_attribute(client.transaction, SPOOL_ATTRIBUTE_HOLD_UNTIL, <uint8_t *>text, written) != 0:
        return NO_MEMORY
    return None


cdef void refuse(Client client, bytes reply) noexcept:
    # Borrowed: replies are there as long as the process is.
    client.transaction.header = HEADER_REFUSED
    client.transaction.header_refusal = <void *>reply
