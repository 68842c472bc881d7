# Streaming: runs of a message over the threshold become BODY records while the rest arrives (spool rule: memory per
# connection is bounded whatever SIZE allows). They mean nothing until the envelope names them; each holds a pin on its
# segment, which the message takes over with the commit and which commit_release() gives back otherwise.
from libc.errno cimport ENOMEM
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free
from angarium.inbound.client cimport Client
from angarium.inbound.commit cimport commit_release, commit_submit
from angarium.inbound.context cimport InboundContext, Intake
from angarium.inbound.transaction cimport CHUNKS_IN_FLIGHT, inbound_transaction, transaction_add_chunk
from angarium.model.octets cimport octets, octets_unref
from angarium.spool.cspool cimport SPOOL_BODY, spool_op, spool_segment_serial

cdef struct chunk_op:
    spool_op op
    inbound_transaction *transaction
    uint32_t index


cdef bint chunks_submit(inbound_transaction *self, octets *run) noexcept:
    cdef Intake intake = (<InboundContext>self.context).intake
    if self.in_flight >= CHUNKS_IN_FLIGHT:
        return False
    if not intake.may_stream():
        intake.waiting[<Client>self.client] = None
        return False
    chunks_submit_last(self, run)
    return True


cdef void chunks_submit_last(inbound_transaction *self, octets *run) noexcept:
    cdef chunk_op *chunk
    chunk = NULL if transaction_add_chunk(self) != 0 else <chunk_op *>calloc(1, sizeof(chunk_op))
    if chunk == NULL:
        self.error = self.error or ENOMEM       # told at end of data; the octets are not needed any more
        octets_unref(run)
        return
    chunk.transaction = self
    chunk.index = self.chunk_count
    chunk.op.kind = SPOOL_BODY
    chunk.op.id = self.id
    chunk.op.aux = self.streamed_octets
    chunk.op.payload = run
    chunk.op.done = chunk_done
    chunk.op.context = chunk
    self.pins[self.chunk_count] = NULL
    self.chunk_count += 1
    self.streamed_octets += run.length
    self.in_flight += 1
    (<InboundContext>self.context).intake.unsynced_octets += run.length
    (<InboundContext>self.context).intake.shard.submit(&chunk.op)


cdef void chunk_done(spool_op *op, void *context) noexcept:
    cdef chunk_op *chunk = <chunk_op *>context
    cdef inbound_transaction *self = chunk.transaction
    cdef Intake intake = (<InboundContext>self.context).intake
    cdef Client client
    self.in_flight -= 1
    intake.unsynced_octets -= op.payload.length
    if op.error == 0:
        self.pins[chunk.index] = op.place.segment
        self.chunks[chunk.index].segment_serial = spool_segment_serial(op.place.segment)
        self.chunks[chunk.index].offset = op.place.offset
        self.chunks[chunk.index].length = op.place.length
    elif self.error == 0:
        self.error = op.error
    octets_unref(op.payload)
    free(chunk)
    if self.is_dropped:
        if self.in_flight == 0:
            commit_release(self)
    elif self.is_ended:
        if self.in_flight == 0:
            commit_submit(self)
    elif self.client != NULL:
        client = <Client>self.client
        client.chunk_is_durable()
    intake.wake_waiting()
