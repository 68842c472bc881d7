# Finding a message by its id. Not an order: walks go by slot, which is why listings sort what they show.
#
# 256 tables, chosen by the hash, each grown by itself: with ten million messages one of them is a matter of milliseconds, the
# whole would hold up the event loop for a good second.
cimport cython
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

cdef enum:
    FIRST_CAPACITY = 16


cdef inline uint64_t hash_of(uint64_t id) noexcept nogil:
    # Ids count upwards: multiplying by 2^64 / golden ratio spreads them (Knuth 6.4).
    return id * <uint64_t>11400714819323198485ULL


cdef inline uint64_t home_of(uint64_t id, uint64_t mask) noexcept nogil:
    return (hash_of(id) >> 20) & mask


@cython.final
cdef class MessageIndex:
    """Owns its slots, borrows the messages."""

    def __cinit__(self):
        cdef int i
        for i in range(INDEX_TABLES):
            self.tables[i].capacity = FIRST_CAPACITY
            self.tables[i].slots = <message **>calloc(FIRST_CAPACITY, sizeof(message *))
            if self.tables[i].slots == NULL:
                raise MemoryError()

    def __dealloc__(self):
        cdef int i
        for i in range(INDEX_TABLES):
            free(self.tables[i].slots)

    cdef index_table *table(self, uint64_t id) noexcept:
        return &self.tables[hash_of(id) >> 56]

    cdef int add(self, message *m) except -1:
        cdef index_table *table = self.table(m.id)
        cdef uint64_t slot, mask
        if (table.count + 1) * 4 > table.capacity * 3:
            self.grow(table)
        mask = table.capacity - 1
        slot = home_of(m.id, mask)
        while table.slots[slot] != NULL:
            slot = (slot + 1) & mask
        table.slots[slot] = m
        table.count += 1
        self.count += 1
        return 0

    cdef int grow(self, index_table *table) except -1:
        cdef uint64_t old_capacity = table.capacity, i, slot, mask
        cdef message **old = table.slots
        cdef message **slots = <message **>calloc(old_capacity * 2, sizeof(message *))
        if slots == NULL:
            raise MemoryError()
        table.slots = slots
        table.capacity = old_capacity * 2
        mask = table.capacity - 1
        for i in range(old_capacity):
            if old[i] != NULL:
                slot = home_of(old[i].id, mask)
                while slots[slot] != NULL:
                    slot = (slot + 1) & mask
                slots[slot] = old[i]
        free(old)
        return 0

    cdef message *find(self, uint64_t id) noexcept:
        cdef index_table *table = self.table(id)
        cdef uint64_t mask = table.capacity - 1
        cdef uint64_t slot = home_of(id, mask)
        while table.slots[slot] != NULL:
            if table.slots[slot].id == id:
                return table.slots[slot]
            slot = (slot + 1) & mask
        return NULL

    cdef void remove(self, message *m) noexcept:
        cdef index_table *table = self.table(m.id)
        cdef uint64_t mask = table.capacity - 1
        cdef uint64_t hole = home_of(m.id, mask), slot, home
        while table.slots[hole] != m:
            if table.slots[hole] == NULL:
                return
            hole = (hole + 1) & mask
        table.count -= 1
        self.count -= 1
        # Close the gap (Knuth 6.4, algorithm R): whatever was pushed past the hole by a collision moves back.
        slot = hole
        while True:
            slot = (slot + 1) & mask
            if table.slots[slot] == NULL:
                break
            home = home_of(table.slots[slot].id, mask)
            if (slot - home & mask) >= (slot - hole & mask):
                table.slots[hole] = table.slots[slot]
                hole = slot
        table.slots[hole] = NULL

    cdef message *next_from(self, uint64_t *cursor) noexcept:
        cdef uint64_t number = cursor[0] >> 32, slot = cursor[0] & 0xffffffff
        cdef message *found
        while number < INDEX_TABLES:
            while slot < self.tables[number].capacity:
                found = self.tables[number].slots[slot]
                slot += 1
                if found != NULL:
                    cursor[0] = number << 32 | slot
                    return found
            number += 1
            slot = 0
        cursor[0] = <uint64_t>INDEX_TABLES << 32
        return NULL
