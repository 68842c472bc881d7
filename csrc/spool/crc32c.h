/* CRC-32C (Castagnoli): SSE4.2 where the processor has it, slicing-by-8 tables elsewhere.
 * What it is not: a general CRC library; no other polynomial. */
#ifndef ANGARIUM_SPOOL_CRC32C_H
#define ANGARIUM_SPOOL_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continues `crc` (0 to start) over data[0..length): crc32c(crc32c(0, a), b) == crc32c(0, ab). */
uint32_t crc32c(uint32_t crc, const void *data, size_t length);

/* The two implementations, for the test that holds one against the other. */
uint32_t crc32c_tables(uint32_t crc, const void *data, size_t length);
/* Which one crc32c() uses: "sse4.2" or "tables". */
const char *crc32c_name(void);

#endif
