# Between messages in memory and OUTCOME records in the spool (csrc/spool/state.h). No I/O, no scheduling.
from libc.errno cimport ENOMEM
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from angarium.model.octets cimport octets, octets_new, octets_unref
from angarium.spool.cstate cimport (SPOOL_STATE_DELAY_REPORTED, SPOOL_STATE_DSN_DONE, SPOOL_STATUS_DELIVERED, SPOOL_STATUS_WAITING,
                                    spool_recipient_state, spool_state, spool_state_append,
                                    spool_state_begin, spool_state_next, spool_state_open)
from angarium.queue.message cimport (OUTCOME_DELIVERED, OUTCOME_WAITING, PLACE_DEFERRED, PLACE_SETTLED, MESSAGE_HAS_TERMS,
                                     RECIPIENT_DELAY_TOLD, RECIPIENT_RELAYED, RECIPIENT_REPORT_DUE, RECIPIENT_SUSPENDED, RECIPIENT_TRACED, message, recipient)
from angarium.queue.troubles cimport Troubles, trouble_of
from angarium.queue.wheel cimport Wheel

from angarium.model.errors import SpoolCorrupt
from angarium.model.outcome import Trouble


cdef octets *state_record(message *m, Wheel wheel, uint64_t now_utc_s) except NULL:
    cdef octets *record = octets_new(64 + 32 * <size_t>m.recipient_count)
    cdef spool_recipient_state state
    cdef recipient *r
    cdef uint32_t i
    cdef int error
    cdef bytes text, remote
    if record == NULL:
        raise MemoryError()
    error = spool_state_begin(&record)
    for i in range(m.recipient_count):
        if error:
            break
        r = &m.recipients[i]
        memset(&state, 0, sizeof(state))
        state.status = r.outcome
        state.attempts = r.link.tally
        if r.outcome == OUTCOME_WAITING:
            state.next_attempt_utc_s = now_utc_s
            # Who is suspended is due whenever nobody holds it: a restart asks the orders of then.
            if r.link.where == PLACE_DEFERRED and not r.flags & RECIPIENT_SUSPENDED:
                state.next_attempt_utc_s += wheel.remaining_ms(&r.link) // 1000
        elif not r.flags & RECIPIENT_REPORT_DUE:
            # Until its report is itself in the spool a failed recipient is written without this: after a crash the
            # report is made again rather than lost.
            state.flags = SPOOL_STATE_DSN_DONE
        if r.flags & RECIPIENT_DELAY_TOLD:
            state.flags |= SPOOL_STATE_DELAY_REPORTED
        trouble = trouble_of(r)
        if trouble is not None:
            state.reply_code = trouble.code
            state.enhanced_class, state.enhanced_subject, state.enhanced_detail = trouble.status
            text = trouble.text.encode("utf-8", "replace")
            remote = trouble.remote.encode("utf-8", "replace")
            state.reply_text.data = <const uint8_t *>(<const char *>text)
            state.reply_text.length = <uint32_t>len(text)
            state.remote_host.data = <const uint8_t *>(<const char *>remote)
            state.remote_host.length = <uint32_t>len(remote)
        error = spool_state_append(&record, &state)
    if error:
        octets_unref(record)
        raise MemoryError()
    return record


cdef int apply_state(message *m, const octets *record, uint64_t *due_utc_s, Troubles troubles) except -1:
    cdef spool_state view
    cdef spool_recipient_state state
    cdef const uint8_t *cursor
    cdef recipient *r
    cdef uint32_t i = 0
    if spool_state_open(record.data, record.length, &view) != 0 or view.recipient_count != m.recipient_count:
        raise SpoolCorrupt("an outcome record does not fit its message")
    cursor = view.entries
    while i < m.recipient_count and spool_state_next(&view, &cursor, &state):
        r = &m.recipients[i]
        r.link.tally = state.attempts
        r.outcome = state.status
        due_utc_s[i] = state.next_attempt_utc_s
        if state.flags & SPOOL_STATE_DELAY_REPORTED:
            r.flags |= RECIPIENT_DELAY_TOLD
        if state.status != SPOOL_STATUS_WAITING:
            r.link.where = PLACE_SETTLED
            m.live_count -= 1
            if not state.flags & SPOOL_STATE_DSN_DONE:
                r.flags |= RECIPIENT_REPORT_DUE
                m.report_count += 1
                if state.status == SPOOL_STATUS_DELIVERED:
                    r.flags |= RECIPIENT_RELAYED
                    if m.flags & MESSAGE_HAS_TERMS:
                        r.flags |= RECIPIENT_TRACED
        if state.reply_code or state.enhanced_class or state.reply_text.length:
            troubles.note(r, Trouble(
                state.reply_code, (state.enhanced_class, state.enhanced_subject, state.enhanced_detail),
                state.reply_text.data[:state.reply_text.length].decode("utf-8", "replace"),
                state.remote_host.data[:state.remote_host.length].decode("utf-8", "replace")))
        i += 1
    return 0

