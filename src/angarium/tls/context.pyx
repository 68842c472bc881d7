# Python's side of csrc/tls/context.h and ticket_keys.h: ownership, and codes turned into exceptions. No files here: see
# certificates.py.
cimport cython
from libc.stdint cimport uint8_t
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, madvise, mmap, munmap
from angarium.tls.ctls cimport *

import hashlib
import os

from angarium.model.errors import TlsMaterialError

cdef extern from "<sys/mman.h>" nogil:
    enum: MADV_DONTDUMP


@cython.final
cdef class TicketKeys:
    """Owns the mapping. Made and rotated by the supervisor, inherited by every worker."""

    def __cinit__(self):
        self.octets = sizeof(tls_ticket_keys)
        self.keys = <tls_ticket_keys *>mmap(NULL, self.octets, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)
        if <void *>self.keys == MAP_FAILED:
            self.keys = NULL
            raise MemoryError
        madvise(self.keys, self.octets, MADV_DONTDUMP)      # a core dump is no place for them
        self.rotate()

    def __dealloc__(self):
        if self.keys != NULL:
            munmap(self.keys, self.octets)

    def rotate(self):
        cdef bytes secret = os.urandom(TLS_TICKET_SECRET_OCTETS)
        tls_ticket_keys_rotate(self.keys, secret)


@cython.final
cdef class ServerContext:
    """Owns the C context; TLS sessions hold references to it."""

    def __cinit__(self, *, bint is_tls13_only=False, TicketKeys tickets=None):
        self.tickets = tickets
        cdef tls_ticket_keys *keys = tickets.keys if tickets is not None else NULL
        with nogil:
            self.context = tls_context_new(is_tls13_only, keys)
        if self.context == NULL:
            raise MemoryError
        self.client_ca_digest = b""

    def __dealloc__(self):
        tls_context_free(self.context)

    def add(self, const uint8_t[::1] cert not None, const uint8_t[::1] key not None):
        cdef tls_load_result result
        with nogil:                 # whoever reads certificates does it in a thread beside the loop
            result = tls_context_add(self.context, &cert[0] if cert.shape[0] else NULL, cert.shape[0],
                                     &key[0] if key.shape[0] else NULL, key.shape[0])
        check(result, "cert")

    def seal(self):
        cdef tls_load_result result
        with nogil:
            result = tls_context_seal(self.context)
        check(result, "cert")

    def ask_certificate(self, const uint8_t[::1] ca not None):
        cdef tls_load_result result
        with nogil:
            result = tls_context_ask_certificate(self.context, &ca[0] if ca.shape[0] else NULL, ca.shape[0])
        check(result, "client_ca")
        self.client_ca_digest = hashlib.sha256(ca).digest()

    def expires_utc_s(self, size_t index):
        cdef long long found = tls_context_expires_utc_s(self.context, index)
        if found < 0:
            raise IndexError(index)
        return found


cdef int check(tls_load_result result, str what) except -1:
    if result == TLS_LOAD_OK:
        return 0
    reason = tls_last_reason().decode("ascii", "replace")
    if result == TLS_LOAD_NO_MEMORY:
        raise MemoryError
    if result == TLS_LOAD_BAD_KEY:
        raise TlsMaterialError("key", f"no private key in PEM without a passphrase ({reason})")
    if result == TLS_LOAD_MISMATCH:
        raise TlsMaterialError("key", "is not the key of the certificate")
    raise TlsMaterialError(what, f"no usable certificate in PEM ({reason})")
