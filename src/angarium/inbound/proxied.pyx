# Connections from load balancers that say who the client is (PROXY protocol, csrc/smtp/proxy.h). Only listed peers get here
# (listener.proxy_from): from anybody else the same octets are a client that speaks before the greeting.
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memcpy

from angarium.inbound.connection cimport PHASE_OPEN, PHASE_PROXIED, InboundConnection
from angarium.inbound.context cimport Intake
from angarium.metrics.counters cimport Counter

from angarium.inbound.ends import PROXIED
from angarium.metrics.counters import counter
from angarium.smtp import replies

cdef extern from "smtp/proxy.h" nogil:
    enum:
        PROXY_OCTETS_MAX
    ctypedef enum proxy_result:
        PROXY_OK, PROXY_PARTIAL, PROXY_BAD
    ctypedef struct proxy_header:
        bint is_local
        uint8_t address[16]
        uint16_t port
        uint8_t destination[16]
        uint16_t destination_port
        size_t length
    proxy_result proxy_header_parse(const uint8_t *data, size_t length, proxy_header *out)

cdef enum:
    HEADER_MS = 5000                # proxy-protocol.txt §2: three seconds at the least; it is the first segment that was sent
    TIGHT_HEADER_MS = 3000          # while the load is high

cdef bytes PROXY_HEADER_BAD = replies.PROXY_HEADER_BAD
cdef bytes PROXY_HEADER_LATE = replies.PROXY_HEADER_LATE

cdef Counter bad_headers_total = counter(
    "angarium_in_bad_proxy_headers_total", "Connections of listed balancers that did not begin with a PROXY header.")


cdef void proxied_begin(InboundConnection connection) noexcept:
    connection.phase = PHASE_PROXIED
    connection.header = b""
    connection.context.intake.wheel.arm(&connection.deadline, proxied_time_ms(connection.context.intake))


cdef uint64_t proxied_time_ms(Intake intake) noexcept:
    if not intake.is_tight:
        return HEADER_MS
    return intake.tight_command_ms if intake.tight_command_ms < TIGHT_HEADER_MS else TIGHT_HEADER_MS


cdef void proxied_receive(InboundConnection connection, const uint8_t *data, size_t length) noexcept:
    cdef proxy_header header
    cdef proxy_result result
    cdef bytes octets_in
    try:
        octets_in = connection.header + data[:length]
    except MemoryError:
        connection.abort()
        return
    result = proxy_header_parse(<const uint8_t *><const char *>octets_in, len(octets_in), &header)
    if result == PROXY_PARTIAL:
        connection.header = octets_in
        return
    connection.header = None
    if result == PROXY_BAD:
        proxied_refused(connection, PROXY_HEADER_BAD)
        return
    if not header.is_local:
        memcpy(connection.binary_address, header.address, 16)
        connection.name_address()
        try:
            connection.proxied_ends = PROXIED.pack(header.destination[:16], header.port, header.destination_port)
        except MemoryError:
            connection.abort()
            return
    connection.phase = PHASE_OPEN
    # A client that waited for the greeting has sent nothing behind the header.
    connection.begin(<const uint8_t *><const char *>octets_in + header.length, len(octets_in) - header.length)


cdef void proxied_expired(InboundConnection connection) noexcept:
    proxied_refused(connection, PROXY_HEADER_LATE)


cdef void proxied_refused(InboundConnection connection, bytes reply) noexcept:
    """Nobody is told but the operator: it is no SMTP client that speaks."""
    bad_headers_total.cell[0] += 1
    connection.tell_rejected(reply)
    connection.abort()
