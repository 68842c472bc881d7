/* TLSA records as SMTP uses them (RFC 6698, 7671, 7672): which of them say something about a certificate.
 *
 * What it is not: the look-up, or the decision whether DANE has a say in a host (Python's), nor the comparison with a certificate,
 * which is OpenSSL's, inside the handshake (client_context.h).
 */
#ifndef ANGARIUM_TLS_DANE_H
#define ANGARIUM_TLS_DANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tls_dane_record {
    uint8_t usage, selector, matching;
    const uint8_t *data;
    size_t length;
} tls_dane_record;

/* RFC 7672 §3.1.3: DANE-TA(2) and DANE-EE(3) only; a selector and a matching type that are known; a digest of its length, or a
 * whole certificate or public key without anything behind it. */
bool tls_dane_is_usable(const tls_dane_record *record);

#endif
