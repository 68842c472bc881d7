# Finding a message by its id. Not an order: walks go by slot, which is why listings sort what they show.
cimport cython
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free


cdef inline uint64_t home_of(uint64_t id, uint64_t mask) noexcept nogil:
    # Ids count upwards: multiplying by 2^64 / golden ratio spreads them (Knuth 6.4).
    return (id * <uint64_t>11400714819323198485ULL >> 20) & mask


@cython.final
cdef class MessageIndex:
    """Owns its slots, borrows the messages."""

    def __cinit__(self):
        self.capacity = 256
        self.count = 0
        self.slots = <message **>calloc(self.capacity, sizeof(message *))
        if self.slots == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.slots)

    cdef int add(self, message *m) except -1:
        cdef uint64_t slot, mask
        if (self.count + 1) * 3 > self.capacity * 2:
            self.grow()
        mask = self.capacity - 1
        slot = home_of(m.id, mask)
        while self.slots[slot] != NULL:
            slot = (slot + 1) & mask
        self.slots[slot] = m
        self.count += 1
        return 0

    cdef int grow(self) except -1:
        cdef uint64_t old_capacity = self.capacity, i, slot, mask
        cdef message **old = self.slots
        cdef message **slots = <message **>calloc(old_capacity * 2, sizeof(message *))
        if slots == NULL:
            raise MemoryError()
        self.slots = slots
        self.capacity = old_capacity * 2
        mask = self.capacity - 1
        for i in range(old_capacity):
            if old[i] != NULL:
                slot = home_of(old[i].id, mask)
                while slots[slot] != NULL:
                    slot = (slot + 1) & mask
                slots[slot] = old[i]
        free(old)
        return 0

    cdef message *find(self, uint64_t id) noexcept:
        cdef uint64_t mask = self.capacity - 1
        cdef uint64_t slot = home_of(id, mask)
        while self.slots[slot] != NULL:
            if self.slots[slot].id == id:
                return self.slots[slot]
            slot = (slot + 1) & mask
        return NULL

    cdef void remove(self, message *m) noexcept:
        cdef uint64_t mask = self.capacity - 1
        cdef uint64_t hole = home_of(m.id, mask), slot, home
        while self.slots[hole] != m:
            if self.slots[hole] == NULL:
                return
            hole = (hole + 1) & mask
        self.count -= 1
        # Close the gap (Knuth 6.4, algorithm R): whatever was pushed past the hole by a collision moves back.
        slot = hole
        while True:
            slot = (slot + 1) & mask
            if self.slots[slot] == NULL:
                break
            home = home_of(self.slots[slot].id, mask)
            if (slot - home & mask) >= (slot - hole & mask):
                self.slots[hole] = self.slots[slot]
                hole = slot
        self.slots[hole] = NULL

    cdef message *next_from(self, uint64_t *slot) noexcept:
        cdef message *found
        while slot[0] < self.capacity:
            found = self.slots[slot[0]]
            slot[0] += 1
            if found != NULL:
                return found
        return NULL
