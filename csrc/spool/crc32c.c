/* CRC-32C. The choice between hardware and tables is made once, before main(), so that no thread ever races for it. */
#include "spool/crc32c.h"

#include <string.h>

#define POLYNOMIAL 0x82f63b78u      /* Castagnoli, reflected */

static uint32_t tables[8][256];

uint32_t crc32c_tables(uint32_t crc, const void *data, size_t length)
{
    const uint8_t *at = data;
    crc = ~crc;
    while (length >= 8) {
        uint32_t low = crc ^ ((uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24);
        crc = tables[7][low & 255] ^ tables[6][low >> 8 & 255] ^ tables[5][low >> 16 & 255] ^ tables[4][low >> 24]
            ^ tables[3][at[4]] ^ tables[2][at[5]] ^ tables[1][at[6]] ^ tables[0][at[7]];
        at += 8;
        length -= 8;
    }
    while (length-- > 0)
        crc = tables[0][(crc ^ *at++) & 255] ^ crc >> 8;
    return ~crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>

/* The instruction has a latency of 3 and a throughput of 1: three independent runs of LANE octets keep it busy.
 * Joining them needs "crc after LANE zeros", a linear map, tabulated per octet of the crc. */
enum { LANE = 1024 };
static uint32_t shift_lane[4][256];

static inline uint32_t shift(uint32_t crc)
{
    return shift_lane[0][crc & 255] ^ shift_lane[1][crc >> 8 & 255] ^ shift_lane[2][crc >> 16 & 255]
         ^ shift_lane[3][crc >> 24];
}

__attribute__((target("sse4.2")))
static uint32_t crc32c_sse42(uint32_t crc, const void *data, size_t length)
{
    const uint8_t *at = data;
    uint64_t a = ~crc, word;
    while (length >= 3 * LANE) {
        uint64_t b = 0, c = 0, w1, w2;
        for (unsigned i = 0; i < LANE; i += 8) {
            memcpy(&word, at + i, 8);
            memcpy(&w1, at + LANE + i, 8);
            memcpy(&w2, at + 2 * LANE + i, 8);
            a = _mm_crc32_u64(a, word);
            b = _mm_crc32_u64(b, w1);
            c = _mm_crc32_u64(c, w2);
        }
        a = shift(shift((uint32_t)a) ^ (uint32_t)b) ^ (uint32_t)c;
        at += 3 * LANE;
        length -= 3 * LANE;
    }
    for (; length >= 8; at += 8, length -= 8) {
        memcpy(&word, at, 8);
        a = _mm_crc32_u64(a, word);
    }
    uint32_t tail = (uint32_t)a;
    while (length-- > 0)
        tail = _mm_crc32_u8(tail, *at++);
    return ~tail;
}
#endif

static uint32_t (*chosen)(uint32_t, const void *, size_t) = crc32c_tables;

__attribute__((constructor))
static void crc32c_prepare(void)
{
    for (unsigned n = 0; n < 256; n++) {
        uint32_t crc = n;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
        tables[0][n] = crc;
    }
    for (unsigned n = 0; n < 256; n++)
        for (int t = 1; t < 8; t++)
            tables[t][n] = tables[0][tables[t - 1][n] & 255] ^ tables[t - 1][n] >> 8;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) {
        for (unsigned octet = 0; octet < 4; octet++)
            for (unsigned n = 0; n < 256; n++) {
                uint32_t crc = n << 8 * octet;
                for (int i = 0; i < LANE; i++)
                    crc = tables[0][crc & 255] ^ crc >> 8;
                shift_lane[octet][n] = crc;
            }
        chosen = crc32c_sse42;
    }
#endif
}

uint32_t crc32c(uint32_t crc, const void *data, size_t length)
{
    return chosen(crc, data, length);
}

const char *crc32c_name(void)
{
    return chosen == crc32c_tables ? "tables" : "sse4.2";
}
