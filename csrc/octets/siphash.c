/* SipHash-2-4, see siphash.h. Words are little-endian, whatever the machine. */
#include "octets/siphash.h"

static uint64_t rotated(uint64_t word, int bits)
{
    return word << bits | word >> (64 - bits);
}

static void rounds(uint64_t v[4], int count)
{
    while (count-- > 0) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotated(v[1], 13) ^ v[0];
        v[3] = rotated(v[3], 16) ^ v[2];
        v[0] = rotated(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotated(v[1], 17) ^ v[2];
        v[3] = rotated(v[3], 21) ^ v[0];
        v[2] = rotated(v[2], 32);
    }
}

uint64_t siphash24(const uint64_t key[2], const uint8_t *data, size_t length)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
                     key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573};
    uint64_t word = 0;
    for (size_t at = 0; at < length; at++) {
        word |= (uint64_t)data[at] << (at % 8 * 8);
        if (at % 8 == 7) {
            v[3] ^= word;
            rounds(v, 2);
            v[0] ^= word;
            word = 0;
        }
    }
    word |= (uint64_t)length << 56;
    v[3] ^= word;
    rounds(v, 2);
    v[0] ^= word;
    v[2] ^= 0xff;
    rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
