from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from angarium.events.journal cimport Journal
from angarium.queue.message cimport message, recipient
from angarium.spool.cspool cimport spool_recipient

# Finds recipient i of a message whose envelope is in memory; False when it is not or is damaged.
cdef bint envelope_recipient(message *m, uint32_t index, spool_recipient *out) noexcept

# One line for what became of recipient r of m: event is "delivered", "deferred", "failed", "expired" or "deleted".
# bounce_class: of bounces/classes.py, NULL where nothing has failed.
cdef void log_outcome(Journal journal, const char *event, message *m, recipient *r, bytes site, bytes source,
                      const uint8_t *remote, size_t remote_length, uint16_t code,
                      uint16_t status_class, uint16_t status_subject, uint16_t status_detail,
                      const uint8_t *text, size_t text_length, uint64_t elapsed_ms, const char *tls_version,
                      const char *tls_cipher, const char *tls_policy, const char *tls_policy_from, const char *bounce_class) noexcept
