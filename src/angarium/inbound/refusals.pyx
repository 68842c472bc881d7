# What a worker remembers of its refusals: the lines of the log that tell of them, in a ring of fixed size, and a count
# for each reason. A refusal costs a look-up and a copy; only who asks for one (angarium explain-reject) pays for a search.
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from angarium.events.journal cimport Journal
from angarium.metrics.counters cimport Counter

from angarium.metrics.counters import counter
from angarium.smtp import reasons

cdef enum:
    # About three thousand of them. In a flood that is the last second, and the log has the others.
    RING_OCTETS = 1 << 20

# Made before workers are forked, so that every process has the same columns. A word that is not in the table, of a hook
# or of somebody else's policy, counts as "other": peers and operators cannot make labels.
_counters = {
    word.encode("ascii"): counter("angarium_in_refused_total", "Refusals, for each reason.", {"reason": word})
    for word in reasons.words()
}
cdef bytes OTHER = reasons.OTHER.encode("ascii")


@cython.final
cdef class Refusals:
    def __cinit__(self):
        self.ring = <uint8_t *>calloc(1, RING_OCTETS)
        if self.ring == NULL:
            raise MemoryError
        self.counters = _counters

    def __dealloc__(self):
        free(self.ring)

    cdef void count(self, bytes word) noexcept:
        cdef Counter counted
        try:
            counted = self.counters[word if word in self.counters else OTHER]
            counted.cell[0] += 1
        except MemoryError:
            pass

    cdef void keep(self, Journal journal) noexcept:
        """The line that the journal has begun and not ended yet."""
        cdef size_t length = journal.length - journal.line_start
        cdef const uint8_t *line = journal.buffer + journal.line_start
        if journal.line_is_lost or length + 2 > RING_OCTETS:
            return
        self.put(line, length)
        self.put(<const uint8_t *>b"}\n", 2)

    cdef void put(self, const uint8_t *data, size_t length) noexcept:
        cdef size_t first = RING_OCTETS - self.at
        if length < first:
            memcpy(self.ring + self.at, data, length)
            self.at += length
            return
        memcpy(self.ring + self.at, data, first)
        memcpy(self.ring, data + first, length - first)
        self.at = length - first
        self.is_full = True

    def find(self, str refusal_id not None):
        # Quotes inside values are escaped, so that nothing that a peer said looks like this key.
        cdef bytes text = self.text()
        cdef Py_ssize_t found = text.rfind(b',"id":"%s",' % refusal_id.encode("ascii", "replace"))
        if found < 0:
            return None
        start = text.rfind(b"\n", 0, found) + 1
        if start == 0 and self.is_full:
            return None                 # the oldest line, of which only the end is left
        return text[start:text.index(b"\n", found)]

    cdef bytes text(self):
        """All lines, the oldest first; of that one perhaps only the end."""
        cdef bytes newest = PyBytes_FromStringAndSize(<const char *>self.ring, self.at)
        if not self.is_full:
            return newest
        return PyBytes_FromStringAndSize(<const char *>self.ring + self.at, RING_OCTETS - self.at) + newest
