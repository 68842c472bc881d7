# Python's side of csrc/admission/bounds.h: who owns the mapping, and a worker's places among a listener's sessions.
#
# A worker reserves places of a listener in blocks, and a session within what is reserved is one comparison. How large a block
# is follows from what is free: at the bound it is one place, so that nobody is turned away for what another worker keeps in
# reserve, but in the quarter of a second until that one looks.
cimport cython
from libc.stdint cimport uint32_t, uint64_t
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

import hashlib

cdef enum:
    BLOCK_MAX = 64
    # All workers together keep an eighth of what is free in reserve at the most: two blocks each.
    BLOCKS = 16


cdef inline int percent(uint64_t used, uint32_t limit) noexcept:
    return 100 if used >= limit else <int>(used * 100 // limit)


@cython.final
cdef class Bounds:
    def __cinit__(self, unsigned workers=1):
        if not 1 <= workers <= BOUNDS_WORKERS_MAX:
            raise ValueError(f"workers: between 1 and {BOUNDS_WORKERS_MAX}")
        self.table = <bounds_table *>mmap(NULL, bounds_table_octets(), PROT_READ | PROT_WRITE,
                                          MAP_SHARED | MAP_ANONYMOUS, -1, 0)
        if <void *>self.table == MAP_FAILED:
            self.table = NULL
            raise MemoryError()
        self.workers = workers
        self.known = {}

    def __dealloc__(self):
        if self.table != NULL:
            munmap(self.table, bounds_table_octets())

    def attach(self, unsigned worker):
        if worker >= BOUNDS_WORKERS_MAX:
            raise ValueError(f"worker {worker} is not below {BOUNDS_WORKERS_MAX}")
        self.worker = worker
        self.known = {}

    def forget_worker(self, unsigned worker):
        if worker >= BOUNDS_WORKERS_MAX:
            raise ValueError(f"worker {worker} is not below {BOUNDS_WORKERS_MAX}")
        bounds_forget_worker(self.table, worker)

    def places(self, bytes name not None, uint32_t limit):
        cdef Places places = self.known.get(name)
        cdef uint64_t key
        if places is None:
            key = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") | 1
            places = Places.__new__(Places)
            places.bounds = self
            places.worker = self.worker
            places.listener = bounds_listener(self.table, key)
            self.known[name] = places
        places.limit = limit
        places.settle()
        return places

    cdef uint64_t memory(self, uint64_t own) noexcept:
        bounds_set_memory(self.table, self.worker, own)
        return bounds_memory(self.table)

    def memory_with(self, uint64_t own):
        return self.memory(own)


@cython.final
cdef class Places:
    cdef bint take(self) noexcept:
        if self.used >= self.held and not self.reserve():
            return False
        self.used += 1
        return True

    cdef void give(self) noexcept:
        cdef uint32_t spare
        self.used -= 1
        spare = self.held - self.used
        # Kept while it is under two blocks, so that a session that comes and one that goes do not take turns in reserving.
        if spare > 2 * self.block - 2:
            self.release(spare - (self.block - 1))

    cdef bint reserve(self) noexcept:
        cdef uint32_t share
        if self.listener == BOUNDS_NOWHERE:
            share = self.limit // self.bounds.workers
            if self.used >= (share or 1):
                return False
            self.held = self.used + 1
            return True
        if self.block > 1 and bounds_reserve(self.bounds.table, self.listener, self.worker, self.block, self.limit):
            self.held += self.block
            return True
        self.block = 1
        if not bounds_reserve(self.bounds.table, self.listener, self.worker, 1, self.limit):
            return False
        self.held += 1
        return True

    cdef void release(self, uint32_t count) noexcept:
        self.held -= count
        if self.listener != BOUNDS_NOWHERE:
            bounds_release(self.bounds.table, self.listener, self.worker, count)

    cdef int settle(self) noexcept:
        cdef uint32_t others, block
        cdef bounds_table *table = self.bounds.table
        if self.listener == BOUNDS_NOWHERE:
            self.block = 1
            return percent(<uint64_t>self.used * self.bounds.workers, self.limit)
        others = bounds_reserved(table, self.listener) - self.held
        block = 0
        if <uint64_t>others + self.used < self.limit:
            block = (self.limit - others - self.used) // (BLOCKS * self.bounds.workers)
        self.block = 1 if block < 1 else BLOCK_MAX if block > BLOCK_MAX else block
        if self.held - self.used > self.block - 1:
            self.release(self.held - self.used - (self.block - 1))
        bounds_set_used(table, self.listener, self.worker, self.used)
        return percent(bounds_used(table, self.listener), self.limit)

    # For Python, as the connection and load.pyx have them in C.

    def try_take(self):
        return self.take()

    def give_back(self):
        self.give()

    def look(self):
        return self.settle()

    @property
    def reserved(self):
        return self.held if self.listener == BOUNDS_NOWHERE else bounds_reserved(self.bounds.table, self.listener)
