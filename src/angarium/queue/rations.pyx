# Counts of warm-up plans in shared memory. Which plans there are, and what they mean, is routing/warmup.py; how counts survive
# a restart, ration_file.py. A slot is never given to another name: a daemon meets as many as its configurations have.
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

from angarium.model.clock cimport utc_ms

import hashlib

cdef extern from * nogil:
    """
    #include <stdbool.h>
    #include <stdint.h>
    static inline bool word_change(uint64_t *word, uint64_t *seen, uint64_t wanted) {
        return __atomic_compare_exchange_n(word, seen, wanted, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    static inline uint64_t word_read(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
    """
    bint word_change(uint64_t *word, uint64_t *seen, uint64_t wanted)
    uint64_t word_read(const uint64_t *word)

cdef enum:
    SLOTS = 65536               # a power of two; pages are touched only when used
    COUNT_BITS = 40
    DAY_S = 86400


@cython.final
cdef class Rations:
    def __cinit__(self, clock=None):
        self.slots = <ration_slot *>mmap(NULL, SLOTS * sizeof(ration_slot), PROT_READ | PROT_WRITE,
                                         MAP_SHARED | MAP_ANONYMOUS, -1, 0)
        if <void *>self.slots == MAP_FAILED:
            self.slots = NULL
            raise MemoryError()
        self.clock = clock

    def __dealloc__(self):
        if self.slots != NULL:
            munmap(self.slots, SLOTS * sizeof(ration_slot))

    cdef uint32_t today(self) noexcept:
        if self.clock is None:
            return <uint32_t>(utc_ms() // 1000 // DAY_S)
        try:
            return <uint32_t>(self.clock() // DAY_S)
        except Exception:
            return 0

    @property
    def day(self):
        return self.today()

    def ration(self, str name, uint32_t first_day, schedule):
        cdef Ration self_ = Ration.__new__(Ration)
        cdef uint64_t key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") | 1
        cdef uint64_t free_
        cdef uint32_t i
        self_.rations = self
        self_.name = name
        self_.first_day = first_day
        self_.schedule = tuple(schedule)
        self_.known_day = 0xffffffff
        for i in range(<uint32_t>SLOTS):
            free_ = 0
            self_.slot = &self.slots[(key + i) & (SLOTS - 1)]
            if word_change(&self_.slot.key, &free_, key) or free_ == key:
                return self_
        self_.slot = NULL
        return self_


@cython.final
cdef class Ration:
    cdef void look_at_day(self, uint32_t day) noexcept:
        self.known_day = day
        self.limit = -1
        try:
            if day < self.first_day:
                self.limit = 0
            elif day - self.first_day < <uint32_t>len(self.schedule):
                self.limit = self.schedule[day - self.first_day]
        except Exception:
            pass                # the schedule was checked when it was read

    cdef uint32_t take(self) noexcept:
        cdef uint32_t day = self.rations.today()
        cdef uint64_t seen, count
        if day != self.known_day:
            self.look_at_day(day)
        if self.slot == NULL:
            return day
        seen = word_read(&self.slot.state)
        while True:
            # A clock that is set back must not begin a day again.
            if seen >> COUNT_BITS > day:
                return day if self.limit < 0 else 0
            count = seen & ((<uint64_t>1 << COUNT_BITS) - 1) if seen >> COUNT_BITS == day else 0
            if self.limit >= 0 and count >= <uint64_t>self.limit:
                return 0
            if word_change(&self.slot.state, &seen, <uint64_t>day << COUNT_BITS | (count + 1)):
                return day

    cdef void give(self, uint32_t day) noexcept:
        cdef uint64_t seen
        if self.slot == NULL:
            return
        seen = word_read(&self.slot.state)
        while seen >> COUNT_BITS == day and seen & ((<uint64_t>1 << COUNT_BITS) - 1):
            if word_change(&self.slot.state, &seen, seen - 1):
                return

    cdef bint spent(self) noexcept:
        cdef uint32_t day = self.rations.today()
        cdef uint64_t state
        if day != self.known_day:
            self.look_at_day(day)
        if self.limit < 0 or self.slot == NULL:
            return False
        state = word_read(&self.slot.state)
        if state >> COUNT_BITS != day:
            return state >> COUNT_BITS > day or self.limit == 0
        return <int64_t>(state & ((<uint64_t>1 << COUNT_BITS) - 1)) >= self.limit

    @property
    def is_spent(self):
        return self.spent()

    def try_message(self):
        return self.take() != 0

    def give_message_back(self, uint32_t day):
        self.give(day)

    def limit_today(self):
        self.look_at_day(self.rations.today())
        return None if self.limit < 0 else self.limit

    def count(self):
        cdef uint64_t state
        if self.slot == NULL:
            return 0
        state = word_read(&self.slot.state)
        return state & ((<uint64_t>1 << COUNT_BITS) - 1) if state >> COUNT_BITS == self.rations.today() else 0

    def restore(self, uint32_t day, uint64_t count):
        cdef uint64_t seen = 0
        if self.slot != NULL:
            word_change(&self.slot.state, &seen, <uint64_t>day << COUNT_BITS | (count & ((<uint64_t>1 << COUNT_BITS) - 1)))
