# Finding a message by its id. Not an order: walks go by slot, which is why listings sort what they show.
cimport cython
from libc.stdint cimport uint64_t

from angarium.queue.pointer_set cimport pointer_set_add, pointer_set_clear, pointer_set_find, pointer_set_next, pointer_set_remove


cdef inline uint64_t hash_of(uint64_t id) noexcept nogil:
    # Ids count upwards: multiplying by 2^64 / golden ratio spreads them (Knuth 6.4). Nobody outside chooses them.
    return id * <uint64_t>11400714819323198485ULL


cdef bint has_id(const void *item, const void *wanted) noexcept nogil:
    return (<const message *>item).id == (<const uint64_t *>wanted)[0]


@cython.final
cdef class MessageIndex:
    """Borrows the messages."""

    def __dealloc__(self):
        pointer_set_clear(&self.set)

    @property
    def count(self):
        return self.set.count

    cdef int add(self, message *m) except -1:
        if pointer_set_add(&self.set, hash_of(m.id), m) != 0:
            raise MemoryError()
        return 0

    cdef message *find(self, uint64_t id) noexcept:
        return <message *>pointer_set_find(&self.set, hash_of(id), has_id, &id)

    cdef void remove(self, message *m) noexcept:
        pointer_set_remove(&self.set, hash_of(m.id), m)

    cdef message *next_from(self, uint64_t *cursor) noexcept:
        return <message *>pointer_set_next(&self.set, cursor)
