# Python's side of csrc/queue/shares.h: who owns the mapping, and the fall-back when the table is full.
cimport cython
from libc.stdint cimport uint32_t, uint64_t
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

from angarium.model.clock cimport mono_ns

import hashlib
import os


cdef enum:
    SECRET_OCTETS = 16

cdef uint64_t WANTED_NS = 500000000     # as between workers (csrc/queue/shares.h)


cdef int pace_of(object rate, pace *out) except -1:
    if rate is None or not rate.is_limited:
        out.interval_ns = 0
        out.burst = 1
    else:
        out.interval_ns = <uint64_t>(1e9 / rate)
        # A tenth of a second's worth at once, so that a high rate does not need a timer for each message.
        out.burst = max(1, <uint32_t>(rate / 10))
    return 0


@cython.final
cdef class Shares:
    """Owns the mapping. Made by the supervisor; every worker calls attach() behind the fork."""

    def __cinit__(self, unsigned worker_count=1, uint32_t slots=65536):
        if not 1 <= worker_count <= SHARES_WORKERS_MAX:
            raise ValueError(f"workers: {worker_count} is not between 1 and {SHARES_WORKERS_MAX}")
        if slots & (slots - 1) or slots < 16:
            raise ValueError("slots must be a power of two, 16 at least")
        self.octets = shares_table_octets(slots)
        self.table = <shares_table *>mmap(NULL, self.octets, PROT_READ | PROT_WRITE,
                                          MAP_SHARED | MAP_ANONYMOUS, -1, 0)
        if <void *>self.table == MAP_FAILED:
            self.table = NULL
            raise MemoryError()
        shares_table_init(self.table, slots)
        self.secret = os.urandom(SECRET_OCTETS)
        self.worker = 0
        self.worker_count = worker_count

    def __dealloc__(self):
        if self.table != NULL:
            munmap(self.table, self.octets)

    def attach(self, unsigned worker):
        if worker >= SHARES_WORKERS_MAX:
            raise ValueError(f"worker {worker} is not below {SHARES_WORKERS_MAX}")
        self.worker = worker

    def forget_worker(self, unsigned worker):
        if worker >= SHARES_WORKERS_MAX:
            raise ValueError(f"worker {worker} is not below {SHARES_WORKERS_MAX}")
        shares_forget_worker(self.table, worker)

    cdef uint64_t living_now(self) noexcept:
        return shares_living(self.table)

    def set_living(self, bint is_living):
        shares_set_living(self.table, self.worker, is_living)

    @property
    def living(self):
        return shares_living(self.table)

    def arrivals(self):
        cdef uint64_t now = mono_ns(), key = 0, arrival_ns = 0
        cdef uint32_t slot = shares_rate_next(self.table, 0, now, &key, &arrival_ns)
        found = {}
        while slot != <uint32_t>-1:
            found[key] = arrival_ns
            slot = shares_rate_next(self.table, slot + 1, now, &key, &arrival_ns)
        return found

    def restore(self, bytes secret, arrivals):
        if len(secret) != SECRET_OCTETS:
            raise ValueError(f"the secret of keys has {len(secret)} octets, not {SECRET_OCTETS}")
        cdef uint64_t now = mono_ns()
        self.secret = secret
        for key, arrival_ns in arrivals.items():
            shares_rate_restore(self.table, key, arrival_ns, now)

    def share(self, str name):
        return self.share_of(name)

    cdef Share share_of(self, str name):
        cdef Share self_ = Share.__new__(Share)
        self_.shares = self
        self_.name = name
        self_.key = int.from_bytes(hashlib.blake2b(
            name.encode("utf-8", "surrogateescape"), digest_size=8, key=self.secret).digest(), "little") | 1
        self_.slot = shares_seek(self.table, self_.key)
        return self_


@cython.final
cdef class Share:
    cdef bint take_connection(self, uint32_t limit) noexcept:
        cdef shares_result result
        cdef uint64_t now = mono_ns()
        cdef int tries
        if self.own == 0:
            # Nothing of ours is counted: the slot may have gone to another site meanwhile.
            self.slot = shares_find(self.shares.table, self.key, now)
        if self.slot == <uint32_t>-1:
            if self.own < max(limit // self.shares.worker_count, <uint32_t>1):
                self.own += 1
                return True
            return False
        for tries in range(2):
            result = shares_connection_take(self.shares.table, self.slot, self.key, self.shares.worker, limit, now)
            if result == SHARES_TAKEN:
                self.own += 1
                return True
            if result == SHARES_NONE or self.own != 0:
                return False
            self.slot = shares_find(self.shares.table, self.key, now)
            if self.slot == <uint32_t>-1:
                break
        return False

    cdef void give_connection(self) noexcept:
        if self.own == 0:
            return
        self.own -= 1
        if self.slot != <uint32_t>-1:
            shares_connection_give(self.shares.table, self.slot, self.shares.worker)

    cdef uint32_t count(self) noexcept:
        if self.slot == <uint32_t>-1:
            return self.own
        return shares_connection_count(self.shares.table, self.slot)

    cdef bint is_over(self, uint32_t limit) noexcept:
        if self.slot == <uint32_t>-1:           # no room in the table: this worker keeps to its part
            return self.own > max(limit // self.shares.worker_count, <uint32_t>1)
        return shares_connection_count(self.shares.table, self.slot) > limit

    cdef bint leave(self, uint32_t limit) noexcept:
        if self.leaving >= self.own:
            return False
        if self.slot == <uint32_t>-1:
            if self.own - self.leaving <= max(limit // self.shares.worker_count, <uint32_t>1):
                return False
        elif not shares_connection_leave(self.shares.table, self.slot, limit):
            return False
        self.leaving += 1
        return True

    cdef void left(self) noexcept:
        self.give_connection()
        if self.leaving:
            self.leaving -= 1
            if self.slot != <uint32_t>-1:
                shares_connection_left(self.shares.table, self.slot)

    cdef bint is_wanted(self) noexcept:
        return self.slot != <uint32_t>-1 and shares_is_wanted(self.shares.table, self.slot, self.shares.worker,
                                                              mono_ns())

    cdef bint is_wanted_by_less(self) noexcept:
        cdef uint32_t count
        if self.slot == <uint32_t>-1:
            return False
        count = shares_wanted_count(self.shares.table, self.slot, self.shares.worker, mono_ns())
        return count != <uint32_t>-1 and self.own > count + 1

    cdef void want(self, uint32_t number, bint has_none) noexcept:
        # Who has no connection goes before those who want more of them, though these ask again and again.
        if not has_none and self.is_wanted_first and self.is_wanted_beside(number):
            return
        self.wanted_by = number
        self.wanted_ns = mono_ns()
        self.is_wanted_first = has_none

    cdef void unwant(self, uint32_t number) noexcept:
        if self.wanted_by == number:
            self.wanted_by = 0
            if self.slot != <uint32_t>-1:
                shares_unwant(self.shares.table, self.slot, self.shares.worker)

    cdef bint is_wanted_beside(self, uint32_t number) noexcept:
        if self.wanted_by == 0 or self.wanted_by == number:
            return False
        if mono_ns() - self.wanted_ns > WANTED_NS:
            self.wanted_by = 0          # it asks every 100 ms while it has work
        return self.wanted_by != 0

    cdef uint64_t take_message(self, uint64_t interval_ns, uint32_t burst) noexcept:
        cdef uint64_t now = mono_ns()
        cdef uint64_t wait = SHARES_RATE_STALE
        if self.slot != <uint32_t>-1:
            wait = shares_rate_take(self.shares.table, self.slot, self.key, interval_ns, burst, now)
        if wait == SHARES_RATE_STALE:
            # Only while nothing of ours is counted: what was taken without a slot must not be given back to one.
            if self.own == 0:
                self.slot = shares_find(self.shares.table, self.key, now)
            if self.slot != <uint32_t>-1:
                wait = shares_rate_take(self.shares.table, self.slot, self.key, interval_ns, burst, now)
        if wait != SHARES_RATE_STALE:
            return wait
        # No room in the table: this worker keeps to its part of the rate.
        interval_ns *= self.shares.worker_count
        if self.own_arrival_ns > now:
            return self.own_arrival_ns - now
        self.own_arrival_ns = now + interval_ns
        return 0

    cdef uint64_t counted_wait(self, uint64_t interval_ns, uint32_t burst) noexcept:
        """Until the table would give one; SHARES_RATE_STALE: it counts nothing for this name."""
        cdef uint64_t now = mono_ns()
        cdef uint64_t wait = SHARES_RATE_STALE
        if self.slot != <uint32_t>-1:
            wait = shares_rate_wait(self.shares.table, self.slot, self.key, interval_ns, burst, now)
        if wait == SHARES_RATE_STALE and self.own == 0:
            self.slot = shares_seek(self.shares.table, self.key)
            if self.slot != <uint32_t>-1:
                wait = shares_rate_wait(self.shares.table, self.slot, self.key, interval_ns, burst, now)
        return wait

    cdef uint64_t message_wait(self, uint64_t interval_ns, uint32_t burst) noexcept:
        cdef uint64_t now
        cdef uint64_t wait = self.counted_wait(interval_ns, burst)
        if wait != SHARES_RATE_STALE:
            return wait
        now = mono_ns()
        return self.own_arrival_ns - now if self.own_arrival_ns > now else 0

    cdef void give_message(self, uint64_t interval_ns) noexcept:
        if self.slot != <uint32_t>-1:
            shares_rate_give(self.shares.table, self.slot, self.key, interval_ns)
        else:
            self.own_arrival_ns -= min(self.own_arrival_ns, interval_ns * self.shares.worker_count)

    def peek_ns(self, uint64_t interval_ns, uint32_t burst):
        cdef uint64_t wait = self.counted_wait(interval_ns, burst)
        return 0 if wait == SHARES_RATE_STALE else wait

    # For tests and the admin API.
    def try_connection(self, uint32_t limit):
        return self.take_connection(limit)

    def give_back(self):
        self.give_connection()

    def try_leaving(self, uint32_t limit):
        return self.leave(limit)

    def has_left(self):
        self.left()

    def give_message_back(self, uint64_t interval_ns):
        self.give_message(interval_ns)

    def wait_ns(self, uint64_t interval_ns, uint32_t burst):
        return self.take_message(interval_ns, burst)

    @property
    def wanted(self):
        return self.is_wanted()

    @property
    def machine_count(self):
        return self.count()
