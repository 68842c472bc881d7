# What attempts end in, one recipient at a time: delivered | failed | expired | deferred, who is told of it, and when a
# deferred one is tried again. What follows for the message as a whole: keeper.pyx.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from angarium.metrics.counters cimport Counter
from angarium.model.clock cimport utc_ms
from angarium.queue.domains cimport DomainQueue
from angarium.queue.fetch cimport fetch_envelope
from angarium.queue.flows cimport Flow
from angarium.queue.guests cimport guest_delivered, guest_refused
from angarium.queue.keeper cimport Keeper
from angarium.queue.lists cimport list_remove
from angarium.queue.log cimport envelope_recipient, log_outcome
from angarium.queue.message cimport (
    MESSAGE_HAS_TERMS, OUTCOME_DELIVERED, OUTCOME_EXPIRED, OUTCOME_FAILED, OUTCOME_WAITING, PLACE_DEFERRED,
    PLACE_AWAITING, PLACE_BEHIND, PLACE_HANDED, PLACE_IN_HAND, PLACE_NOWHERE, PLACE_READY, PLACE_UNROUTED, RECIPIENT_DELAY_DUE, RECIPIENT_DELAY_TOLD,
    RECIPIENT_RELAYED, RECIPIENT_SOURCE_SHIFT, RECIPIENT_SUSPENDED, RECIPIENT_TRACED, STATE_ELSEWHERE, flow_of, message, message_of,
    ready_number_of, recipient, transaction,
)
from angarium.queue.ready cimport ReadyQueue
from angarium.queue.terms cimport message_terms, tenant_in, terms_of
from angarium.queue.wheel cimport wheel_node
from angarium.smtp.csmtp cimport SMTP_NOTIFY_DELAY, SMTP_NOTIFY_FAILURE, SMTP_NOTIFY_SUCCESS
from angarium.queue.planner cimport attribute_of
from angarium.spool.cspool cimport SPOOL_ATTRIBUTE_CAMPAIGN, SPOOL_ATTRIBUTE_TENANT, SPOOL_ENVELOPE_IS_DSN, spool_envelope, spool_envelope_open, spool_recipient

import functools

from angarium.bounces.classes import UNCLASSIFIED
from angarium.metrics.counters import counter, gauge
from angarium.model.outcome import Trouble
from angarium.queue.notices import Place, Tally

cdef Counter recipients_delivered = counter("angarium_recipients_delivered_total", "Recipients delivered.")
cdef Counter recipients_deferred = counter("angarium_recipients_deferred_total", "Attempts that ended in a deferral.")
cdef Counter recipients_failed = counter("angarium_recipients_failed_total", "Recipients failed for good.")
cdef Counter recipients_expired = counter("angarium_recipients_expired_total", "Recipients given up for age.")
cdef Counter queue_deferred = gauge("angarium_queue_deferred", "Recipients waiting for their next attempt now.")

cdef enum:
    CONCLUSIONS_AT_ONCE = 512   # more of them under way would only take memory
    FLOWS_AT_ONCE = 10000       # told to the supervisor, whose loop has other things to do: the rest a second later

cdef double BEHIND_S = 0.002

# RFC 2852 §4.1.4.1
TOO_LATE = Trouble(0, (5, 4, 7), "not delivered by the time that its sender had set")


cdef object too_late(object trouble):
    """The same for a recipient of whose last attempt something is known."""
    return Trouble(trouble.code, (5, 4, 7), f"{TOO_LATE.text}; last: {trouble.text}", trouble.remote, phase=trouble.phase)


cdef void retry_due(wheel_node *node, void *context) noexcept:
    cdef Outcomes outcomes = <Outcomes>context
    cdef recipient *r = <recipient *>node
    message_of(r).deferred_count -= 1
    queue_deferred.cell[0] -= 1
    r.flags &= <uint16_t>~RECIPIENT_SUSPENDED
    r.link.where = PLACE_NOWHERE
    outcomes.route(r)


cdef class Outcomes(Keeper):
    """Ends attempts, and brings back who is to be tried again. A base of the Scheduler."""

    cdef void delivered(self, ReadyQueue ready, transaction *t, uint32_t i, uint16_t code, const uint8_t *text,
                        size_t text_length, const uint8_t *remote, size_t remote_length, uint64_t elapsed_ms,
                        bint peer_has_dsn, const char *tls_version, const char *tls_cipher,
                        const char *tls_policy, const char *tls_policy_from) noexcept:
        cdef recipient *r = t.recipients[i]
        cdef message *m = t.message
        if m.state_in_flight == STATE_ELSEWHERE:
            guest_delivered(t, i, code, text, text_length, remote, remote_length, elapsed_ms, peer_has_dsn, tls_version,
                            tls_cipher, tls_policy, tls_policy_from)
            return
        r.link.tally += 1
        log_outcome(self.journal, b"delivered", m, r, ready.site_name, ready.source_name, remote, remote_length,
                    code, 0, 0, 0, text, text_length, elapsed_ms, tls_version, tls_cipher,
                    tls_policy, tls_policy_from, NULL)
        recipients_delivered.cell[0] += 1
        ready.delivered_count += 1
        if self.counts_attempts:
            ready.delivered_tally += 1
            self.tally(ready)
            if self.counts_flows:
                self.tally_flow(m, 0)
        r.outcome = OUTCOME_DELIVERED
        if r.notify & SMTP_NOTIFY_SUCCESS and not peer_has_dsn or r.flags & RECIPIENT_TRACED:
            if ready.site.protocol == "smtp":       # LMTP and Maildirs are the end of the way (RFC 3461 §5.2.2)
                r.flags |= RECIPIENT_RELAYED
            if remote_length:       # what a local delivery says (a path) is the operator's, not the sender's
                self.note_trouble(m, r, Trouble(code, (2, 0, 0), text[:text_length].decode("utf-8", "replace"),
                                                remote[:remote_length].decode("utf-8", "replace")))
            self.report_due(m, r)
        self.detach(r)

    cdef void deferred(self, ReadyQueue ready, transaction *t, uint32_t i, object trouble, uint64_t elapsed_ms) noexcept:
        ready.remark(trouble)
        if t.message.state_in_flight == STATE_ELSEWHERE:
            guest_refused(t, i, trouble, False, elapsed_ms)
        else:
            self.conclude(t.message, t.recipients[i], ready, trouble, False, elapsed_ms)

    cdef void failed(self, ReadyQueue ready, transaction *t, uint32_t i, object trouble, uint64_t elapsed_ms) noexcept:
        ready.remark(trouble)
        if t.message.state_in_flight == STATE_ELSEWHERE:
            guest_refused(t, i, trouble, True, elapsed_ms)
        else:
            self.conclude(t.message, t.recipients[i], ready, trouble, True, elapsed_ms)

    cdef void conclude(self, message *m, recipient *r, ReadyQueue ready, object trouble, bint is_permanent,
                       uint64_t elapsed_ms) noexcept:
        """One attempt of r has ended without delivery. r is in no list; the message's envelope is in memory if it can be."""
        cdef bytes text, remote, name
        cdef uint64_t now = utc_ms()
        cdef uint64_t begun_ms = m.received_utc_ms
        cdef uint64_t age_ms
        cdef message_terms terms
        cdef const char *event = b"deferred"
        cdef bytes site = ready.site_name if ready is not None else None
        cdef bytes source = ready.source_name if ready is not None else None
        cdef double delay_s
        try:
            if self.notices is not None and ready is not None:
                is_permanent = self.noticed(m, ready, trouble, is_permanent)
            terms.by_mode = 0
            if m.flags & MESSAGE_HAS_TERMS and terms_of(m, &terms):
                begun_ms = max(begun_ms, terms.hold_until_utc_s * 1000)
                if not is_permanent and terms.by_mode == c'R' and now >= <uint64_t>terms.by_utc_s * 1000:
                    is_permanent = True
                    trouble = too_late(trouble)
            age_ms = now - begun_ms if now > begun_ms else 0
            if r.link.tally < 65535:
                r.link.tally += 1
            self.note_trouble(m, r, trouble)
            if trouble.is_of_source and r.flags >> RECIPIENT_SOURCE_SHIFT < 255:
                r.flags += <uint16_t>(1 << RECIPIENT_SOURCE_SHIFT)
            if is_permanent:
                event = b"failed"
                r.outcome = OUTCOME_FAILED
                recipients_failed.cell[0] += 1
            elif age_ms >= <uint64_t>(self.max_age_s * 1000):
                event = b"expired"
                r.outcome = OUTCOME_EXPIRED
                recipients_expired.cell[0] += 1
            else:
                recipients_deferred.cell[0] += 1
                if r.notify & SMTP_NOTIFY_DELAY and self.delay_report_s and age_ms >= <uint64_t>(self.delay_report_s * 1000):
                    self.delay_due(m, r, True)
            bounce_class = self.class_of(trouble)
            name = bounce_class.encode("ascii")
            text = trouble.text.encode("utf-8", "replace")
            remote = trouble.remote.encode("utf-8", "replace")
            log_outcome(self.journal, event, m, r, site, source, <const uint8_t *>(<const char *>remote), len(remote),
                        trouble.code, trouble.status[0], trouble.status[1], trouble.status[2],
                        <const uint8_t *>(<const char *>text), len(text), elapsed_ms, NULL, NULL, NULL, NULL, name)
            m.is_dirty = True
            if ready is not None and r.outcome != OUTCOME_WAITING:
                ready.failed_count += 1
            elif ready is not None:
                ready.deferred_count += 1
            if r.outcome != OUTCOME_WAITING:
                if self.on_failed is not None and trouble.phase != "order":     # no peer has said anything
                    self.tell_failed(m, r, bounce_class)
                if self.wants_failure_report(m, r):
                    self.report_due(m, r)
                self.detach(r)
                return
            delay_s = self.retry_delay_s(m, r, trouble.delay_s, ready)
            if self.hastens:
                delay_s = self.hasten(m, r, trouble.delay_s, delay_s)
            # The last attempt falls on the expiry itself, so that giving up is not late by up to a whole interval.
            delay_s = min(delay_s, max((self.max_age_s * 1000 - age_ms) / 1000.0, 1.0))
        except Exception as error:
            self.journal.log("error", where="conclude", reason=repr(error))
            delay_s = self.retry_first_s
        self.defer(r, <uint64_t>(delay_s * 1000))

    cdef double retry_delay_s(self, message *m, recipient *r, double least_s, ReadyQueue ready) noexcept:
        """first * factor^(attempts - 1), capped; the jitter is the same for all recipients of a message at the same
        attempt, so that they travel together again."""
        cdef double delay = self.retry_first_s, factor = self.retry_factor, most = self.retry_max_s
        cdef double jitter = self.retry_jitter
        cdef int i
        cdef uint64_t mixed = (m.id + r.link.tally) * <uint64_t>0x9E3779B97F4A7C15ULL
        if ready is not None and ready.retry_first_s > 0.0:
            delay, factor, most, jitter = ready.retry_first_s, ready.retry_factor, ready.retry_max_s, ready.retry_jitter
        for i in range(1, r.link.tally):
            delay *= factor
            if delay >= most:
                delay = most
                break
        delay *= 1.0 + jitter * (<double>(mixed >> 40) / <double>(1 << 23) - 1.0)
        return max(delay, least_s, 0.1)

    # ---- for automation ----

    def notice_by(self, notices):
        """Rules of a new configuration, or None."""
        self.notices = notices
        self.counts_attempts = notices is not None and notices.counts_rates
        self.counts_flows = notices is not None and notices.counts_flows
        self.asks_envelope = notices is not None and notices.asks_envelope
        if self.tallied is None:
            self.tallied, self.tallied_flows = [], []

    cdef void tally(self, ReadyQueue ready) noexcept:
        if ready.is_tallied:
            return
        try:
            self.tallied.append(ready)
            ready.is_tallied = True
            self.notices.await_flush()
        except Exception:
            pass                            # out of memory, or the loop is closing: not counted

    cdef void tally_flow(self, message *m, int outcome) noexcept:
        cdef uint32_t number = flow_of(m)
        cdef Flow flow
        if number == 0:
            return
        flow = <Flow>self.flows.flows[number]
        flow.tallies[outcome] += 1
        if flow.is_tallied:
            return
        try:
            self.tallied_flows.append(flow)         # which may have no message any more when it is asked for
            flow.is_tallied = True
            self.notices.await_flush()
        except Exception:
            pass                            # likewise

    cdef double hasten(self, message *m, recipient *r, double least_s, double delay_s) except -1.0:
        return delay_s

    def take_tallies(self):
        """How attempts have ended since this was asked last: list of notices.Tally."""
        cdef ReadyQueue ready
        cdef Flow flow
        cdef list found = []
        for ready in self.tallied:
            found.append(Tally(self.place_of(ready), ready.delivered_tally, ready.deferred_tally, ready.failed_tally))
            ready.delivered_tally = ready.deferred_tally = ready.failed_tally = 0
            ready.is_tallied = False
        self.tallied.clear()
        for flow in self.tallied_flows[:FLOWS_AT_ONCE]:
            place = Place(tenant=flow.tenant.decode("utf-8", "replace"), campaign=flow.campaign.decode("utf-8", "replace"))
            found.append(Tally(place, flow.tallies[0], flow.tallies[1], flow.tallies[2]))
            flow.tallies[0] = flow.tallies[1] = flow.tallies[2] = 0
            flow.is_tallied = False
        del self.tallied_flows[:FLOWS_AT_ONCE]
        if self.tallied_flows:
            self.notices.await_flush()
        return found

    cdef object place_of(self, ReadyQueue ready):
        if ready.place is None:
            provider = self.shaping.provider_of(ready.site, ready.kind)
            ready.place = Place(ready.site.name, provider, ready.source.name)
        return ready.place

    cdef bint noticed(self, message *m, ReadyQueue ready, object trouble, bint is_permanent) noexcept:
        """Whether the failure is for good, after what rules say of such replies."""
        cdef spool_envelope view
        try:
            place = self.place_of(ready)
            if self.asks_envelope and m.envelope != NULL and \
                    spool_envelope_open(m.envelope.data, m.envelope.length, &view) == 0:
                tenant = attribute_of(&view, SPOOL_ATTRIBUTE_TENANT) or b""
                campaign = attribute_of(&view, SPOOL_ATTRIBUTE_CAMPAIGN) or b""
                place = Place(place.site, place.provider, place.source, tenant.decode("utf-8", "replace"),
                              campaign.decode("utf-8", "replace"))
            is_permanent = self.notices.failed(trouble, is_permanent, place)
            if self.counts_attempts:
                if is_permanent:
                    ready.failed_tally += 1
                else:
                    ready.deferred_tally += 1
                self.tally(ready)
                if self.counts_flows:
                    self.tally_flow(m, 2 if is_permanent else 1)
        except Exception as error:          # what automation makes of a failure may not keep its outcome from being told
            self.journal.log("error", where="automation", reason=repr(error))
        return is_permanent

    cdef str class_of(self, object trouble):
        try:
            return self.classifier.count(trouble)
        except Exception as error:          # what the failure means for statistics may not keep its outcome from being told
            self.journal.log("error", where="classify", reason=repr(error))
            return UNCLASSIFIED

    cdef bint wants_failure_report(self, message *m, recipient *r) noexcept:
        # Whether there is somebody to tell (null reverse-path) is known to the reporter, who reads the envelope.
        return not m.flags & SPOOL_ENVELOPE_IS_DSN and (r.notify == 0 or r.notify & SMTP_NOTIFY_FAILURE)

    cdef void tell_failed(self, message *m, recipient *r, object name) noexcept:
        cdef spool_envelope view
        cdef spool_recipient found
        try:
            if m.flags & SPOOL_ENVELOPE_IS_DSN or not envelope_recipient(m, r.index, &found):
                return
            spool_envelope_open(m.envelope.data, m.envelope.length, &view)      # as in envelope_recipient()
            self.on_failed(name, tenant_in(&view), found.forward_path.data[:found.forward_path.length])
        except Exception as error:
            self.journal.log("error", where="on_failed", reason=repr(error))

    cdef void note_trouble(self, message *m, recipient *r, object trouble) noexcept:
        try:
            self.troubles.note(r, trouble)
        except Exception as error:          # out of memory: the attempt counts, its reason is not kept
            self.journal.log("error", where="trouble", reason=repr(error))

    cdef void delay_due(self, message *m, recipient *r, bint is_asked) noexcept:
        """The sender is told once that r waits still."""
        if is_asked and not r.flags & (RECIPIENT_DELAY_DUE | RECIPIENT_DELAY_TOLD) and not m.flags & SPOOL_ENVELOPE_IS_DSN:
            r.flags |= RECIPIENT_DELAY_DUE
            m.report_count += 1
            m.is_dirty = True

    # ---- of recipients whose envelope may not be in memory ----

    cdef void conclude_later(self, recipient *r, object ready, object trouble, bint is_permanent) noexcept:
        """conclude() for a recipient in no list whose envelope may have to be read back first (the log line and the
        report name it)."""
        cdef message *m = message_of(r)
        r.link.where = PLACE_IN_HAND
        if m.envelope != NULL:
            self.hold(m)
            self.conclude(m, r, ready, trouble, is_permanent, 0)
            self.release(m)
            return
        self.hold(m)
        self.conclusions_waiting += 1
        try:
            fetch_envelope(self, m, functools.partial(self.concluded_later, <size_t>r, ready, trouble, is_permanent))
        except Exception as error:
            self.conclusions_waiting -= 1
            self.journal.log("error", where="read back", reason=repr(error))
            self.conclude(m, r, ready, trouble, is_permanent, 0)
            self.release(m)

    def concluded_later(self, size_t pointer, ReadyQueue ready, trouble, bint is_permanent, int error):
        cdef recipient *r = <recipient *>pointer
        cdef message *m = message_of(r)
        self.conclusions_waiting -= 1
        self.conclude(m, r, ready, trouble, is_permanent, 0)
        self.release(m)

    cdef bint is_behind(self) noexcept:
        return self.conclusions_waiting >= CONCLUSIONS_AT_ONCE

    cdef int later(self, callback, trouble, bint is_permanent, uint64_t remaining) except -1:
        if self.is_behind():
            self.loop.call_later(BEHIND_S, callback, trouble, is_permanent, remaining)
        else:
            self.loop.call_soon(callback, trouble, is_permanent, remaining)
        return 0

    # ---- where recipients wait ----

    cdef void defer(self, recipient *r, uint64_t delay_ms) noexcept:
        """Puts r (in no list) into the wheel."""
        r.link.where = PLACE_DEFERRED
        message_of(r).deferred_count += 1
        queue_deferred.cell[0] += 1
        self.wheel.arm(&r.link, delay_ms)

    cdef void undefer(self, recipient *r) noexcept:
        """Takes a deferred recipient out of the wheel; the caller routes or ends it."""
        self.wheel.disarm(&r.link)
        r.flags &= <uint16_t>~RECIPIENT_SUSPENDED
        r.link.where = PLACE_NOWHERE
        message_of(r).deferred_count -= 1
        queue_deferred.cell[0] -= 1

    cdef bint take_out(self, recipient *r) noexcept:
        """Takes a recipient out of whatever list it waits in; False when it is in hand."""
        if r.link.where == PLACE_DEFERRED:
            self.undefer(r)
        elif r.link.where == PLACE_READY or r.link.where == PLACE_BEHIND:
            (<ReadyQueue>self.ready_numbers[r.link.due]).remove(r)
        elif r.link.where == PLACE_UNROUTED:
            (<DomainQueue>r.domain).unrouted -= 1
            list_remove(&r.link)
            r.link.where = PLACE_NOWHERE
        elif r.link.where == PLACE_AWAITING:
            list_remove(&r.link)
            r.link.where = PLACE_NOWHERE
        else:
            return False
        return True

    cdef bint call_back(self, recipient *r) noexcept:
        cdef ReadyQueue ready
        if r.link.where != PLACE_HANDED:
            return False
        ready = self.ready_numbers.get(ready_number_of(r.link.due))
        if ready is not None:
            ready.egress.call_back(ready)
        return ready is not None

    cdef uint64_t deferred_now(self) noexcept:
        return queue_deferred.cell[0]
