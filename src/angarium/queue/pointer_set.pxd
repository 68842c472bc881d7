"""csrc/queue/pointer_set.h and what domains need to be found in one."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "queue/pointer_set.h":
    enum:
        POINTER_SET_PARTS

    ctypedef struct pointer_part:
        uint64_t *slots
        uint32_t capacity
        uint32_t count

    ctypedef struct pointer_set:
        pointer_part parts[256]
        uint64_t count

    ctypedef bint (*pointer_is)(const void *item, const void *wanted) noexcept
    int pointer_set_add(pointer_set *self, uint64_t hash, void *item)
    void *pointer_set_find(const pointer_set *self, uint64_t hash, pointer_is is_it, const void *wanted)
    bint pointer_set_remove(pointer_set *self, uint64_t hash, const void *item)
    void *pointer_set_next(const pointer_set *self, uint64_t *cursor)
    void pointer_set_clear(pointer_set *self)


cdef extern from "octets/siphash.h" nogil:
    uint64_t siphash24(const uint64_t *key, const uint8_t *data, size_t length)
