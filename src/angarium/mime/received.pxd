from libc.stdint cimport uint8_t, uint64_t
from angarium.model.octets cimport octets

cdef struct received_facts:
    const uint8_t *helo             # as the client said it; may be empty
    size_t helo_length
    const uint8_t *name             # of its host, as whoever introduced it had verified; said only beside an address
    size_t name_length
    const uint8_t *address          # "192.0.2.1", "IPv6:2001:db8::1", or empty
    size_t address_length
    const uint8_t *hostname         # ours
    size_t hostname_length
    const char *protocol            # "SMTP", "ESMTPS", "UTF8SMTP" ...
    const char *tls_version         # "TLSv1.3"; NULL in clear
    const char *tls_cipher          # the IANA name
    const char *id                  # 13 characters
    const uint8_t *forward_path     # of the only recipient; empty otherwise
    size_t forward_path_length
    const char *priority            # of MT-PRIORITY, "-9" to "9"; NULL: none was said
    const uint8_t *solicit          # keywords of SOLICIT, or none
    size_t solicit_length
    uint64_t utc_ms

# Appends a date as Date and Received have it (RFC 5322 §3.3). 0, or -1 when memory is out.
cdef int date_append(octets **into, uint64_t utc_ms) noexcept
# Appends the field with its CRLF. Returns 0, or -1 when memory is out. The caller holds the only reference.
cdef int received_append(octets **into, const received_facts *facts) noexcept
