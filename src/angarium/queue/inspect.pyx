# Looking at the queue and giving it orders, slice by slice: no call here touches more than a bounded number of
# messages. queue/orders.py strings the slices together for the admin API.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from angarium.model.clock cimport utc_ms
from angarium.queue.log cimport envelope_recipient
from angarium.queue.message cimport (OUTCOME_DELIVERED, OUTCOME_EXPIRED, OUTCOME_FAILED, OUTCOME_WAITING, NOTIFY_EXPANDED,
                                     PLACE_BEHIND, PLACE_DEFERRED, PLACE_HANDED, PLACE_IN_HAND, PLACE_NOWHERE, PLACE_READY, PLACE_SETTLED,
                                     PLACE_UNROUTED, RECIPIENT_DELAY_DUE, PLACE_AWAITING, RECIPIENT_RELAYED, RECIPIENT_REPORT_DUE, RECIPIENT_SUSPENDED,
                                     RECIPIENT_TRACED, message, recipient, worker_of)
from angarium.queue.domains cimport DomainQueue
from angarium.queue.ledger cimport shard_of
from angarium.queue.scheduler cimport Scheduler
from angarium.queue.terms cimport has_attributes, message_terms, terms_read
from angarium.queue.troubles cimport trouble_of
from angarium.spool.cspool cimport (spool_attribute, spool_envelope_next_attribute, SPOOL_ENVELOPE_BINARYMIME,
                                    SPOOL_ENVELOPE_REQUIRETLS, SPOOL_ENVELOPE_TLS_OPTIONAL, SPOOL_ENVELOPE_RET_FULL,
                                    SPOOL_ENVELOPE_RET_HDRS, SPOOL_ENVELOPE_SMTPUTF8,
                                    spool_chunk, spool_envelope, spool_envelope_chunk, spool_envelope_next_recipient,
                                    spool_envelope_open, spool_id_decode, spool_id_encode, spool_recipient)

from angarium.model.errors import SpoolCorrupt
from angarium.spool.envelope import Attribute

from angarium.routing.route_key import route_text

cdef int64_t LAST_DATE_S = 253402300799       # the end of 9999: later ones no report can write

PLACES = {PLACE_NOWHERE: "routing", PLACE_UNROUTED: "unrouted", PLACE_READY: "ready", PLACE_IN_HAND: "in hand",
          PLACE_DEFERRED: "deferred", PLACE_SETTLED: "settled", PLACE_AWAITING: "routing",
          PLACE_BEHIND: "behind"}
# Times and the priority are shown as values of their own.
SHOWN_ATTRIBUTES = {each.value: each.name.lower() for each in Attribute
                    if each not in (Attribute.HOLD_UNTIL, Attribute.DELIVER_BY, Attribute.PRIORITY)}
OUTCOMES = {OUTCOME_WAITING: "waiting", OUTCOME_DELIVERED: "delivered", OUTCOME_FAILED: "failed",
            OUTCOME_EXPIRED: "expired"}


def id_text(uint64_t id):
    cdef char text[13]
    spool_id_encode(id, text)
    return text[:13].decode("ascii")


def id_number(str text):
    """The number of an id as people write it, or None when it is not one."""
    cdef uint64_t id
    cdef bytes octets_ = text.encode("utf-8", "replace")
    if not spool_id_decode(octets_, len(octets_), &id):
        return None
    return id


cdef inline bint is_of(recipient *r, bytes domain) noexcept:
    """Whether an order for the domain (None: all) means this recipient. "@example.com": the domain and all below it."""
    cdef bytes name
    if domain is None or (<DomainQueue>r.domain).is_of(domain):
        return True
    name = (<DomainQueue>r.domain).domain
    return domain[:1] == b"@" and (name == domain[1:] or name.endswith(b"." + domain[1:]))


cdef bint matches(message *m, bytes domain) noexcept:
    cdef uint32_t i
    if domain is None:
        return True
    for i in range(m.recipient_count):
        if m.recipients[i].outcome == OUTCOME_WAITING and is_of(&m.recipients[i], domain):
            return True
    return False


cdef str place_of(recipient *r):
    """Who waits in the wheel without an attempt waits for its time (FUTURERELEASE), or for the end of an order."""
    if r.link.where == PLACE_DEFERRED and r.flags & RECIPIENT_SUSPENDED:
        return "suspended"
    if r.link.where == PLACE_HANDED:
        return f"handed to worker {worker_of(r.link.due)}"
    return "held" if r.link.where == PLACE_DEFERRED and r.link.tally == 0 else PLACES[r.link.where]


cdef dict summary(Scheduler scheduler, message *m):
    cdef uint32_t i, shown = 0
    cdef list domains = []
    cdef object next_attempt = None
    cdef recipient *r
    cdef str text = None
    cdef set places = set()
    for i in range(m.recipient_count):
        r = &m.recipients[i]
        trouble = trouble_of(r)
        if trouble is not None:
            text = trouble.text
        if r.outcome != OUTCOME_WAITING:
            continue
        places.add(place_of(r))
        if shown < 20:
            name = (<DomainQueue>r.domain).domain.decode("utf-8", "replace")
            if name not in domains:
                domains.append(name)
                shown += 1
        if r.link.where == PLACE_DEFERRED:
            due = (utc_ms() + scheduler.wheel.remaining_ms(&r.link)) / 1000.0
            if next_attempt is None or due < next_attempt:
                next_attempt = due
    return {"id": id_text(m.id), "received_utc_s": m.received_utc_ms / 1000.0, "octets": m.message_octets,
            "priority": m.priority, "recipients": m.recipient_count, "waiting": m.live_count, "places": sorted(places), "domains": domains,
            "next_attempt_utc_s": next_attempt, "last_trouble": text}


def list_slice(Scheduler scheduler, uint64_t slot, int limit, bytes domain, int look=5000):
    """Up to `limit` messages from index slot `slot` on, looking at no more than `look`: (next slot or -1, summaries)."""
    cdef message *m
    cdef list found = []
    while look > 0 and len(found) < limit:
        m = scheduler.index.next_from(&slot)
        if m == NULL:
            return -1, found
        look -= 1 + m.recipient_count // 16
        if matches(m, domain):
            found.append(summary(scheduler, m))
    return slot, found


def summary_of(Scheduler scheduler, uint64_t id):
    cdef message *m = scheduler.index.find(id)
    return None if m == NULL else summary(scheduler, m)


def has_message(Scheduler scheduler, uint64_t id):
    return scheduler.index.find(id) != NULL


def read_back(Scheduler scheduler, uint64_t id, done):
    """Has the envelope of a message in memory when done(error) is called; False when there is no such message."""
    cdef message *m = scheduler.index.find(id)
    if m == NULL:
        return False
    scheduler.fetch(m, done)
    return True


cdef dict terms_shown(const spool_envelope *view):
    cdef message_terms terms
    cdef dict shown = {}
    terms_read(view, &terms)
    if terms.hold_until_utc_s:
        shown["hold_until_utc_s"] = terms.hold_until_utc_s
    if terms.by_mode:
        shown["deliver_by_utc_s"] = terms.by_utc_s
        shown["deliver_by_mode"] = chr(terms.by_mode) + ("T" if terms.by_is_traced else "")
    return shown


def show(Scheduler scheduler, uint64_t id):
    """Everything about a message (its envelope as far as it is in memory: see read_back), or None."""
    cdef message *m = scheduler.index.find(id)
    cdef spool_envelope view
    cdef spool_recipient found
    cdef recipient *r
    cdef uint32_t i
    cdef dict result
    cdef list recipients = []
    cdef spool_attribute attribute
    cdef const uint8_t *cursor
    if m == NULL:
        return None
    result = summary(scheduler, m)
    if m.flags & SPOOL_ENVELOPE_REQUIRETLS:
        result["tls"] = "required"
    elif m.flags & SPOOL_ENVELOPE_TLS_OPTIONAL:
        result["tls"] = "optional"
    if m.envelope != NULL and spool_envelope_open(m.envelope.data, m.envelope.length, &view) == 0:
        result["from"] = view.reverse_path.data[:view.reverse_path.length].decode("utf-8", "replace")
        if has_attributes(&view):
            result.update(terms_shown(&view))
        result["envid"] = view.envid.data[:view.envid.length].decode("utf-8", "replace")
        result["helo"] = view.helo.data[:view.helo.length].decode("utf-8", "replace")
        result["client"] = view.client_address.data[:view.client_address.length].decode("utf-8", "replace")
        cursor = view.end
        while spool_envelope_next_attribute(&view, &cursor, &attribute):
            if attribute.key in SHOWN_ATTRIBUTES:
                name = SHOWN_ATTRIBUTES[attribute.key]
                result.setdefault(name, attribute.text.data[:attribute.text.length].decode("utf-8", "replace"))
    for i in range(m.recipient_count):
        r = &m.recipients[i]
        entry = {"to": None, "outcome": OUTCOMES[r.outcome], "place": place_of(r), "attempts": r.link.tally,
                 "domain": (<DomainQueue>r.domain).domain.decode("utf-8", "replace")}
        route = (<DomainQueue>r.domain).route
        if route and route_text(route):
            entry["route"] = route_text(route)
        if envelope_recipient(m, i, &found):
            entry["to"] = found.forward_path.data[:found.forward_path.length].decode("utf-8", "replace")
        if r.link.where == PLACE_DEFERRED:
            entry["next_attempt_utc_s"] = (utc_ms() + scheduler.wheel.remaining_ms(&r.link)) / 1000.0
        trouble = trouble_of(r)
        if trouble is not None:
            if trouble.code:
                entry["code"] = trouble.code
            entry["status"] = "%d.%d.%d" % trouble.status
            entry["reply"] = trouble.text
            entry["remote"] = trouble.remote
        recipients.append(entry)
    result["recipients"] = recipients
    return result


# ---- for reports ----

class RecipientFacts:
    """One recipient a report is due for."""

    __slots__ = ("forward_path", "index", "is_asked_by_terms", "is_late", "notify", "orcpt", "outcome", "trouble")


class ReportFacts:
    """What a report needs to know of a message; see queue/reports.py."""

    __slots__ = ("content", "deliver_by_utc_s", "envid", "first_chunk", "helo", "hold_for_s", "hold_until_utc_s", "id", "is_binary",
                 "is_smtputf8", "message_octets", "priority", "received_utc_s", "recipients", "requires_tls", "ret",
                 "reverse_path", "shard", "will_retry_until_utc_s")


def fetch_for_report(Scheduler scheduler, size_t pointer, done):
    scheduler.fetch(<message *>pointer, done)


def report_facts(Scheduler scheduler, size_t pointer):
    """Of a message the scheduler holds. Raises SpoolCorrupt when its envelope cannot be read."""
    cdef message *m = <message *>pointer
    cdef spool_envelope view
    cdef spool_recipient found
    cdef const uint8_t *cursor
    cdef spool_chunk chunk
    cdef recipient *r
    cdef message_terms terms
    cdef uint32_t i = 0
    if m.envelope == NULL or spool_envelope_open(m.envelope.data, m.envelope.length, &view) != 0:
        raise SpoolCorrupt(f"the envelope of {id_text(m.id)} cannot be read")
    facts = ReportFacts()
    facts.id = m.id
    facts.shard = shard_of(scheduler, m)
    terms_read(&view, &terms)
    facts.will_retry_until_utc_s = max(m.received_utc_ms / 1000.0, terms.hold_until_utc_s) + scheduler.max_age_s
    facts.deliver_by_utc_s = float(terms.by_utc_s) if terms.by_mode and terms.by_utc_s <= LAST_DATE_S else None
    facts.hold_until_utc_s = (
        float(terms.hold_until_utc_s) if terms.hold_is_asked and <int64_t>terms.hold_until_utc_s <= LAST_DATE_S else None)
    facts.hold_for_s = terms.hold_for_s
    facts.priority = m.priority
    facts.is_binary = bool(m.flags & SPOOL_ENVELOPE_BINARYMIME)
    facts.message_octets = view.message_octets
    facts.received_utc_s = m.received_utc_ms / 1000.0
    facts.reverse_path = view.reverse_path.data[:view.reverse_path.length]
    facts.envid = view.envid.data[:view.envid.length]
    facts.helo = view.helo.data[:view.helo.length]
    facts.ret = "FULL" if m.flags & SPOOL_ENVELOPE_RET_FULL else "HDRS" if m.flags & SPOOL_ENVELOPE_RET_HDRS else ""
    facts.is_smtputf8 = bool(m.flags & SPOOL_ENVELOPE_SMTPUTF8)
    facts.requires_tls = bool(m.flags & SPOOL_ENVELOPE_REQUIRETLS)
    facts.content = m.body.data[:m.body.length] if m.body != NULL else None
    facts.first_chunk = None
    if m.body == NULL and view.chunk_count:
        chunk = spool_envelope_chunk(&view, 0)
        facts.first_chunk = (chunk.segment_serial, chunk.offset, chunk.length)
    facts.recipients = []
    cursor = view.recipients
    while i < m.recipient_count and spool_envelope_next_recipient(&view, &cursor, &found):
        r = &m.recipients[i]
        if r.flags & (RECIPIENT_REPORT_DUE | RECIPIENT_DELAY_DUE):
            each = RecipientFacts()
            each.index = i
            each.forward_path = found.forward_path.data[:found.forward_path.length]
            each.orcpt = found.orcpt.data[:found.orcpt.length]
            each.notify = found.notify
            each.trouble = trouble_of(r)
            # A by-time asks for itself where NOTIFY says nothing (RFC 2852 §4).
            each.is_asked_by_terms = bool(r.flags & RECIPIENT_TRACED) if r.outcome == OUTCOME_DELIVERED else (
                terms.by_mode == c'N' and r.notify == 0)
            each.is_late = terms.by_mode != 0 and terms.by_utc_s <= <int64_t>(utc_ms() // 1000)
            if r.notify & NOTIFY_EXPANDED:
                each.outcome = "expanded"
            elif r.flags & RECIPIENT_DELAY_DUE and r.outcome == OUTCOME_WAITING:
                each.outcome = "delayed"
            elif r.outcome == OUTCOME_DELIVERED:
                each.outcome = "relayed" if r.flags & RECIPIENT_RELAYED else "delivered"
            else:
                each.outcome = OUTCOMES[r.outcome]
            facts.recipients.append(each)
        i += 1
    return facts
