/* The PROXY protocol's header, version 1 (a line) and 2 (octets), as HAProxy's proxy-protocol.txt (2020/03/05) has it: who the
 * client is that a load balancer speaks for. What it is not: a decision whether the sender may say so.
 */
#ifndef ANGARIUM_SMTP_PROXY_H
#define ANGARIUM_SMTP_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A header that is longer is refused: version 1 has 107 at the most, version 2 so many with all its TLVs. */
#define PROXY_OCTETS_MAX 2048

typedef enum proxy_result {
    PROXY_OK = 0,
    PROXY_PARTIAL,                      /* no verdict yet: more octets are wanted */
    PROXY_BAD,                          /* not a header, or one that says what cannot be */
} proxy_result;

typedef struct proxy_header {
    bool is_local;                      /* LOCAL, UNKNOWN, UNSPEC or a unix client: the connection is the balancer's own */
    uint8_t address[16];                /* the client's, IPv4 as ::ffff:a.b.c.d; only when not is_local */
    uint16_t port;                      /* host order */
    uint8_t destination[16];            /* which address of ours it came to, in the same form */
    uint16_t destination_port;
    size_t length;                      /* octets of the header; what follows is the client's */
} proxy_header;

/* Reads the header that data begins with. The verdict does not depend on where the octets were cut. */
proxy_result proxy_header_parse(const uint8_t *data, size_t length, proxy_header *out);

#endif
