/* The keys that session tickets are sealed with (RFC 5077, RFC 8446 §4.6.1), in memory that all processes map.
 *
 * One writer, the supervisor, rotates; workers read them in the middle of handshakes. A sequence number that is odd while the
 * writer is at work makes readers look again, so there is no lock that a process could die with. The key before the last
 * rotation still opens tickets and seals none.
 */
#ifndef ANGARIUM_TLS_TICKET_KEYS_H
#define ANGARIUM_TLS_TICKET_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TLS_TICKET_NAME_OCTETS 16
#define TLS_TICKET_KEY_OCTETS 32
#define TLS_TICKET_SECRET_OCTETS (TLS_TICKET_NAME_OCTETS + 2 * TLS_TICKET_KEY_OCTETS)

typedef struct tls_ticket_key {
    uint8_t name[TLS_TICKET_NAME_OCTETS];
    uint8_t cipher_key[TLS_TICKET_KEY_OCTETS];  /* AES-256-CBC */
    uint8_t mac_key[TLS_TICKET_KEY_OCTETS];     /* HMAC-SHA-256 */
} tls_ticket_key;

typedef struct tls_ticket_keys {
    uint32_t sequence;          /* touched with __atomic builtins only; odd: being written */
    uint32_t count;             /* of keys that are valid, 0 to 2 */
    tls_ticket_key keys[2];     /* the one that seals, the one before */
} tls_ticket_keys;

/* `secret`: TLS_TICKET_SECRET_OCTETS random octets. One process only. */
void tls_ticket_keys_rotate(tls_ticket_keys *self, const uint8_t *secret);

/* The key that seals now. False: there is none. */
bool tls_ticket_keys_current(const tls_ticket_keys *self, tls_ticket_key *key);

typedef enum tls_ticket_age { TLS_TICKET_UNKNOWN = 0, TLS_TICKET_CURRENT, TLS_TICKET_PREVIOUS } tls_ticket_age;

/* The key of that name. */
tls_ticket_age tls_ticket_keys_find(const tls_ticket_keys *self, const uint8_t *name, tls_ticket_key *key);

#endif
