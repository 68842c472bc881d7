# Python's side of csrc/tls/client_context.h: ownership, and codes turned into exceptions. Octets only: whose they are is known
# to outbound/connection.pyx, which policy asks for them to outbound/tls_policy.py.
cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free
from angarium.model.octets cimport octets, octets_unref
from angarium.tls.ctls cimport *

from angarium.model.errors import RemoteProtocolError, TlsMaterialError


cdef dict PROFILES = {"any": TLS_CLIENT_ANY, "strict": TLS_CLIENT_STRICT, "dane": TLS_CLIENT_DANE}


cdef int fill_record(tls_dane_record *into, object record) except -1:
    """Borrows record.data."""
    cdef bytes data = record.data
    into.usage, into.selector, into.matching = record.usage, record.selector, record.matching
    into.data = <const uint8_t *><const char *>data
    into.length = <size_t>len(data)
    return 0


def is_usable(record not None):
    cdef tls_dane_record raw
    fill_record(&raw, record)
    return tls_dane_is_usable(&raw)


@cython.final
cdef class ClientContext:
    def __cinit__(self, str profile not None):
        cdef tls_client_profile asked = PROFILES[profile]
        with nogil:
            self.context = tls_client_context_new(asked)
        if self.context == NULL:
            raise MemoryError

    def __dealloc__(self):
        tls_client_context_free(self.context)

    def trust(self, const uint8_t[::1] ca not None):
        cdef tls_load_result result
        with nogil:                 # the system's authorities are 40 ms of work
            result = tls_client_context_trust(self.context, &ca[0] if ca.shape[0] else NULL, ca.shape[0])
        check(result)

    def show(self, const uint8_t[::1] cert not None, const uint8_t[::1] key not None):
        cdef tls_load_result result
        with nogil:
            result = tls_client_context_show(self.context, &cert[0] if cert.shape[0] else NULL, cert.shape[0],
                                             &key[0] if key.shape[0] else NULL, key.shape[0])
        check(result)

    @property
    def kept_count(self):
        return tls_client_context_kept(self.context)


cdef int check(tls_load_result result) except -1:
    if result == TLS_LOAD_OK:
        return 0
    reason = tls_last_reason().decode("ascii", "replace")
    if result == TLS_LOAD_NO_MEMORY:
        raise MemoryError
    if result == TLS_LOAD_BAD_KEY:
        raise TlsMaterialError("key", f"no private key in PEM without a passphrase ({reason})")
    if result == TLS_LOAD_MISMATCH:
        raise TlsMaterialError("key", "is not the key of the certificate")
    raise TlsMaterialError("cert", f"no usable certificate in PEM ({reason})")


@cython.final
cdef class ClientTls:
    def __cinit__(self, ClientContext context not None, str name not None, str key not None, tuple records=(),
                  tuple more_names=()):
        cdef bytes name_octets = name.encode("ascii")
        cdef bytes key_octets = key.encode("utf-8")
        self.context = context
        if records:
            self.connect_dane(name_octets, key_octets, records, [each.encode("ascii") for each in more_names])
        else:
            self.session = tls_session_connect(context.context, name_octets, key_octets)
        if self.session == NULL:
            raise ValueError(f"no TLS for a host called {name!r}")

    def __dealloc__(self):
        tls_session_free(self.session)

    cdef int connect_dane(self, bytes name, bytes key, tuple records, list more_names) except -1:
        cdef size_t record_count = <size_t>len(records), name_count = <size_t>len(more_names), i
        cdef tls_dane_record *raw = <tls_dane_record *>calloc(record_count, sizeof(tls_dane_record))
        cdef const char **names = <const char **>calloc(name_count + 1, sizeof(char *))
        try:
            if raw == NULL or names == NULL:
                raise MemoryError
            for i in range(record_count):
                fill_record(&raw[i], records[i])
            for i in range(name_count):
                names[i] = <const char *><bytes>more_names[i]
            self.session = tls_session_connect_dane(self.context.context, name, names, name_count, raw, record_count, key)
        finally:
            free(raw)
            free(names)
        return 0

    cdef bint is_up(self) noexcept:
        return tls_session_is_established(self.session)

    cdef tls_receive_result receive(self, const uint8_t *data, size_t length, uint8_t *plain, size_t capacity,
                                    size_t *plain_length) noexcept:
        return tls_session_receive(self.session, data, length, plain, capacity, plain_length)

    cdef int send(self, const uint8_t *plain, size_t length) noexcept:
        return tls_session_send(self.session, plain, length)

    cdef octets *take_output(self) noexcept:
        return tls_session_take_output(self.session)

    cdef void close(self) noexcept:
        tls_session_close(self.session)

    cdef const char *version_text(self) noexcept:
        return tls_session_version(self.session)

    cdef const char *cipher_text(self) noexcept:
        return tls_session_cipher(self.session)

    @property
    def is_established(self):
        return self.is_up()

    @property
    def is_resumed(self):
        return tls_session_is_resumed(self.session)

    @property
    def has_own_certificate(self):
        return tls_session_has_certificate(self.session)

    @property
    def is_verified(self):
        return self.is_up() and tls_session_peer_is_verified(self.session)

    @property
    def version(self):
        return tls_session_version(self.session).decode("ascii")

    @property
    def cipher(self):
        return tls_session_cipher(self.session).decode("ascii")

    def channel_binding(self, str kind not None):
        cdef uint8_t[64] data
        cdef size_t length = 0
        if kind == "tls-exporter":
            length = 32 if tls_session_exporter(self.session, data) else 0
        elif kind == "tls-server-end-point":
            length = tls_session_server_end_point(self.session, data)
        return PyBytes_FromStringAndSize(<const char *>data, length) if length else None

    @property
    def distrust(self):
        if not self.is_up() or tls_session_peer_is_verified(self.session):
            return ""
        return tls_session_distrust(self.session).decode("ascii", "replace")

    @property
    def failure(self):
        cdef str reason = tls_session_failure(self.session).decode("ascii", "replace")
        if reason == "certificate verify failed":
            return f"{reason}: {tls_session_distrust(self.session).decode('ascii', 'replace')}"
        return reason

    # The Python face: for tests and tools ---------------------------------------------------------------------------------

    def open_octets(self, const uint8_t[::1] data not None):
        cdef bytearray plain = bytearray(data.shape[0] + TLS_PLAIN_SLACK)
        cdef size_t length = 0
        cdef tls_receive_result result = self.receive(&data[0] if data.shape[0] else NULL, data.shape[0],
                                                      <uint8_t *>PyByteArray_AS_STRING(plain), len(plain), &length)
        if result == TLS_RECEIVE_FAILED:
            raise RemoteProtocolError(self.failure)
        return bytes(plain[:length])

    def seal_octets(self, const uint8_t[::1] plain not None):
        cdef octets *output
        if plain.shape[0] and self.is_up():
            self.send(&plain[0], plain.shape[0])
        output = self.take_output()
        if output == NULL:
            return b""
        try:
            return PyBytes_FromStringAndSize(<const char *>output.data, output.length)
        finally:
            octets_unref(output)
