from libc.stdint cimport int8_t, int64_t, uint8_t, uint64_t
from angarium.queue.message cimport message
from angarium.spool.cspool cimport spool_envelope, spool_span

cdef struct message_terms:
    uint64_t hold_until_utc_s           # 0: at once
    bint hold_is_asked                  # by MAIL, and not by a hook
    uint64_t hold_for_s                 # of HOLDFOR; 0: HOLDUNTIL
    int64_t by_utc_s                    # where by_mode is not 0
    uint8_t by_mode                     # 0, 'N' or 'R'
    bint by_is_traced
    int8_t priority                     # -9 to 9
    spool_span solicit                  # keywords, or empty

cdef inline bint has_attributes(const spool_envelope *view) noexcept:
    return view.end != view.chunks

# What the attributes say; all zero where there are none, or where a value makes no sense.
cdef void terms_read(const spool_envelope *view, message_terms *out) noexcept
# Whose mail it is (SPOOL_ATTRIBUTE_TENANT), b"" when that is not said.
cdef bytes tenant_in(const spool_envelope *view)
# Of a message whose envelope is in memory; False, and all zero, when it is not.
cdef bint terms_of(message *m, message_terms *out) noexcept
