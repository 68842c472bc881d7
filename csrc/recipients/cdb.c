#include "recipients/cdb.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "spool/bytes.h"

enum { HEADER_OCTETS = 2048, SLOT_OCTETS = 8, SLOTS_AT_ONCE = 32 };

/* In a sound database a free slot comes soon and few keys share a hash. A damaged number of slots could have us walk through 4 GiB on
 * the event loop, keys chosen for their hash through each other's records: half a MiB of slots is enough for a table without any free
 * slot in a database of sixteen million. */
enum { SLOTS_WALKED_MAX = 1 << 16, RECORDS_LOOKED_AT_MAX = 1 << 12 };

/* All of it, or nothing. */
static int read_at(int fd, uint8_t *data, size_t length, uint64_t at)
{
    while (length > 0) {
        ssize_t got = pread(fd, data, length, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -EBADMSG;
        data += got;
        at += (uint64_t)got;
        length -= (size_t)got;
    }
    return 0;
}

/* 1: the record at `at` has this key. */
static int is_record_of(int fd, uint64_t file_octets, uint64_t at, const uint8_t *key, uint32_t length, uint32_t *value_length)
{
    uint8_t data[512];
    if (at < HEADER_OCTETS || at + 8 > file_octets)
        return -EBADMSG;
    int error = read_at(fd, data, 8, at);
    if (error != 0)
        return error;
    *value_length = load32(data + 4);
    if (at + 8 + load32(data) + *value_length > file_octets)
        return -EBADMSG;
    if (load32(data) != length)
        return 0;
    at += 8;
    while (length > 0) {
        uint32_t some = length < sizeof data ? length : (uint32_t)sizeof data;
        error = read_at(fd, data, some, at);
        if (error != 0)
            return error;
        if (memcmp(data, key, some) != 0)
            return 0;
        at += some;
        key += some;
        length -= some;
    }
    return 1;
}

int cdb_find(int fd, uint64_t file_octets, const uint8_t *key, uint32_t length, uint64_t *at, uint32_t *value_length)
{
    uint8_t data[SLOT_OCTETS * SLOTS_AT_ONCE];
    uint32_t hash = 5381;
    for (uint32_t i = 0; i < length; i++)
        hash = ((hash << 5) + hash) ^ key[i];
    int error = read_at(fd, data, 8, (uint64_t)(hash & 255) * 8);
    if (error != 0)
        return error;
    uint64_t table = load32(data), slots = load32(data + 4);
    if (slots == 0)
        return 0;
    if (table < HEADER_OCTETS || table + slots * SLOT_OCTETS > file_octets)
        return -EBADMSG;
    uint64_t slot = (hash >> 8) % slots;
    unsigned records = 0;
    for (uint64_t looked = 0; looked < slots;) {
        if (looked >= SLOTS_WALKED_MAX)
            return -EBADMSG;
        uint64_t some = slots - slot;
        if (some > SLOTS_AT_ONCE)
            some = SLOTS_AT_ONCE;
        if (some > slots - looked)
            some = slots - looked;
        error = read_at(fd, data, (size_t)some * SLOT_OCTETS, table + slot * SLOT_OCTETS);
        if (error != 0)
            return error;
        for (uint64_t i = 0; i < some; i++) {
            uint64_t record = load32(data + i * SLOT_OCTETS + 4);
            if (record == 0)
                return 0;
            if (load32(data + i * SLOT_OCTETS) != hash)
                continue;
            if (++records > RECORDS_LOOKED_AT_MAX)
                return -EBADMSG;
            int found = is_record_of(fd, file_octets, record, key, length, value_length);
            if (found != 0) {
                *at = record + 8 + length;
                return found;
            }
        }
        looked += some;
        slot = (slot + some) % slots;
    }
    return 0;
}
