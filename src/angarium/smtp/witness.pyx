# Whoever looks on at a dialogue (angarium trace): the session tells its witness each line as it understands it, so that
# TLS, pipelining and message data need not be understood a second time. A session has none unless somebody looks.
#
# What a witness must never be told: the octets of an AUTH response. Of an AUTH command the observer drops them.
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    NOISE_LIMIT = 256


@cython.final
cdef class Witness:
    def __init__(self, observer not None, size_t data_octets=0):
        self.observer = observer
        self.data_octets = data_octets

    # An observer that fails must not disturb the dialogue: it misses what it failed at.

    cdef void command(self, const uint8_t *line, size_t length) noexcept:
        try:
            self.observer.command(PyBytes_FromStringAndSize(<const char *>line, length))
        except Exception:
            pass

    cdef void response(self, size_t length) noexcept:
        try:
            self.observer.response(length)
        except Exception:
            pass

    cdef void noise(self, const uint8_t *data, size_t length) noexcept:
        try:
            self.observer.noise(PyBytes_FromStringAndSize(<const char *>data, min(length, <size_t>NOISE_LIMIT)), length)
        except Exception:
            pass

    cdef void message(self, uint64_t length) noexcept:
        try:
            self.observer.message(length)
        except Exception:
            pass

    cdef void data(self, const uint8_t *data, size_t length) noexcept:
        if self.data_octets == 0 or length == 0:
            return
        try:
            # Of each message no more is told: of what comes at once no more is copied.
            self.observer.data(PyBytes_FromStringAndSize(<const char *>data, min(length, self.data_octets)))
        except Exception:
            pass

    cdef void reply(self, const void *data, size_t length) noexcept:
        try:
            self.observer.reply(PyBytes_FromStringAndSize(<const char *>data, length))
        except Exception:
            pass
