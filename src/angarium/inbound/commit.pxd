from angarium.inbound.client cimport Client
from angarium.inbound.transaction cimport inbound_transaction

# EVENT_MESSAGE was seen and all chunks are durable (or there are none: op.body is the message): submits the envelope.
cdef void commit_submit(inbound_transaction *self) noexcept
# The client's transaction is over without a message (RSET, fault, lost connection): gives everything back.
cdef void commit_drop(Client client) noexcept
# No message will come of it and nothing is in flight: pins and memory go.
cdef void commit_release(inbound_transaction *self) noexcept
# The answer to end of data when it cannot be committed; the transaction goes.
cdef void commit_failed(inbound_transaction *self, int error) noexcept
