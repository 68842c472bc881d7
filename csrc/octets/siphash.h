/* SipHash-2-4 (Aumasson, Bernstein): for tables whose keys come from strangers, who must not be able to choose collisions. */
#ifndef ANGARIUM_OCTETS_SIPHASH_H
#define ANGARIUM_OCTETS_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

/* key  two words, random per process. */
uint64_t siphash24(const uint64_t key[2], const uint8_t *data, size_t length);

#endif
