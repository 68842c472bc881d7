/* What the files of this folder share and nobody else sees. */
#ifndef ANGARIUM_TLS_CONTEXT_PARTS_H
#define ANGARIUM_TLS_CONTEXT_PARTS_H

#include <openssl/ssl.h>

#include "tls/context.h"
#include "tls/session.h"

typedef struct tls_certificate {
    X509 *leaf;
    STACK_OF(X509) *chain;
    EVP_PKEY *key;
} tls_certificate;

typedef struct tls_name {
    char *text;                 /* lower case; "*.example.com" as it is */
    size_t certificate;         /* index */
} tls_name;

struct tls_context {
    SSL_CTX *ssl_ctx;
    const tls_ticket_keys *tickets;
    tls_certificate *certificates;
    size_t certificate_count;
    tls_name *names;            /* sorted by text after tls_context_seal(), then by certificate */
    size_t name_count;
};

/* The ciphers and groups of context.h's profile. */
bool tls_profile_apply(SSL_CTX *ctx);
/* All certificates of a PEM text. NULL: one is damaged, or there is none. */
STACK_OF(X509) *tls_read_certificates(const uint8_t *pem, size_t length);
/* NULL: there is none, or it is behind a passphrase. */
EVP_PKEY *tls_read_key(const uint8_t *pem, size_t length);

/* A session over `ssl`, which is its own from here on, and so is `text` (malloc, may be NULL). NULL when memory is out: then
 * both are still the caller's. */
tls_session *tls_session_over(SSL *ssl, char *text);
SSL *tls_session_ssl(const tls_session *self);

#endif
