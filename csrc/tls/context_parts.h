/* What context.c and session.c share and nobody else sees. */
#ifndef ANGARIUM_TLS_CONTEXT_PARTS_H
#define ANGARIUM_TLS_CONTEXT_PARTS_H

#include <openssl/ssl.h>

#include "tls/context.h"

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

#endif
