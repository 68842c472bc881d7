/* What one listener offers under TLS, over OpenSSL: certificates by name, protocol versions, ciphers, tickets.
 *
 * What it is not: a connection (session.h), and a reader of files: PEM text comes in as octets.
 *
 * Profile: Mozilla's "intermediate" without its finite-field Diffie-Hellman, which no mail client of today needs and
 * which lets a client buy our CPU time cheaply (CVE-2002-20001). TLS 1.2 and 1.3, forward secrecy and AEAD only, the client's
 * order of ciphers. No compression, no renegotiation, no early data.
 *
 * A context is made whole and then only read; sessions keep it alive (their owner holds a reference), so that a reload
 * takes nothing from those under way. One thread at a time.
 */
#ifndef ANGARIUM_TLS_CONTEXT_H
#define ANGARIUM_TLS_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tls/ticket_keys.h"

typedef struct tls_context tls_context;

typedef enum tls_load_result {
    TLS_LOAD_OK = 0,
    TLS_LOAD_BAD_CERTIFICATE,   /* no certificate in it, or one that cannot be read or used */
    TLS_LOAD_BAD_KEY,           /* no private key in it, or one behind a passphrase */
    TLS_LOAD_MISMATCH,          /* the key is another certificate's */
    TLS_LOAD_NO_MEMORY,
} tls_load_result;

/* An empty context; NULL when memory is out. `is_tls13_only`: nothing below 1.3. `tickets` may be NULL: then no tickets
 * are given; else it must outlive the context. */
tls_context *tls_context_new(bool is_tls13_only, const tls_ticket_keys *tickets);
void tls_context_free(tls_context *self);

/* Adds a certificate with its chain (leaf first) and its key, both PEM. The first of each kind of key is what clients get
 * that name no host, or one that is in no certificate. The OpenSSL reason is in tls_last_reason(). */
tls_load_result tls_context_add(tls_context *self, const uint8_t *cert, size_t cert_length,
                                const uint8_t *key, size_t key_length);

/* Call once after the last add. */
tls_load_result tls_context_seal(tls_context *self);

/* Asks clients for a certificate, and takes every answer: none, or one that nobody has signed. `ca` (PEM, may be empty)
 * says which ones are verified; a digest of it keeps tickets from carrying a verdict into another context. */
tls_load_result tls_context_ask_certificate(tls_context *self, const uint8_t *ca, size_t ca_length);

/* The certificate number `index`: the moment it ends, in Unix seconds; -1 past the last one. */
int64_t tls_context_expires_utc_s(const tls_context *self, size_t index);

/* Why the last call of this thread failed, in OpenSSL's words; static text. Clears it. */
const char *tls_last_reason(void);

#endif
