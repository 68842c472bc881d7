# Taking over what the spool found at start (csrc/spool/recover.c does the finding): messages, outcomes, times.
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from angarium.metrics.counters cimport Counter
from angarium.model.clock cimport utc_ms
from angarium.model.octets cimport octets_unref
from angarium.queue.message cimport MESSAGE_HAS_TERMS, NOTIFY_EXPANDED, OUTCOME_WAITING, message, recipient
from angarium.queue.record cimport apply_state
from angarium.queue.scheduler cimport Scheduler
from angarium.queue.terms cimport message_terms, terms_read
from angarium.spool.cspool cimport (SPOOL_ENVELOPE_INLINE, spool_chunk, spool_envelope, spool_envelope_chunk,
                                    spool_envelope_open, spool_id_encode, spool_recovered)
from angarium.spool.shard cimport Shard

from angarium.metrics.counters import counter

cdef Counter recovered = counter("angarium_messages_recovered_total", "Messages found in the spool at start.")
cdef Counter refused = counter("angarium_recovery_refused_total",
                               "Messages found at start that could not be taken over; they stay in the spool.")


AT_ONCE = 500                   # about a millisecond of the event loop


def recover(Scheduler scheduler not None, Shard shard not None, uint32_t limit=AT_ONCE):
    """Takes over messages found in the shard's old segments, at most `limit` in one call.

    How many: fewer than `limit` when no more have been found yet. -1: the scan has ended and all are taken over.
    """
    cdef spool_recovered found
    cdef uint32_t i
    cdef int result
    for i in range(limit):
        result = shard.recover_next(&found)
        if result <= 0:
            return i if result == 0 or i else -1
        try:
            take_over(scheduler, shard, &found)
        except Exception as error:
            # It stays in the spool, pinned: an operator can look at it; it is not deleted unseen.
            refused.cell[0] += 1
            shard.has_strangers = True
            scheduler.journal.log("error", where="recovery", id=spool_id(found.id), reason=str(error))
        octets_unref(found.envelope)
        octets_unref(found.state)
    return limit


cdef int take_over(Scheduler scheduler, Shard shard, spool_recovered *found) except -1:
    cdef message *m = scheduler.make_message(shard, found.envelope)
    cdef uint64_t *due_utc_s
    cdef uint64_t now_s = utc_ms() // 1000
    cdef uint32_t i
    cdef recipient *r
    cdef spool_envelope view
    cdef spool_chunk chunk
    cdef message_terms terms
    m.home = found.place.segment
    m.envelope_offset = found.place.offset
    m.envelope_length = found.place.length
    m.state_segment = found.state_segment
    spool_envelope_open(found.envelope.data, found.envelope.length, &view)
    if view.flags & SPOOL_ENVELOPE_INLINE:
        # The body counts with its envelope: a pin given back for it too would let the segment go with live mail in it.
        chunk = spool_envelope_chunk(&view, 0)
        m.where.offset = chunk.offset
    else:
        scheduler.find_chunks(m, shard, found.envelope)
    due_utc_s = <uint64_t *>calloc(m.recipient_count, sizeof(uint64_t))
    if due_utc_s == NULL:
        raise MemoryError()
    scheduler.hold(m)
    try:
        if found.state != NULL:
            apply_state(m, found.state, due_utc_s, scheduler.troubles)
    except Exception as error:
        scheduler.journal.log("error", where="recovery", id=spool_id(m.id), reason=str(error))
    recovered.cell[0] += 1
    if m.flags & MESSAGE_HAS_TERMS:
        terms_read(&view, &terms)
        scheduler.watch_deadline(m, &terms)
    for i in range(m.recipient_count):
        r = &m.recipients[i]
        if r.outcome != OUTCOME_WAITING:
            scheduler.leave(r)
        elif r.notify & NOTIFY_EXPANDED:
            scheduler.expanded(m, r)
        elif m.flags & MESSAGE_HAS_TERMS and r.link.tally == 0 and terms.hold_until_utc_s > now_s:
            scheduler.defer(r, (terms.hold_until_utc_s - now_s) * 1000)
        elif due_utc_s[i] > now_s:
            scheduler.defer(r, (due_utc_s[i] - now_s) * 1000)
        else:
            scheduler.route(r)
    free(due_utc_s)
    scheduler.release(m)
    return 0


cdef str spool_id(uint64_t id):
    cdef char text[13]
    spool_id_encode(id, text)
    return text[:13].decode("ascii")
