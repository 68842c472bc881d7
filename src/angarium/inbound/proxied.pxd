from libc.stdint cimport uint8_t, uint64_t
from angarium.inbound.connection cimport InboundConnection
from angarium.inbound.context cimport Intake


# The connection comes from a balancer: nothing is said before its header is in.
cdef void proxied_begin(InboundConnection connection) noexcept
# Octets have come before the header was whole.
cdef void proxied_receive(InboundConnection connection, const uint8_t *data, size_t length) noexcept
cdef void proxied_expired(InboundConnection connection) noexcept
# For how long a header is waited for.
cdef uint64_t proxied_time_ms(Intake intake) noexcept
