# Terms that a client asks for with MAIL, and who is granted them: when the message may go (RFC 4865), by when it should
# (RFC 2852), before what others (RFC 6710), what it solicits (RFC 3865). Their grammar is csrc/smtp/terms.h; what becomes of
# them, queue/terms.pyx.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t
from libc.stdio cimport snprintf
from angarium.inbound.client cimport Client
from angarium.inbound.transaction cimport inbound_transaction, transaction_set_attribute
from angarium.model.clock cimport utc_ms
from angarium.smtp.server_parameters cimport (
    MAIL_DELIVER_BY, MAIL_HOLD_FOR, MAIL_HOLD_UNTIL, MAIL_PRIORITY, MAIL_SOLICIT, mail_parameters,
)
from angarium.smtp.server_session cimport ServerSession
from angarium.spool.cspool cimport (
    SPOOL_ATTRIBUTE_DELIVER_BY, SPOOL_ATTRIBUTE_HOLD_UNTIL, SPOOL_ATTRIBUTE_PRIORITY, SPOOL_ATTRIBUTE_SOLICIT,
)

import datetime

from angarium.smtp import replies

cdef bytes HOLD_TOO_LONG = replies.HOLD_TOO_LONG
cdef bytes HOLD_BEYOND_BY = replies.HOLD_BEYOND_BY
cdef bytes HOLD_IS_PAST = replies.HOLD_IS_PAST
cdef bytes HOLD_NOT_ALLOWED = replies.HOLD_NOT_ALLOWED
cdef bytes PRIORITY_CHANGED = replies.PRIORITY_CHANGED
cdef bytes NO_MEMORY = replies.NO_MEMORY


cdef bytes terms_take(Client client, inbound_transaction *transaction):
    cdef ServerSession session = client.session
    cdef mail_parameters *mail = &session.mail
    cdef char[64] text
    cdef int length, error = 0
    cdef uint64_t now_s = utc_ms() // 1000
    cdef uint64_t until_s
    if mail.flags & (MAIL_HOLD_FOR | MAIL_HOLD_UNTIL):
        until_s = mail.hold_until_utc_s if mail.flags & MAIL_HOLD_UNTIL else now_s + mail.hold_for_s
        if not client.may_relay:
            return HOLD_NOT_ALLOWED
        if until_s < now_s:
            return HOLD_IS_PAST
        # As long as it was offered, or is now where that is longer: a reload refuses nothing of who was offered it.
        if until_s > now_s + max(session.offered.hold_max_s, session.settings.hold_max_s):
            return HOLD_TOO_LONG
        if mail.flags & MAIL_DELIVER_BY and <int64_t>until_s > <int64_t>now_s + mail.by.seconds:
            return HOLD_BEYOND_BY
        if mail.flags & MAIL_HOLD_UNTIL:
            length = snprintf(text, sizeof(text), b"%llu;U", <unsigned long long>until_s)
        else:
            length = snprintf(text, sizeof(text), b"%llu;F%u", <unsigned long long>until_s, <unsigned>mail.hold_for_s)
        error |= transaction_set_attribute(transaction, SPOOL_ATTRIBUTE_HOLD_UNTIL, <uint8_t *>text, length)
    if mail.flags & MAIL_DELIVER_BY:
        length = snprintf(text, sizeof(text), b"%lld;%c%s", <long long>(<int64_t>now_s + mail.by.seconds), <int>mail.by.mode,
                          <const char *>b"T" if mail.by.is_traced else <const char *>b"")
        error |= transaction_set_attribute(transaction, SPOOL_ATTRIBUTE_DELIVER_BY, <uint8_t *>text, length)
    if mail.flags & MAIL_PRIORITY and mail.priority != 0:
        if client.may_relay:
            length = snprintf(text, sizeof(text), b"%d", <int>mail.priority)
            error |= transaction_set_attribute(transaction, SPOOL_ATTRIBUTE_PRIORITY, <uint8_t *>text, length)
        else:
            session.mail_reply = PRIORITY_CHANGED       # RFC 6710 §4.1: who is not trusted has none
    if mail.flags & MAIL_SOLICIT:
        error |= transaction_set_attribute(transaction, SPOOL_ATTRIBUTE_SOLICIT, session.solicit, len(session.solicit))
    return NO_MEMORY if error else None


cdef int future_release_offer(Client client) noexcept:
    cdef ServerSession session = client.session
    cdef uint64_t hold_max_s = session.settings.hold_max_s
    session.future_release = None
    if hold_max_s and (client.may_relay or session.mechanisms is not None):
        latest = datetime.datetime.fromtimestamp(utc_ms() // 1000 + hold_max_s, datetime.UTC)
        session.future_release = b"%d %s" % (hold_max_s, latest.strftime("%Y-%m-%dT%H:%M:%SZ").encode())
    return 0
