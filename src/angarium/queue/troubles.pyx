# Why recipients were deferred or failed, kept once for all who have the same. Recipients count references.
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF

from angarium.queue.message cimport recipient

cdef enum:
    PRUNE_SLICE = 5000
    OWN_REFERENCES = 4                  # the table's key and value, the list of prune(), its variable


cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object)


cdef class Troubles:
    def __cinit__(self):
        self.known = {}
        self.pruning = []

    def __len__(self):
        return len(self.known)

    cdef int note(self, recipient *r, object trouble) except -1:
        """r's trouble from now on."""
        cdef object kept = self.known.setdefault(trouble, trouble)
        Py_INCREF(kept)
        Py_XDECREF(<PyObject *>r.trouble)
        r.trouble = <void *>kept
        return 0

    def prune(self):
        """Forgets some that no recipient has; True when there are more to look at. Call it now and then, and again if so."""
        cdef object trouble
        cdef int i
        if not self.pruning:
            self.pruning = list(self.known)
        for i in range(PRUNE_SLICE):
            if not self.pruning:
                return False
            trouble = self.pruning[len(self.pruning) - 1]
            if Py_REFCNT(trouble) <= OWN_REFERENCES:
                del self.known[trouble]
            self.pruning.pop()
        return bool(self.pruning)


cdef object trouble_of(recipient *r):
    return <object><PyObject *>r.trouble if r.trouble != NULL else None


cdef void forget_trouble(recipient *r) noexcept:
    Py_XDECREF(<PyObject *>r.trouble)
    r.trouble = NULL
