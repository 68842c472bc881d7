# What an outbound connection has in hand, and the outcomes of it: the half of a Connection that knows no socket. One
# function per step of a transaction lies in transaction.pyx, those for bodies in chunks in body_stream.pyx.
#
# Ownership: a hand holds references to its envelope and body; the recipients array belongs to the hand. While the
# reader thread owns stream.op, or a fetch is under way, the carrier stays alive and settles nothing of it: the
# segments it reads from are pinned by the message in hand.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from angarium.model.clock cimport mono_ms, utc_ms
from angarium.model.octets cimport octets_unref
from angarium.queue.message cimport RECIPIENT_TRACED, transaction
from angarium.queue.terms cimport has_attributes, message_terms, terms_read
from angarium.smtp.client_dialogue cimport EXTENSION_DELIVERBY, EXTENSION_DSN, STAGE_DATA, STAGE_IDLE, client_event
from angarium.smtp.client_session cimport CLIENT_SLOTS, PHASE_BODY, PHASE_FREE, RECIPIENT_TOLD, ClientSession

from angarium.outbound import trouble


cdef class Carrier:

    def __dealloc__(self):
        cdef int i
        for i in range(CLIENT_SLOTS):
            forget(&self.hands[i])
            free(self.hands[i].t.recipients)
        forget(&self.next)
        free(self.next.t.recipients)
        octets_unref(self.stream.chunk)
        free(self.stream.op)

    # ---------------------------------------------------------------- for Connection to override

    cdef int advance(self) except -1:
        return 0

    cdef int flush(self) except -1:
        return 0

    cdef int broken_inside(self, object error) except -1:
        return 0

    cdef void end(self, object judgement) noexcept:
        pass

    cdef void conclude(self) noexcept:
        pass

    # ---------------------------------------------------------------- what a reply or a loss is about

    cdef object stage_now(self):
        if self.session.ring_count:
            return self.session.ring[self.session.ring_head].stage
        return STAGE_DATA if self.judged_slot() >= 0 else STAGE_IDLE

    cdef object judge_reply(self, client_event *event):
        cdef ClientSession s = self.session
        cdef str text = s.reply.text[:s.reply.text_length].decode("utf-8", "replace")
        return trouble.of_reply(event.stage, s.reply.code,
                                (s.reply.status_class, s.reply.status_subject, s.reply.status_detail), text,
                                self.remote, accepted_count=s.slots[event.slot].accepted,
                                finished_count=self.finished_count,
                                is_next_hop=s.is_authenticated or "://" in self.ready.site.name)

    cdef int judged_slot(self) noexcept:
        """The slot that the failure of the connection befell, -1 when none."""
        cdef ClientSession s = self.session
        cdef int i
        if self.stream.has_failed:      # whatever reply is due now, perhaps for the message before
            return self.stream.slot
        if s.ring_count and s.slots[s.ring[s.ring_head].slot].phase != PHASE_FREE:
            return s.ring[s.ring_head].slot
        for i in range(CLIENT_SLOTS):
            if s.slots[i].phase == PHASE_BODY:
                return i
        return -1

    # ---------------------------------------------------------------- outcomes

    cdef int tell_delivered(self, int slot, uint32_t i) noexcept:
        cdef ClientSession s = self.session
        cdef hand *h = &self.hands[slot]
        cdef uint64_t now = mono_ms()
        self.ready.delivered_ms = now
        s.slots[slot].recipients[i] = RECIPIENT_TOLD
        if has_attributes(h.envelope):
            note_trace(self, h, i)
        self.scheduler.delivered(self.ready, &h.t, i, s.reply.code, s.reply.text, s.reply.text_length,
                                 <const uint8_t *><const char *>self.remote_octets, len(self.remote_octets),
                                 now - h.started_ms, s.extensions & EXTENSION_DSN != 0, self.tls_version,
                                 self.tls_cipher, self.policy_name, self.policy_origin)
        return 0

    cdef int tell_refused(self, int slot, uint32_t i, object judgement) except -1:
        cdef hand *h = &self.hands[slot]
        if judgement.is_untried:
            leave_untried(h, i)
        elif judgement.is_permanent:
            self.scheduler.failed(self.ready, &h.t, i, judgement.trouble, mono_ms() - h.started_ms)
        else:
            self.scheduler.deferred(self.ready, &h.t, i, judgement.trouble, mono_ms() - h.started_ms)
        return 0

    cdef int tell_rest(self, hand *h, const uint8_t *states, object judgement) except -1:
        """All recipients without an outcome get this one. `states`: the session's, NULL when it never saw them."""
        cdef uint32_t i
        cdef uint64_t elapsed_ms = mono_ms() - h.started_ms if states != NULL else 0
        for i in range(h.t.count):
            if states != NULL:
                if states[i] == RECIPIENT_TOLD:
                    continue
                (<uint8_t *>states)[i] = RECIPIENT_TOLD
            if judgement.is_permanent:
                self.scheduler.failed(self.ready, &h.t, i, judgement.trouble, elapsed_ms)
            else:
                self.scheduler.deferred(self.ready, &h.t, i, judgement.trouble, elapsed_ms)
        return 0

    cdef int settle(self, hand *h) except -1:
        """The transaction is over: every recipient has its outcome or was told "too many" and goes back."""
        cdef transaction told
        cdef uint32_t i, kept = 0
        if h.state != HAND_OPEN:        # it ended before MAIL
            self.ready.give_pace(&h.t)
        if h.untried_count:
            for i in range(h.t.count):
                if is_untried(h, i):
                    h.t.recipients[kept] = h.t.recipients[i]
                    kept += 1
            told.message = h.t.message
            told.count = h.t.count - kept
            h.t.count = kept
            if told.count == 0:
                self.ready.give_pace(&h.t)
            self.ready.give_back(&h.t)          # first: the message must not be over before its rest is back
            self.scheduler.settle(&told)
        else:
            self.scheduler.settle(&h.t)
        return forget(h)

    cdef int give_back(self, hand *h) except -1:
        self.ready.give_pace(&h.t)
        self.ready.give_back(&h.t)
        return forget(h)

    cdef int give_back_untold(self, int slot) except -1:
        """Recipients of `slot` that have no outcome yet go back to the queue untried."""
        self.keep_untried(slot)
        return self.settle(&self.hands[slot])

    cdef int keep_untried(self, int slot) noexcept:
        """They will, when the transaction is over: settle()."""
        cdef hand *h = &self.hands[slot]
        cdef uint32_t i
        for i in range(h.t.count):
            if self.session.slots[slot].recipients[i] != RECIPIENT_TOLD and not is_untried(h, i):
                leave_untried(h, i)
        return 0


cdef bint is_untried(const hand *h, uint32_t i) noexcept:
    return h.untried_count != 0 and h.untried[i >> 3] >> (i & 7) & 1


cdef void leave_untried(hand *h, uint32_t i) noexcept:
    if h.untried_count == 0:
        memset(h.untried, 0, sizeof(h.untried))
    h.untried[i >> 3] |= <uint8_t>(1 << (i & 7))
    h.untried_count += 1


cdef int forget(hand *h) noexcept:
    free(h.envelope)
    h.envelope = NULL
    octets_unref(h.envelope_octets)
    octets_unref(h.body)
    h.envelope_octets = NULL
    h.body = NULL
    h.state = HAND_EMPTY
    h.untried_count = 0
    return 0


cdef void note_trace(Carrier self, hand *h, uint32_t i) noexcept:
    """RFC 2852 §4.1.4: trace, and in time a relay that knows nothing of by-times, are told as "relayed"."""
    cdef message_terms terms
    terms_read(h.envelope, &terms)
    if not self.session.is_lmtp and terms.by_mode and (
            terms.by_is_traced or not self.session.extensions & EXTENSION_DELIVERBY
            and terms.by_utc_s > <int64_t>(utc_ms() // 1000)):
        h.t.recipients[i].flags |= RECIPIENT_TRACED
