# The order of those who wait for a connection of a source or tenant. Who had it is not asked here: passage.pyx tells.
#
# Were they one line, a busy site that wants a second connection would stand before those that have none, and stand there again when
# it has given up its only one for them.
cimport cython

import collections


@cython.final
cdef class DialLine:
    def __cinit__(self):
        self.without = collections.OrderedDict()
        self.others = collections.OrderedDict()

    def __len__(self):
        return len(self.without) + len(self.others)

    cdef bint is_empty(self) noexcept:
        return not self.without and not self.others

    cdef bint is_before(self, bint has_some) noexcept:
        return bool(self.without) or has_some and bool(self.others)

    cdef int stand(self, object ready, bint has_some, bint is_first) except -1:
        line = self.others if has_some else self.without
        line[ready] = None
        if is_first:
            line.move_to_end(ready, False)
        return 0

    cdef int leave(self, object ready) except -1:
        self.without.pop(ready, None)
        self.others.pop(ready, None)
        return 0

    cdef int lost_all(self, object ready) except -1:
        self.others.pop(ready, None)
        self.without[ready] = None
        return 0

    cdef object foremost(self):
        return next(iter(self.without or self.others), None)

    cdef int turn(self) except -1:
        if len(self.others) > 1:
            self.others.move_to_end(next(iter(self.others)))
        return 0
