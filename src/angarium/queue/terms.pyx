# What the attributes of an envelope ask of the queue: not before (RFC 4865), by when (RFC 2852), before what others
# (RFC 6710). Values were judged when the message came in; what a later version or a hand wrote is read with care.
from libc.stdint cimport int8_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset
from angarium.queue.message cimport message
from angarium.spool.cspool cimport (
    SPOOL_ATTRIBUTE_DELIVER_BY, SPOOL_ATTRIBUTE_HOLD_UNTIL, SPOOL_ATTRIBUTE_PRIORITY, SPOOL_ATTRIBUTE_SOLICIT, SPOOL_ATTRIBUTE_TENANT,
    spool_attribute, spool_envelope, spool_envelope_next_attribute, spool_envelope_open, spool_span,
)

cdef enum:
    DIGITS_LIMIT = 15                   # a time in seconds that fits twice over


cdef uint32_t number(spool_span text, uint64_t *out) noexcept:
    """Digits at the start of text; how many."""
    cdef uint32_t i = 0
    out[0] = 0
    while i < text.length and i < DIGITS_LIMIT and c'0' <= text.data[i] <= c'9':
        out[0] = out[0] * 10 + (text.data[i] - c'0')
        i += 1
    return i


cdef void terms_read(const spool_envelope *view, message_terms *out) noexcept:
    cdef spool_attribute attribute
    cdef spool_span text
    cdef const uint8_t *cursor = view.end
    cdef uint64_t value
    cdef uint32_t at
    memset(out, 0, sizeof(message_terms))
    while spool_envelope_next_attribute(view, &cursor, &attribute):
        text = attribute.text
        if attribute.key == SPOOL_ATTRIBUTE_HOLD_UNTIL:
            at = number(text, &value)
            if at and (at == text.length or text.length - at >= 2 and text.data[at] == c';'
                       and text.data[at + 1] in (c'F', c'U')):
                out.hold_until_utc_s = value
                out.hold_is_asked = at != text.length
                text.data += at + 2
                text.length = text.length - at - 2 if out.hold_is_asked else 0
                number(text, &out.hold_for_s)
        elif attribute.key == SPOOL_ATTRIBUTE_DELIVER_BY:
            at = number(text, &value)
            if at and text.length - at >= 2 and text.data[at] == c';' and text.data[at + 1] in (c'N', c'R'):
                out.by_utc_s = <int64_t>value
                out.by_mode = text.data[at + 1]
                out.by_is_traced = text.length - at == 3 and text.data[at + 2] == c'T'
        elif attribute.key == SPOOL_ATTRIBUTE_PRIORITY:
            at = 1 if text.length and text.data[0] == c'-' else 0
            if text.length == at + 1 and c'0' <= text.data[at] <= c'9':
                out.priority = <int8_t>(text.data[at] - c'0') if at == 0 else <int8_t>(c'0' - text.data[at])
        elif attribute.key == SPOOL_ATTRIBUTE_SOLICIT:
            out.solicit = text


cdef bytes tenant_in(const spool_envelope *view):
    cdef spool_attribute attribute
    cdef const uint8_t *cursor = view.end
    while spool_envelope_next_attribute(view, &cursor, &attribute):
        if attribute.key == SPOOL_ATTRIBUTE_TENANT:
            return attribute.text.data[:attribute.text.length]
    return b""


cdef bint terms_of(message *m, message_terms *out) noexcept:
    cdef spool_envelope view
    memset(out, 0, sizeof(message_terms))
    if m.envelope == NULL or spool_envelope_open(m.envelope.data, m.envelope.length, &view) != 0:
        return False
    terms_read(&view, out)
    return True
