/* One TLS connection without a socket: ciphertext in, plain octets out, and the other way round. A server's is made here, a
 * client's by client_context.h.
 *
 * OpenSSL reads straight from the caller's buffer and writes into one growing run of octets that the caller sends; nothing
 * is kept between calls but a record that is not complete yet. One thread at a time. The context must outlive it.
 */
#ifndef ANGARIUM_TLS_SESSION_H
#define ANGARIUM_TLS_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "octets/octets.h"
#include "tls/context.h"

typedef struct tls_session tls_session;

/* What a read may yield beyond the octets it was given: the rest of a record that was begun before. */
#define TLS_PLAIN_SLACK (18 << 10)

typedef enum tls_receive_result {
    TLS_RECEIVE_MORE = 0,       /* all of it was used; more is wanted */
    TLS_RECEIVE_CLOSED,         /* the peer said close_notify: nothing follows */
    TLS_RECEIVE_FAILED,         /* over for good; an alert may be in the output. Why: tls_session_failure() */
} tls_receive_result;

/* NULL when memory is out. */
tls_session *tls_session_new(tls_context *context);
void tls_session_free(tls_session *self);

/* Takes all of in[0..length), and puts what was said under TLS into plain[0..capacity), *plain_length octets of it. `capacity`
 * must be length + TLS_PLAIN_SLACK at least. The handshake goes on by itself: look at tls_session_is_established() and
 * take the output after every call. */
tls_receive_result tls_session_receive(tls_session *self, const uint8_t *in, size_t length,
                                       uint8_t *plain, size_t capacity, size_t *plain_length);

/* Seals plain octets into the output. Only once established. 0, or -1: it failed and the connection is of no use. */
int tls_session_send(tls_session *self, const uint8_t *plain, size_t length);

/* Says close_notify into the output; nothing may be sent after it. Harmless at any time. */
void tls_session_close(tls_session *self);

/* What is to be sent, or NULL; the reference is the caller's. */
octets *tls_session_take_output(tls_session *self);

bool tls_session_is_established(const tls_session *self);
bool tls_session_is_resumed(const tls_session *self);
/* We have a certificate for peers that ask for one. Whether this one did is not told. */
bool tls_session_has_certificate(const tls_session *self);
/* OpenSSL's words, static text; "" while nothing failed. */
const char *tls_session_failure(const tls_session *self);
/* "TLSv1.3", "TLS_AES_128_GCM_SHA256" (the IANA name): static texts that outlive the session. */
const char *tls_session_version(const tls_session *self);
const char *tls_session_cipher(const tls_session *self);
/* As OpenSSL and whoever uses it spells it, "ECDHE-RSA-AES128-GCM-SHA256"; bits of its key. "" and 0 before it is agreed. */
const char *tls_session_cipher_name(const tls_session *self);
int tls_session_cipher_bits(const tls_session *self);

/* The peer's certificate. SHA-256 of its DER form, 32 octets; false: it showed none. */
bool tls_session_peer_fingerprint(const tls_session *self, uint8_t *fingerprint);
/* It showed one that the context's CA has signed for this use; a server's also bears its name. */
bool tls_session_peer_is_verified(const tls_session *self);
/* Its subject as RFC 2253 writes it. Returns the length, cut at `size`; 0: there is none. */
size_t tls_session_peer_subject(const tls_session *self, char *text, size_t size);
/* SHA-256 of its public key (SubjectPublicKeyInfo, DER), 32 octets; false: it showed none. */
bool tls_session_peer_key_fingerprint(const tls_session *self, uint8_t *fingerprint);
/* The last commonName of its subject, and of its issuer (or else the issuer's organizationName), UTF-8 with anything in it but NUL.
 * Returns the length; 0: there is none, or it is longer than `size`, or has a NUL. */
size_t tls_session_peer_common_name(const tls_session *self, char *text, size_t size);
size_t tls_session_peer_issuer_name(const tls_session *self, char *text, size_t size);
typedef enum tls_name_kind { TLS_NAME_NONE = 0, TLS_NAME_DNS, TLS_NAME_EMAIL } tls_name_kind;
/* Its alternative name number `index` among those of these kinds, printable ASCII; TLS_NAME_NONE past the last. */
tls_name_kind tls_session_peer_name(const tls_session *self, size_t index, char *text, size_t size);

/* Channel bindings. tls-exporter (RFC 9266): 32 octets; false where it would prove nothing (TLS 1.2 without RFC 7627).
 * tls-server-end-point (RFC 5929 §4), of either side: up to 64 octets, returns how many; 0 when the certificate is not known for sure
 * (a resumed session). */
bool tls_session_exporter(const tls_session *self, uint8_t *into);
size_t tls_session_server_end_point(const tls_session *self, uint8_t *into);

#endif
