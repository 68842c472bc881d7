from angarium.inbound.client cimport Client
from angarium.inbound.transaction cimport inbound_transaction
from angarium.model.octets cimport octets

# A run of a large message goes to the spool while the rest arrives. Takes over `run`. False: it must wait, because
# CHUNKS_IN_FLIGHT are on their way or the disk is behind with everybody's; then `run` stays the caller's, and
# client.chunk_is_durable() says when to come again.
cdef bint chunks_submit(inbound_transaction *self, octets *run) noexcept
# The last run, whatever is in flight: end of data was seen, so nothing more comes of this message.
cdef void chunks_submit_last(inbound_transaction *self, octets *run) noexcept
