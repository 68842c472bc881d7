# The event lines of the queue, written straight from C structures: twenty thousand a second are ordinary.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport strlen

from angarium.events.journal cimport Journal
from angarium.model.clock cimport utc_ms
from angarium.queue.message cimport message, recipient
from angarium.spool.cspool cimport (spool_envelope, spool_envelope_next_recipient, spool_envelope_open,
                                    spool_recipient)


# Outcomes come in envelope order: the last view is kept so that a message with a thousand recipients is not walked a
# thousand times from the start. Keyed by id, time and octets, so a view of freed octets is never used: two spools of one process (which
# tests have) give the same ids within a second.
cdef spool_envelope last_view
cdef uint64_t last_id = 0
cdef uint64_t last_received_utc_ms = 0
cdef void *last_octets = NULL
cdef uint32_t last_index = 0
cdef const uint8_t *last_cursor = NULL


cdef bint view_of(message *m) noexcept:
    global last_id, last_received_utc_ms, last_octets, last_index, last_cursor
    if m.envelope == NULL:
        return False
    if last_id == m.id and last_octets == <void *>m.envelope and last_received_utc_ms == m.received_utc_ms:
        return True
    last_id = 0
    if spool_envelope_open(m.envelope.data, m.envelope.length, &last_view) != 0:
        return False
    last_id = m.id
    last_octets = m.envelope
    last_received_utc_ms = m.received_utc_ms
    last_index = 0
    last_cursor = last_view.recipients
    return True


cdef bint envelope_recipient(message *m, uint32_t index, spool_recipient *out) noexcept:
    global last_index, last_cursor
    if not view_of(m):
        return False
    if index < last_index:
        last_index = 0
        last_cursor = last_view.recipients
    while True:
        if not spool_envelope_next_recipient(&last_view, &last_cursor, out):
            last_index = 0
            last_cursor = last_view.recipients
            return False
        last_index += 1
        if last_index > index:
            return True


cdef void log_outcome(Journal journal, const char *event, message *m, recipient *r, bytes site, bytes source,
                      const uint8_t *remote, size_t remote_length, uint16_t code,
                      uint16_t status_class, uint16_t status_subject, uint16_t status_detail,
                      const uint8_t *text, size_t text_length, uint64_t elapsed_ms, const char *tls_version,
                      const char *tls_cipher, const char *tls_policy, const char *tls_policy_from,
                      const char *bounce_class) noexcept:
    cdef spool_recipient found
    cdef char status[24]
    cdef uint64_t now = utc_ms()
    cdef int length
    journal.begin(event)
    journal.id(b"id", m.id)
    if envelope_recipient(m, r.index, &found):
        journal.text(b"from", last_view.reverse_path.data, last_view.reverse_path.length)
        journal.text(b"to", found.forward_path.data, found.forward_path.length)
    journal.number(b"octets", <long long>m.message_octets)
    if site is not None:
        journal.text(b"site", <const uint8_t *>(<const char *>site), len(site))
        journal.text(b"source", <const uint8_t *>(<const char *>source), len(source))
    if remote_length:
        journal.text(b"remote", remote, remote_length)
    if code:
        journal.number(b"code", code)
    if status_class:
        length = snprintf(status, sizeof(status), b"%u.%u.%u", <unsigned>status_class, <unsigned>status_subject,
                          <unsigned>status_detail)
        journal.text(b"status", <const uint8_t *>status, <size_t>length)
    if text_length:
        journal.text(b"reply", text, text_length)
    if bounce_class != NULL:
        journal.text(b"class", <const uint8_t *>bounce_class, strlen(bounce_class))
    if tls_version != NULL:
        journal.text(b"tls", <const uint8_t *>tls_version, strlen(tls_version))
        journal.text(b"cipher", <const uint8_t *>tls_cipher, strlen(tls_cipher))
        journal.text(b"tls_policy", <const uint8_t *>tls_policy, strlen(tls_policy))
        journal.text(b"tls_policy_from", <const uint8_t *>tls_policy_from, strlen(tls_policy_from))
    journal.number(b"attempt", r.link.tally)
    journal.seconds(b"age", now - m.received_utc_ms if now > m.received_utc_ms else 0)
    journal.seconds(b"elapsed", elapsed_ms)
    journal.end()
    if journal.outcomes is not None:
        tell(journal, event, m, r, site, source, remote[:remote_length] if remote_length else b"", code,
             "%d.%d.%d" % (status_class, status_subject, status_detail) if status_class else "",
             text[:text_length] if text_length else b"", now, elapsed_ms, bounce_class if bounce_class != NULL else b"")


cdef void tell(Journal journal, const char *event, message *m, recipient *r, bytes site, bytes source, bytes remote,
               uint16_t code, str status, bytes text, uint64_t now, uint64_t elapsed_ms, bytes bounce_class) noexcept:
    cdef spool_recipient found
    cdef bytes reverse_path = b"", forward_path = b""
    try:
        if envelope_recipient(m, r.index, &found):
            reverse_path = last_view.reverse_path.data[:last_view.reverse_path.length]
            forward_path = found.forward_path.data[:found.forward_path.length]
        journal.outcomes(event.decode("ascii"), m.id, reverse_path, forward_path, m.message_octets, site, source, remote, code,
                         status, text, r.link.tally, (now - m.received_utc_ms) / 1000.0 if now > m.received_utc_ms else 0.0,
                         elapsed_ms / 1000.0, bounce_class.decode("ascii"))
    except Exception as error:
        journal.log("error", where="on_outcome", reason=repr(error))
