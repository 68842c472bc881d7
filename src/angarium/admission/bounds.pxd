from libc.stdint cimport uint32_t, uint64_t

cdef extern from "admission/bounds.h" nogil:
    ctypedef struct bounds_table:
        pass

    enum:
        BOUNDS_WORKERS_MAX
        BOUNDS_NOWHERE

    size_t bounds_table_octets()
    uint32_t bounds_listener(bounds_table *self, uint64_t key)
    bint bounds_reserve(bounds_table *self, uint32_t listener, unsigned worker, uint32_t count, uint32_t limit)
    void bounds_release(bounds_table *self, uint32_t listener, unsigned worker, uint32_t count)
    uint32_t bounds_reserved(const bounds_table *self, uint32_t listener)
    void bounds_set_used(bounds_table *self, uint32_t listener, unsigned worker, uint32_t used)
    uint32_t bounds_used(const bounds_table *self, uint32_t listener)
    void bounds_set_memory(bounds_table *self, unsigned worker, uint64_t octets)
    uint64_t bounds_memory(const bounds_table *self)
    void bounds_forget_worker(bounds_table *self, unsigned worker)


cdef class Bounds:
    """The table, mapped once before the fork and inherited; one per daemon. Owns the mapping."""
    cdef bounds_table *table
    cdef readonly unsigned worker
    cdef readonly unsigned workers
    cdef dict known                 # listener's name -> Places, of this worker

    cdef uint64_t memory(self, uint64_t own) noexcept       # of all sessions of the machine; `own`: of this worker's


cdef class Places:
    """The sessions that one worker has of a listener; shared by all contexts it has for that listener's address."""
    cdef Bounds bounds
    cdef unsigned worker
    cdef uint32_t listener          # BOUNDS_NOWHERE: this worker has a fixed share
    cdef readonly uint32_t limit    # of the machine
    cdef readonly uint32_t used
    cdef readonly uint32_t held     # reserved, the used ones among them
    cdef uint32_t block

    cdef bint take(self) noexcept   # False: the machine has as many as may be
    cdef void give(self) noexcept
    cdef bint reserve(self) noexcept
    cdef void release(self, uint32_t count) noexcept
    cdef int settle(self) noexcept     # a few times a second; how many percent of the limit are used
