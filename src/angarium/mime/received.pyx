# The trace field that we put in front of every message (RFC 5321 §4.4; keywords of RFC 3848 and RFC 6531 §3.7.3).
# Its date (RFC 5322 §3.3, always +0000) is made once a second. What goes in was judged before: no CR, LF or NUL is
# looked for here.
from libc.stdint cimport uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, strlen
from posix.time cimport time_t
from angarium.model.octets cimport octets, octets_append, octets_new, octets_reserve, octets_unref
from cpython.bytes cimport PyBytes_FromStringAndSize

cdef extern from "<time.h>" nogil:
    struct tm:
        int tm_sec, tm_min, tm_hour, tm_mday, tm_mon, tm_year, tm_wday
    tm *gmtime_r(const time_t *seconds, tm *out)

cdef const char **DAYS = [b"Sun", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat"]
cdef const char **MONTHS = [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
                            b"Dec"]
cdef enum:
    FIXED_OCTETS = 192              # of a field without its variable parts: a generous bound
    SOLICIT_OCTETS = 900            # of keywords: white space is allowed nowhere in them, and a line has 998 octets

cdef uint64_t date_second = <uint64_t>-1
cdef char[40] date_text
cdef size_t date_length = 0


cdef inline uint8_t *put(uint8_t *at, const void *data, size_t length) noexcept:
    memcpy(at, data, length)
    return at + length


cdef void make_date(uint64_t second) noexcept:
    global date_second, date_length
    cdef tm parts
    cdef time_t seconds = <time_t>second
    gmtime_r(&seconds, &parts)
    date_length = snprintf(date_text, sizeof(date_text), b"%s, %d %s %d %02d:%02d:%02d +0000", DAYS[parts.tm_wday],
                           parts.tm_mday, MONTHS[parts.tm_mon], parts.tm_year + 1900, parts.tm_hour, parts.tm_min,
                           parts.tm_sec)
    date_second = second


cdef int date_append(octets **into, uint64_t utc_ms) noexcept:
    if utc_ms // 1000 != date_second:
        make_date(utc_ms // 1000)
    return octets_append(into, <const uint8_t *>date_text, date_length)


cdef int received_append(octets **into, const received_facts *facts) noexcept:
    cdef uint8_t *at
    cdef uint8_t *start
    if octets_reserve(into, FIXED_OCTETS + facts.helo_length + facts.name_length + facts.address_length + facts.hostname_length
                      + facts.forward_path_length + facts.solicit_length + (strlen(facts.tls_cipher) if facts.tls_version != NULL else 0)) != 0:
        return -1
    if facts.utc_ms // 1000 != date_second:
        make_date(facts.utc_ms // 1000)
    start = at = into[0].data + into[0].length
    at = put(at, b"Received: from ", 15)
    if facts.helo_length:
        at = put(at, facts.helo, facts.helo_length)
    else:
        at = put(at, b"unknown", 7)
    if facts.address_length:
        at = put(at, b" (", 2)
        if facts.name_length:
            at = put(at, facts.name, facts.name_length)
            at = put(at, b" ", 1)
        at = put(at, b"[", 1)
        at = put(at, facts.address, facts.address_length)
        at = put(at, b"])", 2)
    at = put(at, b"\r\n\tby ", 6)
    at = put(at, facts.hostname, facts.hostname_length)
    at = put(at, b" with ", 6)
    at = put(at, facts.protocol, strlen(facts.protocol))
    if 0 < facts.solicit_length <= SOLICIT_OCTETS:      # RFC 3865 §2.6: a comment right behind the protocol
        at = put(at, b"\r\n\t(SOLICIT=", 12)
        at = put(at, facts.solicit, facts.solicit_length)
        at = put(at, b")\r\n\tid ", 7)
    else:
        at = put(at, b" id ", 4)
    at = put(at, facts.id, 13)
    if facts.tls_version != NULL:
        at = put(at, b"\r\n\t(version=", 12)
        at = put(at, facts.tls_version, strlen(facts.tls_version))
        at = put(at, b" cipher=", 8)
        at = put(at, facts.tls_cipher, strlen(facts.tls_cipher))
        at = put(at, b")", 1)
    if facts.forward_path_length:
        at = put(at, b"\r\n\tfor <", 8)
        at = put(at, facts.forward_path, facts.forward_path_length)
        at = put(at, b">", 1)
    if facts.priority != NULL:                          # RFC 6710 §4.1 (2), §7: behind all other clauses
        at = put(at, b"\r\n\tPRIORITY ", 12)
        at = put(at, facts.priority, strlen(facts.priority))
    at = put(at, b";\r\n\t", 4)
    at = put(at, date_text, date_length)
    at = put(at, b"\r\n", 2)
    into[0].length += at - start
    return 0


def received_field(bytes helo not None, bytes address not None, bytes hostname not None, bytes protocol not None,
                   bytes message_id not None, bytes forward_path not None, uint64_t utc_ms,
                   bytes tls_version=None, bytes tls_cipher=b"", bytes priority=None, bytes solicit not None=b""):
    cdef received_facts facts
    cdef octets *into
    if len(message_id) != 13:
        raise ValueError("an id has 13 characters")
    into = octets_new(0)
    if into == NULL:
        raise MemoryError
    facts.helo, facts.helo_length = helo, len(helo)
    facts.address, facts.address_length = address, len(address)
    facts.name_length = 0
    facts.hostname, facts.hostname_length = hostname, len(hostname)
    facts.protocol, facts.id = protocol, message_id
    facts.forward_path, facts.forward_path_length = forward_path, len(forward_path)
    facts.utc_ms = utc_ms
    facts.priority = NULL
    if priority is not None:
        facts.priority = priority
    facts.solicit, facts.solicit_length = solicit, len(solicit)
    facts.tls_version = NULL
    if tls_version is not None:
        facts.tls_version, facts.tls_cipher = tls_version, tls_cipher
    try:
        if received_append(&into, &facts) != 0:
            raise MemoryError
        return PyBytes_FromStringAndSize(<const char *>into.data, into.length)
    finally:
        octets_unref(into)
