/* What we bring to TLS as a client: whom we trust, our own certificate, and the sessions that may be resumed.
 *
 * What it is not: a decision whether TLS is wanted, or what a certificate that does not match means (the caller's), and a
 * reader of files but for the system's authorities, which OpenSSL finds itself.
 *
 * TLS 1.2 and 1.3. Three profiles: TLS_CLIENT_STRICT ends the handshake unless the certificate is verified for the host (RFC 6125;
 * forward secrecy and AEAD only, the server side's list). TLS_CLIENT_ANY takes every certificate, and every key and cipher but those
 * without authentication or encryption: where the choice is clear text, the weakest of them is better. TLS_CLIENT_DANE
 * ends the handshake unless the certificate matches one of the TLSA records that its sessions come with; authorities have no say in
 * it. The verdict is known in all of them.
 *
 * A context is made whole and then only read; sessions keep it alive (their owner holds a reference). One thread at a time.
 */
#ifndef ANGARIUM_TLS_CLIENT_CONTEXT_H
#define ANGARIUM_TLS_CLIENT_CONTEXT_H

#include <stddef.h>
#include <stdint.h>

#include "tls/context.h"
#include "tls/dane.h"
#include "tls/session.h"

typedef struct tls_client_context tls_client_context;

typedef enum tls_client_profile { TLS_CLIENT_ANY = 0, TLS_CLIENT_STRICT, TLS_CLIENT_DANE } tls_client_profile;

/* Sessions kept for resumption: one a host, in as many places; a host whose place is taken takes it over. */
#define TLS_CLIENT_SESSIONS 512
/* Of a host's name and of the key its session is kept under. */
#define TLS_CLIENT_NAME_OCTETS 300

/* NULL when memory is out. */
tls_client_context *tls_client_context_new(tls_client_profile profile);
void tls_client_context_free(tls_client_context *self);

/* Whom to trust: PEM certificates, or, with length 0, the system's authorities. One call. */
tls_load_result tls_client_context_trust(tls_client_context *self, const uint8_t *ca, size_t ca_length);

/* The certificate with its chain (leaf first), and its key, both PEM, for servers that ask for one. The OpenSSL reason is in
 * tls_last_reason(). */
tls_load_result tls_client_context_show(tls_client_context *self, const uint8_t *cert, size_t cert_length,
                                        const uint8_t *key, size_t key_length);

/* A session with a server called `name` (NUL-terminated: A-labels, or a numeric address, which is not sent as SNI), and its
 * ClientHello in the output. `key`: what the server's session is kept under; the same name at another address or port may be
 * another machine. No ALPN. NULL when memory is out or the name is none. The context must outlive the session. */
tls_session *tls_session_connect(tls_client_context *context, const char *name, const char *key);

/* The same with a context of TLS_CLIENT_DANE: the certificate must match one of `records`, all usable (tls_dane_is_usable()). `base`
 * is the TLSA base domain: it goes into SNI, and with usage 2 the certificate must bear it or one of `more_names` (RFC 7672 §3.2.2);
 * with usage 3 neither names nor dates count (§3.1.1). `key` must be another for other records or names: a session that is resumed
 * is not verified again. NULL also where OpenSSL can use none of the records. */
tls_session *tls_session_connect_dane(tls_client_context *context, const char *base, const char *const *more_names,
                                      size_t more_names_count, const tls_dane_record *records, size_t record_count,
                                      const char *key);

/* Why the server's certificate is not verified, in OpenSSL's words, static text; "" when it is. Once established, or failed. */
const char *tls_session_distrust(const tls_session *self);

/* Sessions kept now. */
size_t tls_client_context_kept(const tls_client_context *self);

#endif
