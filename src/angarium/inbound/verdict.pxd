from libc.stdint cimport uint8_t
from angarium.inbound.client cimport Client

cdef enum verdict:
    VERDICT_NONE = 0            # nobody was asked
    VERDICT_PENDING             # judges are being asked
    VERDICT_KEPT                # nobody objects: what they changed is made
    VERDICT_REFUSED             # transaction.refusal is said at the end of data
    VERDICT_DISCARDED           # 250, and nobody gets it

# Has the judges of messages look at what is there of the body in hand, once a message. PENDING: they are still thinking; the
# session is resumed when they have decided, finish_message() first if the end of data has come by then.
cdef uint8_t message_verdict(Client client, bint is_whole) noexcept
