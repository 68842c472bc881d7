# Python's side of csrc/admission/tallies.h: who owns the mapping, the operator's rules, and one connection in them.
cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

from angarium.model.clock cimport mono_ns

import ipaddress
import os


@cython.final
cdef class Tallies:
    """Owns the mapping. Made by the supervisor; every worker calls attach() behind the fork."""

    def __cinit__(self, uint32_t slots=65536):
        cdef uint64_t secret[2]
        cdef bytes random = os.urandom(16)
        if slots & (slots - 1) or slots < 16:
            raise ValueError("slots must be a power of two, 16 at least")
        self.octets = tally_table_octets(slots)
        self.table = <tally_table *>mmap(NULL, self.octets, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
        if <void *>self.table == MAP_FAILED:
            self.table = NULL
            raise MemoryError()
        secret[0] = int.from_bytes(random[:8], "little")
        secret[1] = int.from_bytes(random[8:], "little")
        tally_table_init(self.table, slots, secret)

    def __dealloc__(self):
        if self.table != NULL:
            munmap(self.table, self.octets)

    def attach(self, unsigned worker):
        if worker >= TALLY_WORKERS_MAX:
            raise ValueError(f"worker {worker} is not below {TALLY_WORKERS_MAX}")
        self.worker = worker

    def forget_worker(self, unsigned worker):
        if worker >= TALLY_WORKERS_MAX:
            raise ValueError(f"worker {worker} is not below {TALLY_WORKERS_MAX}")
        tally_forget_worker(self.table, worker)

    @property
    def sessions(self):
        return tally_sessions(self.table)


# Not cleared by the collector: one that is garbage still gives back what it has taken, and needs its rules for that.
@cython.final
@cython.no_gc_clear
cdef class Visit:
    def __cinit__(self):
        cdef int i
        for i in range(RULES_MAX):
            self.slots[i] = TALLY_NOWHERE

    def __dealloc__(self):
        self.leave()

    def leave(self):
        self.give_places(False)

    cdef void keep_own(self) noexcept:
        self.give_places(True)

    cdef void give_places(self, bint keeps_own) noexcept:
        cdef int i
        for i in range(RULES_MAX):
            if self.slots[i] != TALLY_NOWHERE and not (keeps_own and self.rules.rules[i].has_own_clients):
                tally_leave(self.rules.tallies.table, self.slots[i], self.rules.tallies.worker)
                self.slots[i] = TALLY_NOWHERE

    cdef int may_take(self, tally_kind kind) noexcept:
        cdef unsigned i
        cdef rule *each
        cdef uint64_t now
        if self.rules is None:
            return OVER_NONE
        now = mono_ns()
        for i in range(self.rules.count):
            each = &self.rules.rules[i]
            if self.slots[i] != TALLY_NOWHERE and each.rates[<int>kind].interval_ns and not tally_may_take(
                    self.rules.tallies.table, self.slots[i], kind, each.rates[<int>kind], now):
                return kind
        return OVER_NONE

    cdef int take(self, tally_kind kind) noexcept:
        """One of each rule, or none of any but for two workers that race: what is taken in vain is given back in time."""
        cdef unsigned i
        cdef rule *each
        cdef uint64_t now
        if self.rules is None:
            return OVER_NONE
        if self.may_take(kind) != OVER_NONE:
            return kind
        now = mono_ns()
        for i in range(self.rules.count):
            each = &self.rules.rules[i]
            if self.slots[i] != TALLY_NOWHERE and each.rates[<int>kind].interval_ns and not tally_take(
                    self.rules.tallies.table, self.slots[i], kind, each.rates[<int>kind], now):
                return kind
        return OVER_NONE

    def try_take(self, str kind):
        return self.take(<tally_kind><int>KINDS.index(kind)) == OVER_NONE


KINDS = ("connections", "messages", "recipients", "handshakes", "errors", "auth_attempts")


@cython.final
cdef class Rules:
    def __cinit__(self, Tallies tallies not None, limits):
        cdef unsigned i, kind
        if len(limits) > RULES_MAX:
            raise ValueError(f"at most {RULES_MAX} rules")
        self.tallies = tallies
        self.count = len(limits)
        for i, limit in enumerate(limits):
            self.rules[i].ipv4_bits = 96 + limit.ipv4_prefix
            self.rules[i].ipv6_bits = limit.ipv6_prefix
            self.rules[i].connections = limit.connections
            self.rules[i].has_own_clients = limit.own_clients
            for kind, share in enumerate((limit.connection_rate, limit.messages, limit.recipients, limit.handshakes,
                                          limit.errors, limit.auth_attempts)):
                self.rules[i].rates[kind].interval_ns = share.interval_ns
                self.rules[i].rates[kind].burst = max(share.amount, 1)

    cdef int enter(self, Visit visit, const uint8_t *address, bint is_ipv4, bint is_own) noexcept:
        """Counts a connection; over a limit everything open is given back at once. What it gets: OVER_NONE, OVER_OPEN,
        or the rate it is over."""
        cdef unsigned i
        cdef rule *each
        cdef uint64_t now = mono_ns(), key
        cdef int over
        visit.rules = self
        for i in range(self.count):
            each = &self.rules[i]
            if is_own and not each.has_own_clients:
                continue
            key = tally_key(self.tallies.table, address, each.ipv4_bits if is_ipv4 else each.ipv6_bits, i)
            if tally_enter(self.tallies.table, key, self.tallies.worker, each.connections, now,
                           &visit.slots[i]) == TALLY_FULL:
                visit.leave()
                return OVER_OPEN
            # Errors are given back by waiting, not by connecting again.
            if visit.slots[i] != TALLY_NOWHERE and each.rates[<int>TALLY_ERRORS].interval_ns and not tally_may_take(
                    self.tallies.table, visit.slots[i], TALLY_ERRORS, each.rates[<int>TALLY_ERRORS], now):
                visit.leave()
                return TALLY_ERRORS
        over = visit.take(TALLY_CONNECTIONS)
        if over != OVER_NONE:
            visit.leave()
        return over

    def visit(self, str host, bint is_own=False):
        cdef Visit visit = Visit.__new__(Visit)
        cdef bytes packed = ipaddress.ip_address(host).packed
        cdef bint is_ipv4 = len(packed) == 4
        cdef int over
        if is_ipv4:
            packed = bytes(10) + b"\xff\xff" + packed
        over = self.enter(visit, <const uint8_t *><const char *>packed, is_ipv4, is_own)
        return visit if over == OVER_NONE else "open" if over == OVER_OPEN else KINDS[over]
