# Python's side of csrc/tls/session.h: ownership, and what others ask about a connection under TLS. Octets only: whose
# they are is known to inbound/connection.pyx.
cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from angarium.model.octets cimport octets, octets_unref
from angarium.tls.context cimport ServerContext
from angarium.tls.ctls cimport *

from angarium.model.errors import RemoteProtocolError
from angarium.tls.peer_certificate import PeerCertificate

cdef enum:
    SUBJECT_OCTETS = 1024
    NAME_OCTETS = 256
    NAME_COUNT = 100            # of one certificate; who has more is found by the first hundred


@cython.final
cdef class TlsSession:
    def __cinit__(self, ServerContext context not None):
        self.context = context
        self.session = tls_session_new(context.context)
        if self.session == NULL:
            raise MemoryError

    def __dealloc__(self):
        tls_session_free(self.session)

    cdef bint is_established(self) noexcept:
        return tls_session_is_established(self.session)

    cdef tls_receive_result receive(self, const uint8_t *data, size_t length, uint8_t *plain, size_t capacity,
                                    size_t *plain_length) noexcept:
        return tls_session_receive(self.session, data, length, plain, capacity, plain_length)

    cdef octets *sealed(self, octets *plain) noexcept:
        if tls_session_is_established(self.session):
            tls_session_send(self.session, plain.data, plain.length)
        octets_unref(plain)
        return tls_session_take_output(self.session)

    cdef octets *take_output(self) noexcept:
        return tls_session_take_output(self.session)

    cdef void close(self) noexcept:
        tls_session_close(self.session)

    cdef void look_at_peer(self) noexcept:
        cdef uint8_t[32] fingerprint
        self.is_resumed = tls_session_is_resumed(self.session)
        if tls_session_peer_fingerprint(self.session, fingerprint):
            self.fingerprint = PyBytes_FromStringAndSize(<const char *>fingerprint, 32)
            self.is_verified = tls_session_peer_is_verified(self.session)

    cdef const char *version_text(self) noexcept:
        return tls_session_version(self.session)

    cdef const char *cipher_text(self) noexcept:
        return tls_session_cipher(self.session)

    cdef const char *failure_text(self) noexcept:
        return tls_session_failure(self.session)

    # For whoever decides about the client -------------------------------------------------------------------------------

    @property
    def version(self):
        return tls_session_version(self.session).decode("ascii")

    @property
    def cipher(self):
        return tls_session_cipher(self.session).decode("ascii")

    @property
    def cipher_name(self):
        return tls_session_cipher_name(self.session).decode("ascii")

    @property
    def cipher_bits(self):
        return tls_session_cipher_bits(self.session)

    def peer_key_fingerprint(self):
        cdef uint8_t[32] digest
        if not tls_session_peer_key_fingerprint(self.session, digest):
            return None
        return PyBytes_FromStringAndSize(<const char *>digest, 32)

    def peer_common_name(self):
        cdef char[SUBJECT_OCTETS] text
        cdef size_t length = tls_session_peer_common_name(self.session, text, SUBJECT_OCTETS)
        return text[:length]

    def peer_issuer_name(self):
        cdef char[SUBJECT_OCTETS] text
        cdef size_t length = tls_session_peer_issuer_name(self.session, text, SUBJECT_OCTETS)
        return text[:length]

    def peer_certificate(self):
        cdef char[SUBJECT_OCTETS] text
        cdef size_t length
        cdef int index
        cdef tls_name_kind kind
        if self.fingerprint is None:
            return None
        length = tls_session_peer_subject(self.session, text, SUBJECT_OCTETS)
        subject = text[:length].decode("utf-8", "replace")
        names = {TLS_NAME_DNS: [], TLS_NAME_EMAIL: []}
        for index in range(NAME_COUNT):
            kind = tls_session_peer_name(self.session, <size_t>index, text, NAME_OCTETS)
            if kind == TLS_NAME_NONE:
                break
            names[kind].append((<const char *>text).decode("ascii"))
        return PeerCertificate(fingerprint=self.fingerprint.hex(), is_verified=self.is_verified, subject=subject,
                               domains=tuple(names[TLS_NAME_DNS]), mailboxes=tuple(names[TLS_NAME_EMAIL]))

    def channel_binding(self, str kind not None):
        cdef uint8_t[64] data
        cdef size_t length = 0
        if kind == "tls-exporter":
            length = 32 if tls_session_exporter(self.session, data) else 0
        elif kind == "tls-server-end-point":
            length = tls_session_server_end_point(self.session, data)
        return PyBytes_FromStringAndSize(<const char *>data, length) if length else None

    # The Python face: for tests and tools ---------------------------------------------------------------------------------

    def open_octets(self, const uint8_t[::1] data not None):
        cdef bint was_established = tls_session_is_established(self.session)
        cdef bytearray plain = bytearray(data.shape[0] + TLS_PLAIN_SLACK)
        cdef size_t length = 0
        cdef tls_receive_result result = self.receive(&data[0] if data.shape[0] else NULL, data.shape[0],
                                                      <uint8_t *>PyByteArray_AS_STRING(plain), len(plain), &length)
        if result == TLS_RECEIVE_FAILED:
            raise RemoteProtocolError(self.failure_text().decode("ascii", "replace"))
        if not was_established and tls_session_is_established(self.session):
            self.look_at_peer()
        return bytes(plain[:length])

    def seal_octets(self, const uint8_t[::1] plain not None):
        cdef octets *output
        if plain.shape[0] and tls_session_is_established(self.session):
            tls_session_send(self.session, &plain[0], plain.shape[0])
        output = tls_session_take_output(self.session)
        if output == NULL:
            return b""
        try:
            return PyBytes_FromStringAndSize(<const char *>output.data, output.length)
        finally:
            octets_unref(output)
