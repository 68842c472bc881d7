# Mirrors csrc/tls/*.h and nothing else.
from libc.stdint cimport int64_t, uint8_t, uint32_t
from angarium.model.octets cimport octets

cdef extern from "tls/ticket_keys.h" nogil:
    enum:
        TLS_TICKET_SECRET_OCTETS

    ctypedef struct tls_ticket_keys:
        uint32_t sequence
        uint32_t count

    void tls_ticket_keys_rotate(tls_ticket_keys *self, const uint8_t *secret)

cdef extern from "tls/context.h" nogil:
    ctypedef struct tls_context:
        pass

    ctypedef enum tls_load_result:
        TLS_LOAD_OK
        TLS_LOAD_BAD_CERTIFICATE
        TLS_LOAD_BAD_KEY
        TLS_LOAD_MISMATCH
        TLS_LOAD_NO_MEMORY

    tls_context *tls_context_new(bint is_tls13_only, const tls_ticket_keys *tickets)
    void tls_context_free(tls_context *self)
    tls_load_result tls_context_add(tls_context *self, const uint8_t *cert, size_t cert_length,
                                    const uint8_t *key, size_t key_length)
    tls_load_result tls_context_seal(tls_context *self)
    tls_load_result tls_context_ask_certificate(tls_context *self, const uint8_t *ca, size_t ca_length)
    int64_t tls_context_expires_utc_s(const tls_context *self, size_t index)
    const char *tls_last_reason()

cdef extern from "tls/session.h" nogil:
    ctypedef struct tls_session:
        pass

    enum:
        TLS_PLAIN_SLACK

    ctypedef enum tls_receive_result:
        TLS_RECEIVE_MORE
        TLS_RECEIVE_CLOSED
        TLS_RECEIVE_FAILED

    ctypedef enum tls_name_kind:
        TLS_NAME_NONE
        TLS_NAME_DNS
        TLS_NAME_EMAIL

    tls_session *tls_session_new(tls_context *context)
    void tls_session_free(tls_session *self)
    tls_receive_result tls_session_receive(tls_session *self, const uint8_t *data, size_t length,
                                           uint8_t *plain, size_t capacity, size_t *plain_length)
    int tls_session_send(tls_session *self, const uint8_t *plain, size_t length)
    void tls_session_close(tls_session *self)
    octets *tls_session_take_output(tls_session *self)
    bint tls_session_is_established(const tls_session *self)
    bint tls_session_is_resumed(const tls_session *self)
    bint tls_session_has_certificate(const tls_session *self)
    const char *tls_session_failure(const tls_session *self)
    const char *tls_session_version(const tls_session *self)
    const char *tls_session_cipher(const tls_session *self)
    const char *tls_session_cipher_name(const tls_session *self)
    int tls_session_cipher_bits(const tls_session *self)
    bint tls_session_peer_fingerprint(const tls_session *self, uint8_t *fingerprint)
    bint tls_session_peer_is_verified(const tls_session *self)
    size_t tls_session_peer_subject(const tls_session *self, char *text, size_t size)
    bint tls_session_peer_key_fingerprint(const tls_session *self, uint8_t *fingerprint)
    size_t tls_session_peer_common_name(const tls_session *self, char *text, size_t size)
    size_t tls_session_peer_issuer_name(const tls_session *self, char *text, size_t size)
    tls_name_kind tls_session_peer_name(const tls_session *self, size_t index, char *text, size_t size)
    bint tls_session_exporter(const tls_session *self, uint8_t *into)
    size_t tls_session_server_end_point(const tls_session *self, uint8_t *into)

cdef extern from "tls/dane.h" nogil:
    ctypedef struct tls_dane_record:
        uint8_t usage
        uint8_t selector
        uint8_t matching
        const uint8_t *data
        size_t length

    bint tls_dane_is_usable(const tls_dane_record *record)

cdef extern from "tls/client_context.h" nogil:
    ctypedef struct tls_client_context:
        pass

    ctypedef enum tls_client_profile:
        TLS_CLIENT_ANY
        TLS_CLIENT_STRICT
        TLS_CLIENT_DANE

    tls_client_context *tls_client_context_new(tls_client_profile profile)
    void tls_client_context_free(tls_client_context *self)
    tls_load_result tls_client_context_trust(tls_client_context *self, const uint8_t *ca, size_t ca_length)
    tls_load_result tls_client_context_show(tls_client_context *self, const uint8_t *cert, size_t cert_length,
                                            const uint8_t *key, size_t key_length)
    tls_session *tls_session_connect(tls_client_context *context, const char *name, const char *key)
    tls_session *tls_session_connect_dane(tls_client_context *context, const char *base, const char **more_names,
                                          size_t more_names_count, const tls_dane_record *records, size_t record_count,
                                          const char *key)
    const char *tls_session_distrust(const tls_session *self)
    size_t tls_client_context_kept(const tls_client_context *self)
