# The recipient domains that somebody waits for, or that have a plan. What a plan is and when it is made anew: planner.pyx.
cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from angarium.queue.lists cimport list_init
from angarium.queue.pointer_set cimport (
    POINTER_SET_PARTS, pointer_set_add, pointer_set_clear, pointer_set_find, pointer_set_next, pointer_set_remove, siphash24)
from angarium.queue.ready cimport ReadyQueue

import os

cdef enum:
    NAME_OCTETS_MAX = 255
    ROUTE_OCTETS_MAX = 1024         # of a next hop; far more than any of them needs


cdef tuple NO_WAY = (None, None, None, None)


@cython.final
@cython.no_gc
cdef class DomainQueue:
    """Kept by the table while it has recipients or a usable plan; recipients borrow it."""

    def __cinit__(self, bytes key):
        list_init(&self.head)
        self.key = key
        self.plan = None
        self.way = NO_WAY
        self.only = None

    @property
    def pool(self):
        return self.way[0]

    @property
    def site_name(self):
        return self.way[1]

    @property
    def provider_name(self):
        return self.way[2]

    @property
    def kind(self):
        return self.way[3]

    @property
    def domain(self):
        return self.key.partition(b"\0")[0]

    @property
    def tenant(self):
        route = self.key.partition(b"\0")[2]
        return route[1:].partition(b"\0")[0] if route.startswith(b"@") else b""

    @property
    def route(self):
        route = self.key.partition(b"\0")[2]
        return route.partition(b"\0")[2] if route.startswith(b"@") else route

    @property
    def route_key(self):
        """For the router, who knows of no tenants."""
        if not self.tenant:
            return self.key
        return self.domain + b"\0" + self.route if self.route else self.domain

    cdef bint is_of(self, bytes domain) noexcept:
        cdef const char *key = self.key
        cdef Py_ssize_t length = len(domain)
        # bytes end with a NUL of their own, so that a key without a route ends like one with it.
        return len(self.key) >= length and key[length] == 0 and memcmp(key, <const char *>domain, length) == 0


cdef bytes tenant_route(bytes tenant, bytes route):
    return b"@" + tenant + (b"\0" + route if route is not None else b"")


cdef bytes TOO_LONG = b">too long"      # no next hop is written like that: whoever is routed there waits


cdef struct name:
    const uint8_t *data
    size_t length


cdef bint has_name(const void *item, const void *wanted) noexcept:
    cdef bytes key = (<DomainQueue><PyObject *>item).key
    return <size_t>len(key) == (<const name *>wanted).length and \
        memcmp(<const char *>key, (<const name *>wanted).data, len(key)) == 0


@cython.final
cdef class DomainTable:
    def __cinit__(self):
        cdef bytes key = os.urandom(sizeof(self.key))
        memcpy(self.key, <const char *>key, sizeof(self.key))
        self.last = None

    def __dealloc__(self):
        cdef uint64_t cursor = 0
        cdef void *each = pointer_set_next(&self.set, &cursor)
        while each != NULL:
            Py_DECREF(<DomainQueue><PyObject *>each)
            each = pointer_set_next(&self.set, &cursor)
        pointer_set_clear(&self.set)

    def __len__(self):
        return self.set.count

    cdef DomainQueue find_or_add(self, const uint8_t *data, size_t length, bytes route):
        """The queue of a domain in any case. An address literal keeps its brackets."""
        cdef uint8_t folded[NAME_OCTETS_MAX + 1 + ROUTE_OCTETS_MAX]
        cdef size_t i
        cdef name wanted
        cdef uint64_t hash_
        cdef void *known
        cdef DomainQueue found
        wanted.data = folded
        wanted.length = min(length, <size_t>NAME_OCTETS_MAX)
        for i in range(wanted.length):
            folded[i] = data[i] + 32 if c'A' <= data[i] <= c'Z' else data[i]
        if route is not None:
            if len(route) > ROUTE_OCTETS_MAX:
                route = TOO_LONG
            folded[wanted.length] = 0
            memcpy(folded + wanted.length + 1, <const char *>route, len(route))
            wanted.length += 1 + <size_t>len(route)
        if self.last is not None and has_name(<PyObject *>self.last, &wanted):
            return self.last
        hash_ = siphash24(self.key, folded, wanted.length)
        known = pointer_set_find(&self.set, hash_, has_name, &wanted)
        if known != NULL:
            found = <DomainQueue><PyObject *>known
        else:
            found = DomainQueue.__new__(DomainQueue, <bytes>folded[:wanted.length])
            if pointer_set_add(&self.set, hash_, <PyObject *>found) != 0:
                raise MemoryError()
            Py_INCREF(found)
        self.last = found
        return found

    cdef DomainQueue find(self, bytes key):
        cdef name wanted
        cdef void *known
        wanted.data = <const uint8_t *><const char *>key
        wanted.length = <size_t>len(key)
        known = pointer_set_find(&self.set, siphash24(self.key, wanted.data, wanted.length), has_name, &wanted)
        return <DomainQueue><PyObject *>known if known != NULL else None

    cdef void remove(self, DomainQueue domain) noexcept:
        if self.last is domain:
            self.last = None
        if pointer_set_remove(&self.set, siphash24(self.key, <const uint8_t *><const char *>domain.key, len(domain.key)),
                              <PyObject *>domain):
            Py_DECREF(domain)

    cdef list of_part(self, uint32_t number):
        cdef uint64_t cursor = <uint64_t>number << 32
        cdef void *each = pointer_set_next(&self.set, &cursor)
        cdef list found = []
        while each != NULL and cursor >> 32 == number:
            found.append(<DomainQueue><PyObject *>each)
            each = pointer_set_next(&self.set, &cursor)
        return found
