from angarium.inbound.client cimport Client

ctypedef void (*inquiry_end)(Client client, object case, object refusal) noexcept

# Asks `judges` about `case`; `end` is called once with the first Refusal, or None when nobody objects: before this
# returns, or later, or never when the client goes away. The session waits meanwhile.
cdef void inquire(Client client, tuple judges, object case, inquiry_end end) noexcept
# The client is gone: who is asked need not answer any more.
cdef void inquiry_drop(Client client) noexcept
