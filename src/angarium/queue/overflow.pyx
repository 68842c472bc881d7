# Who waits behind a ready queue that is full. They lie in an order like its own, so that priorities and shares hold over both:
# whoever would be next in a longer queue is drawn in next, and passes those in front of it there. No timer, no attempt, nothing on
# disk: a restart routes them as any message whose time has come.
cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from angarium.metrics.counters cimport Counter
from angarium.queue.flows cimport Flows
from angarium.queue.message cimport PLACE_BEHIND, PLACE_NOWHERE, message_of, recipient, transaction
from angarium.queue.order cimport Order, order_walk

from angarium.metrics.counters import gauge

cdef Counter queue_behind = gauge("angarium_queue_behind", "Recipients behind ready queues that are full now.")


@cython.final
cdef class Overflow:
    """Owns the array of `taken`."""

    def __cinit__(self, Flows flows, uint32_t number):
        self.order = Order(flows, PLACE_BEHIND)
        self.order.number = number
        memset(&self.taken, 0, sizeof(self.taken))
        self.taken.recipients = <recipient **>malloc(sizeof(recipient *))
        if self.taken.recipients == NULL:
            raise MemoryError()
        self.taken.capacity = 1

    def __dealloc__(self):
        free(self.taken.recipients)

    cdef void add(self, recipient *r) noexcept:
        self.order.add(r, False)
        r.link.where = PLACE_BEHIND
        r.link.due = self.order.number
        message_of(r).deferred_count += 1
        self.count += 1
        queue_behind.cell[0] += 1

    cdef void remove(self, recipient *r) noexcept:
        self.order.remove(r)
        r.link.where = PLACE_NOWHERE
        message_of(r).deferred_count -= 1
        self.count -= 1
        queue_behind.cell[0] -= 1

    cdef bint take(self, uint32_t limit) noexcept:
        cdef transaction *into = &self.taken
        cdef order_walk walk
        cdef recipient *r = self.order.begin(&walk, True)
        cdef recipient **grown
        into.count = 0
        while r != NULL and into.count < limit:
            if into.count == into.capacity:
                grown = <recipient **>realloc(into.recipients, (into.capacity * 2 + 1) * sizeof(recipient *))
                if grown == NULL:
                    break               # out of memory: the others come in later
                into.recipients = grown
                into.capacity = into.capacity * 2 + 1
            if into.count == 0:
                into.message = walk.message
                self.order.went(&walk)
            self.remove(r)
            into.recipients[into.count] = r
            into.count += 1
            r = self.order.another(&walk)
        return into.count != 0
