/* In a sound database each key has its first value, and no other key has any. In any other file, of any length, however short its reads and
 * whoever shortens it meanwhile: found, not there, unsound or the error of a read; what is found lies inside and behind its key; the
 * effort is bounded, in a file of 4 GiB, too.
 *
 * The input is a script, so that the fuzzer need not find hashes: the key to look up, pairs, and then damage, a word at a time. */
#include <errno.h>
#include <unistd.h>

#include "fuzz.h"
#include "spool/bytes.h"

enum { FILE_FD = 77, IMAGE = 1 << 16, HEADER = 2048, PAIRS_MAX = 48, KEY_MAX = 600 };

typedef struct file {
    uint8_t data[IMAGE];
    uint64_t length;            /* that it has, whatever the reader was told */
    uint64_t calls, octets;
    int is_endless;             /* the image again and again */
    int short_reads;
    uint32_t fails_at;          /* the call that ends in EIO; 0: none */
} file;

static file one;

static ssize_t fuzz_pread(int fd, void *out, size_t length, off_t at)
{
    INVARIANT(fd == FILE_FD && length > 0 && at >= 0);
    one.calls++;
    if (one.calls == one.fails_at) {
        errno = EIO;
        return -1;
    }
    if (one.short_reads && one.calls % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    if (one.short_reads && length > 1)
        length = 1 + length / 3;
    if ((uint64_t)at >= one.length)
        return 0;
    if (length > one.length - (uint64_t)at)
        length = (size_t)(one.length - (uint64_t)at);
    size_t from = (size_t)((uint64_t)at % IMAGE), first = IMAGE - from < length ? IMAGE - from : length;
    memcpy(out, one.data + from, first);
    memcpy((uint8_t *)out + first, one.data, length - first);           /* no read is longer than the image */
    one.octets += length;
    return (ssize_t)length;
}

/* The machine itself, with our reads. */
#define pread fuzz_pread
#include "recipients/cdb.c"
#undef pread

typedef struct pair { const uint8_t *key, *value; uint32_t key_length, value_length, at; } pair;
typedef struct script { const uint8_t *at, *end; } script;

static uint32_t take(script *in, unsigned octets)
{
    uint32_t value = 0;
    while (octets-- > 0)
        value = value << 8 | (in->at < in->end ? *in->at++ : 0);
    return value;
}

static const uint8_t *take_octets(script *in, uint32_t wanted, uint32_t *length)
{
    const uint8_t *octets = in->at;
    *length = wanted < (size_t)(in->end - in->at) ? wanted : (uint32_t)(in->end - in->at);
    in->at += *length;
    return octets;
}

static uint32_t hash_of(const uint8_t *key, uint32_t length)
{
    uint32_t hash = 5381;
    while (length-- > 0)
        hash = hash * 33 ^ *key++;
    return hash;
}

/* As cdb.txt has it, with `room` slots for each record. */
static void build(pair *pairs, uint32_t count, uint32_t room)
{
    memset(one.data, 0, sizeof one.data);
    uint32_t length = HEADER;
    for (uint32_t i = 0; i < count; i++) {
        pairs[i].at = length;
        store32(one.data + length, pairs[i].key_length);
        store32(one.data + length + 4, pairs[i].value_length);
        memcpy(one.data + length + 8, pairs[i].key, pairs[i].key_length);
        memcpy(one.data + length + 8 + pairs[i].key_length, pairs[i].value, pairs[i].value_length);
        length += 8 + pairs[i].key_length + pairs[i].value_length;
    }
    for (uint32_t table = 0; table < 256; table++) {
        uint32_t slots = 0;
        for (uint32_t i = 0; i < count; i++)
            slots += (hash_of(pairs[i].key, pairs[i].key_length) & 255) == table ? room : 0;
        store32(one.data + table * 8, length);
        store32(one.data + table * 8 + 4, slots);
        for (uint32_t i = 0; i < count; i++) {
            uint32_t hash = hash_of(pairs[i].key, pairs[i].key_length);
            if ((hash & 255) != table)
                continue;
            uint32_t slot = (hash >> 8) % slots;
            while (load32(one.data + length + slot * 8 + 4) != 0)
                slot = (slot + 1) % slots;
            store32(one.data + length + slot * 8, hash);
            store32(one.data + length + slot * 8 + 4, pairs[i].at);
        }
        length += slots * 8;
    }
    one.length = length;
}

/* A word of the header, of the key's table, of a record, or anywhere; the key's table wherever, of whatever length. */
static void damage(script *in, uint32_t hash)
{
    uint8_t *entry = one.data + (hash & 255) * 8;
    uint32_t how = take(in, 1), value = take(in, 4);
    uint64_t table = load32(entry), at = take(in, 2);
    switch (how % 6) {
    case 0: store32(entry, value); break;
    case 1: store32(entry + 4, value); break;
    case 2: at = table + (at % 64) * 4; /* fall through */
    case 3: store32(one.data + at % (IMAGE - 4), value); break;
    case 4: one.length = how & 128 ? value % (IMAGE + 1) : value; one.is_endless = 1; break;
    case 5:                                                     /* every slot has the key's hash, and a record that is another's */
        for (uint32_t i = HEADER; i + 8 <= IMAGE; i += 8) {
            store32(one.data + i, hash);
            store32(one.data + i + 4, HEADER + value % 1024);
        }
        break;
    }
}

static int look(const uint8_t *key, uint32_t key_length, uint64_t file_octets, uint64_t *at, uint32_t *length)
{
    one.calls = one.octets = 0;
    int found = cdb_find(FILE_FD, file_octets, key, key_length, at, length);
    INVARIANT(found == 1 || found == 0 || found == -EBADMSG || (found == -EIO && one.fails_at != 0));
    INVARIANT(one.octets <= 8 + 8ull * SLOTS_WALKED_MAX + 256 + (8ull + key_length) * RECORDS_LOOKED_AT_MAX);
    if (found == 1)
        INVARIANT(*at >= HEADER && *at + *length <= file_octets);
    return found;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    script in = {data, data + size};
    pair pairs[PAIRS_MAX];
    uint32_t key_length, value_length;
    uint64_t at;

    memset(&one, 0, offsetof(file, length));
    one.short_reads = one.is_endless = 0;
    one.fails_at = 0;
    uint32_t flags = take(&in, 1), wanted = take(&in, 1);
    const uint8_t *octets = take_octets(&in, wanted > 250 ? KEY_MAX : wanted % 9, &key_length);
    uint8_t *key = exact_copy(octets, key_length);
    uint32_t count = take(&in, 1) % PAIRS_MAX, hash = hash_of(key, key_length);
    for (uint32_t i = 0; i < count; i++) {
        wanted = take(&in, 1);
        if (wanted >= 128)                                      /* the key that is looked up, or its beginning */
            pairs[i].key = key, pairs[i].key_length = wanted & 1 ? key_length : key_length / 2;
        else
            pairs[i].key = take_octets(&in, wanted % 9, &pairs[i].key_length);
        pairs[i].value = take_octets(&in, take(&in, 1) % 9, &pairs[i].value_length);
    }
    build(pairs, count, flags & 1 ? 1 : 2);
    one.short_reads = flags & 2;

    uint32_t first = 0;
    while (first < count && (pairs[first].key_length != key_length || memcmp(pairs[first].key, key, key_length) != 0))
        first++;
    int found = look(key, key_length, one.length, &at, &value_length);
    INVARIANT(found == (first < count));
    if (found == 1)
        INVARIANT(at == pairs[first].at + 8 + key_length && value_length == pairs[first].value_length);

    uint64_t told = one.length;
    while (in.at < in.end)
        damage(&in, hash);
    if (one.is_endless && !(flags & 4))
        told = one.length;                                      /* else it was shortened, or has grown, since it was opened */
    one.fails_at = flags & 8 ? 1 + flags % 5 : 0;
    found = look(key, key_length, told, &at, &value_length);
    if (found == 1 && key_length > 0)
        for (uint32_t i = 0; i < key_length; i++)
            INVARIANT(one.data[(at - key_length + i) % IMAGE] == key[i]);
    free(key);
    return 0;
}
