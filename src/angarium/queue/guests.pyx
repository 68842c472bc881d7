# Guests: references to messages in other workers' shards, which this worker delivers because it is the home of their site. Here they
# wait and get their turn; how they come and what is answered is handover/'s. A guest is a message like any other to who delivers it
# (Carrier); what tells it apart is message.state_in_flight, STATE_ELSEWHERE: outcomes are its owner's to write down.
#
# Turns. Our own mail and each worker's have a tag, the octets they were given; the least has its turn, and who begins to wait begins
# at the tag of the one served last (as csrc/queue/fair.h). What a worker hands over is in the order of its own ready queue already, so
# that a line is enough. There are as many tags as workers at the most: they are looked through.
cimport cython
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from cpython.object cimport PyObject

from angarium.metrics.counters cimport Counter
from angarium.queue.domains cimport DomainQueue
from angarium.queue.message cimport (
    OUTCOME_DELIVERED, PLACE_IN_HAND, PLACE_READY, PLACE_SETTLED, RECIPIENT_TRACED, STATE_ELSEWHERE, domain_budget, message, recipient,
    transaction)
from angarium.queue.ready cimport ReadyQueue
from angarium.spool.cspool cimport SPOOL_ENVELOPE_INLINE, spool_segment
from angarium.spool.foreign cimport ForeignShard

from angarium.metrics.counters import gauge

cdef Counter queue_guests = gauge("angarium_handover_guests", "References of other workers that this one has to deliver now.")

cdef enum:
    MESSAGE_OCTETS = 4096       # judged: what a message costs besides its octets, so that small ones do not come for nothing
    DOMAINS_KEPT = 256
    LEAD_OCTETS = 1 << 19       # judged: some hundred messages, which a connection is worth (RCPTDOMAINMAX: it ends for another domain)

cdef uint64_t NO_TAG = <uint64_t>-1


cdef inline guest *guest_of(message *m) noexcept:
    return <guest *>(<char *>m - <size_t>&(<guest *>NULL).m)


cdef inline uint32_t place_in(guest *g, recipient *r) noexcept:
    return <uint32_t>(r - &g.m.recipients[0])


cdef guest *guest_new(uint32_t recipient_count) except NULL:
    cdef guest *g = <guest *>calloc(1, sizeof(guest) + (recipient_count - 1) * sizeof(recipient))
    if g == NULL:
        raise MemoryError()
    g.m.recipient_count = g.m.live_count = g.waiting = recipient_count
    g.m.state_in_flight = STATE_ELSEWHERE
    return g


cdef void guest_free(guest *g) noexcept:
    cdef uint32_t i
    if g.shard != NULL:
        for i in range(g.segment_count):
            (<ForeignShard>g.shard).drop(g.segments[i])
    free(g.segments)
    if not g.m.flags & SPOOL_ENVELOPE_INLINE:
        free(g.m.where.chunks)
    for i in range(g.m.recipient_count):
        Py_XDECREF(<PyObject *>g.m.recipients[i].domain)
    Py_XDECREF(<PyObject *>g.shard)
    Py_XDECREF(<PyObject *>g.lodger)
    free(g)


cdef inline void settled(guest *g, recipient *r) noexcept:
    r.link.where = PLACE_SETTLED
    g.m.live_count -= 1


cdef void guest_delivered(transaction *t, uint32_t i, uint16_t code, const uint8_t *text, size_t text_length,
                          const uint8_t *remote, size_t remote_length, uint64_t elapsed_ms, bint peer_has_dsn,
                          const char *tls_version, const char *tls_cipher, const char *tls_policy,
                          const char *tls_policy_from) noexcept:
    cdef guest *g = guest_of(t.message)
    cdef recipient *r = t.recipients[i]
    cdef Lodger lodger = <Lodger>g.lodger
    r.outcome = OUTCOME_DELIVERED
    settled(g, r)
    if lodger.answers is not None:
        lodger.answers.delivered(g, place_in(g, r), r.flags & RECIPIENT_TRACED != 0, code, text, text_length, remote,
                                 remote_length, elapsed_ms, peer_has_dsn, tls_version, tls_cipher, tls_policy, tls_policy_from)


cdef void guest_refused(transaction *t, uint32_t i, object trouble, bint is_permanent, uint64_t elapsed_ms) noexcept:
    cdef guest *g = guest_of(t.message)
    refuse(g, t.recipients[i], trouble, is_permanent, elapsed_ms)


cdef void refuse(guest *g, recipient *r, object trouble, bint is_permanent, uint64_t elapsed_ms) noexcept:
    cdef Lodger lodger = <Lodger>g.lodger
    settled(g, r)
    if lodger.answers is not None:
        lodger.answers.refused(g, place_in(g, r), trouble, is_permanent, elapsed_ms)


cdef uint32_t settle_guest(transaction *from_) noexcept:
    cdef uint32_t i
    for i in range(from_.count):
        if from_.recipients[i].link.where == PLACE_IN_HAND:
            settled(guest_of(from_.message), from_.recipients[i])
    return 0


cdef void guest_over(message *m) noexcept:
    cdef guest *g = guest_of(m)
    cdef Lodger lodger = <Lodger>g.lodger
    lodger.guest_count -= 1
    queue_guests.cell[0] -= 1
    if lodger.answers is not None:
        lodger.answers.over(g)
    guest_free(g)


cdef void unlink(Lodger lodger, guest *g) noexcept:
    if g.previous != NULL:
        g.previous.next = g.next
    else:
        lodger.first = g.next
    if g.next != NULL:
        g.next.previous = g.previous
    else:
        lodger.last = g.previous
    g.next = g.previous = NULL


cdef void link_in_front(Lodger lodger, guest *g) noexcept:
    g.next = lodger.first
    g.previous = NULL
    if lodger.first != NULL:
        lodger.first.previous = g
    else:
        lodger.last = g
    lodger.first = g


cdef void no_longer_waiting(Lodger lodger, guest *g, uint32_t count) noexcept:
    """So many of g's recipients; those in hand or settled do not count as waiting."""
    cdef ReadyQueue ready = <ReadyQueue>lodger.ready
    g.waiting -= count
    if g.waiting == 0:
        unlink(lodger, g)
    ready.guests.waiting -= count
    ready.guests_left(count)


cdef void over_if_settled(Lodger lodger, guest *g) noexcept:
    if g.m.live_count == 0 and g.m.hand_count == 0:
        (<ReadyQueue>lodger.ready).ledger.release_guest(&g.m)


cdef class Answers:
    cdef void delivered(self, guest *g, uint32_t place, bint is_traced, uint16_t code, const uint8_t *text, size_t text_length,
                        const uint8_t *remote, size_t remote_length, uint64_t elapsed_ms, bint peer_has_dsn,
                        const char *tls_version, const char *tls_cipher, const char *tls_policy,
                        const char *tls_policy_from) noexcept:
        pass

    cdef void refused(self, guest *g, uint32_t place, object trouble, bint is_permanent, uint64_t elapsed_ms) noexcept:
        pass

    cdef void over(self, guest *g) noexcept:
        pass

    cdef void source_down(self, Lodger lodger, object trouble, bint is_down) noexcept:
        pass

    cdef void not_here(self, Lodger lodger) noexcept:
        pass


@cython.final
cdef class Lodger:
    """Borrows nothing: each guest has a counted reference to it, and it a strong one to the ready queue."""

    def __cinit__(self, Answers answers not None, uint32_t channel):
        self.answers = answers
        self.channel = channel
        self.ready = None
        self.domains = {}

    cdef object domain_of(self, bytes name):
        found = self.domains.get(name)
        if found is None:
            if len(self.domains) >= DOMAINS_KEPT:
                self.domains.clear()        # guests have references of their own
            found = self.domains[name] = DomainQueue.__new__(DomainQueue, name)
        return found

    cdef void settle_in(self, object queue) noexcept:
        cdef ReadyQueue ready = <ReadyQueue>queue
        cdef ReadyQueue before
        try:
            if self.ready is not None:      # nothing of it waits there: that queue has been forgotten
                before = <ReadyQueue>self.ready
                if before.guests is not None and self in before.guests.lodgers:
                    before.guests.lodgers.remove(self)
            if ready.guests is None:
                ready.receive_guests(Guests())
            ready.guests.lodgers.append(self)
            self.tag = ready.guests.tag
            self.ready = ready
        except Exception as error:
            ready.ledger.journal.log("error", where="hand-over", reason=repr(error))

    cdef void lodge(self, guest *g) noexcept:
        cdef ReadyQueue ready = <ReadyQueue>self.ready
        cdef uint32_t i
        for i in range(g.m.recipient_count):
            g.m.recipients[i].link.where = PLACE_READY
        g.recall_count = self.recall_count
        g.lodger = <void *>self
        Py_INCREF(self)
        if self.first == NULL:
            self.tag = max(self.tag, ready.guests.tag)
            link_in_front(self, g)
        else:
            g.previous = self.last
            self.last.next = g
            self.last = g
        self.guest_count += 1
        queue_guests.cell[0] += 1
        ready.guests.waiting += g.waiting
        ready.guests_came(g.waiting)

    cdef void send_back(self) noexcept:
        cdef guest *g = self.first
        cdef guest *following
        cdef uint32_t i
        self.recall_count += 1
        while g != NULL:
            following = g.next
            for i in range(g.first, g.m.recipient_count):
                if g.m.recipients[i].link.where == PLACE_READY:
                    settled(g, &g.m.recipients[i])
            no_longer_waiting(self, g, g.waiting)
            over_if_settled(self, g)
            g = following

    cdef void leave(self) noexcept:
        cdef ReadyQueue ready = <ReadyQueue>self.ready
        self.answers = None
        self.send_back()
        try:
            if ready is not None and ready.guests is not None and self in ready.guests.lodgers:
                ready.guests.lodgers.remove(self)
                if not ready.guests.lodgers:
                    ready.receive_guests(None)
        except Exception as error:
            ready.ledger.journal.log("error", where="hand-over", reason=repr(error))


@cython.final
cdef class Guests:
    def __cinit__(self):
        self.lodgers = []

    cdef int take(self, transaction *into, uint32_t limit, domain_budget *domains, uint64_t own_count, bint own_may_go) noexcept:
        cdef Lodger lodger, best = None
        cdef uint64_t least = NO_TAG
        if own_count:
            if not self.has_own:
                self.own_tag = max(self.own_tag, self.tag)
            if own_may_go:
                least = self.own_tag
        self.has_own = own_count != 0
        for lodger in self.lodgers:
            if lodger.first != NULL and lodger.tag < least and (
                    domains == NULL or domains.left or lodger.first.m.recipients[lodger.first.first].domain == domains.last):
                best, least = lodger, lodger.tag
        if best is None:
            return 0 if own_may_go else -1
        if not take_some(best, into, limit, domains):
            return -1
        self.tag = best.tag
        best.tag += <uint64_t>into.message.message_octets + MESSAGE_OCTETS
        return 1

    cdef void charge_own(self, uint64_t octets_count) noexcept:
        self.tag = self.own_tag
        self.own_tag += octets_count + MESSAGE_OCTETS

    cdef uint32_t give_back(self, transaction *from_) noexcept:
        cdef guest *g = guest_of(from_.message)
        cdef Lodger lodger = <Lodger>g.lodger
        cdef recipient *r
        cdef uint32_t i, given = 0
        # Dropped, or the owner's again: it wants to route anew what was in hand, too, and has not been tried.
        if lodger.answers is None or (<ReadyQueue>lodger.ready).home >= 0 or g.recall_count != lodger.recall_count:
            return settle_guest(from_)
        for i in range(from_.count):
            r = from_.recipients[i]
            if r.link.where != PLACE_IN_HAND:
                continue
            r.link.where = PLACE_READY
            g.first = min(g.first, place_in(g, r))
            given += 1
        if given:
            if g.waiting == 0:
                link_in_front(lodger, g)
            g.waiting += given
            self.waiting += given
        return given

    cdef bint is_turn_of_another(self, void *domain, bint own_is_of_it, uint64_t own_count) noexcept:
        cdef Lodger lodger
        cdef uint64_t least = NO_TAG, least_of_it = NO_TAG
        if own_count:
            least = self.own_tag if self.has_own else max(self.own_tag, self.tag)
            if own_is_of_it:
                least_of_it = least
        for lodger in self.lodgers:
            if lodger.first == NULL:
                continue
            least = min(least, lodger.tag)
            if lodger.first.m.recipients[lodger.first.first].domain == domain:
                least_of_it = min(least_of_it, lodger.tag)
        return least_of_it == NO_TAG or least_of_it - least > LEAD_OCTETS

    cdef bytes domain_in_front(self):
        cdef Lodger lodger
        for lodger in self.lodgers:
            if lodger.first != NULL:
                return (<DomainQueue>lodger.first.m.recipients[lodger.first.first].domain).domain
        return b""

    cdef void refuse_all(self, object trouble, bint is_permanent) noexcept:
        cdef Lodger lodger
        cdef guest *g
        cdef guest *following
        cdef uint32_t i
        for lodger in self.lodgers:
            g = lodger.first
            while g != NULL:
                following = g.next
                for i in range(g.first, g.m.recipient_count):
                    if g.m.recipients[i].link.where == PLACE_READY:
                        refuse(g, &g.m.recipients[i], trouble, is_permanent, 0)
                no_longer_waiting(lodger, g, g.waiting)
                over_if_settled(lodger, g)
                g = following

    cdef void send_back(self, object trouble, bint is_down) noexcept:
        cdef Lodger lodger
        for lodger in self.lodgers:
            if lodger.answers is None:
                continue
            if trouble is None:
                lodger.answers.not_here(lodger)
                lodger.send_back()
            elif lodger.first != NULL:
                lodger.send_back()
                lodger.answers.source_down(lodger, trouble, is_down)


cdef bint take_some(Lodger lodger, transaction *into, uint32_t limit, domain_budget *domains) noexcept:
    """Of its first guest, as many as may travel together."""
    cdef guest *g = lodger.first
    cdef recipient *r
    cdef recipient **grown
    cdef uint32_t i
    for i in range(g.first, g.m.recipient_count):
        r = &g.m.recipients[i]
        if r.link.where != PLACE_READY:
            continue
        if domains != NULL and r.domain != domains.last:
            if domains.left == 0:
                continue
            domains.left -= 1
            domains.last = r.domain
        if into.count == into.capacity:
            grown = <recipient **>realloc(into.recipients, (into.capacity * 2 + 1) * sizeof(recipient *))
            if grown == NULL:
                break
            into.recipients = grown
            into.capacity = into.capacity * 2 + 1
        r.link.where = PLACE_IN_HAND
        into.recipients[into.count] = r
        into.count += 1
        if into.count == limit:
            break
    if into.count == 0:
        return False
    while g.first < g.m.recipient_count and g.m.recipients[g.first].link.where != PLACE_READY:
        g.first += 1
    into.message = &g.m
    g.m.hand_count += into.count
    no_longer_waiting(lodger, g, into.count)
    return True
