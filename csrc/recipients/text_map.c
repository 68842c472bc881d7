/* The octets of the file are changed in place: behind a key stands NUL when a value follows, else LF; behind a value LF. Neither
 * can be in a key, so that comparing a key and looking at the octet behind it says whether it is the one. */
#include "recipients/text_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "octets/siphash.h"

enum {
    OFFSET_BITS = 40,
    PIECE_OCTETS = 1 << 20,
    /* Beyond malloc's largest threshold for mappings of their own (32 MiB, mallopt(3)): nobody else lives in these pages. */
    WORTH_PIECES = 64 << 20,
};

#define OFFSET_MASK (((uint64_t)1 << OFFSET_BITS) - 1)

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* Of the key that begins at `at`: where it ends. */
static size_t key_end(const uint8_t *data, size_t at, size_t end)
{
    if (data[at] == '"') {
        size_t i = at + 1;
        while (i < end && data[i] != '"')
            i += data[i] == '\\' ? 2 : 1;
        if (i < end)
            at = i;             /* a quote that is never closed is an octet like others */
    }
    while (at < end && !is_blank(data[at]))
        at++;
    return at;
}

static void fold(uint8_t *data, size_t from, size_t to, bool folds_case)
{
    size_t start = from;
    if (!folds_case) {
        start = to;
        for (size_t i = to; i > from; i--)
            if (data[i - 1] == '@') {
                start = i;
                break;
            }
    }
    for (size_t i = start; i < to; i++)
        if (data[i] >= 'A' && data[i] <= 'Z')
            data[i] = (uint8_t)(data[i] + 32);
}

static bool is_key_at(const text_map *self, size_t at, const uint8_t *key, size_t length)
{
    return self->length - at > length && memcmp(self->data + at, key, length) == 0
           && (self->data[at + length] == 0 || self->data[at + length] == '\n');
}

/* The slot of the key, or the free one where it would be. There is always a free one. */
static uint64_t slot_of(const text_map *self, const uint8_t *key, size_t length, uint64_t hash)
{
    uint64_t i = hash & (self->capacity - 1);
    for (; self->slots[i] != 0; i = (i + 1) & (self->capacity - 1))
        if (self->slots[i] >> OFFSET_BITS == hash >> OFFSET_BITS && is_key_at(self, (self->slots[i] & OFFSET_MASK) - 1, key, length))
            break;
    return i;
}

int text_map_build(text_map *self, uint8_t *data, size_t length, bool folds_case, const uint64_t key[2], uint64_t *line)
{
    memset(self, 0, sizeof *self);
    self->data = data;
    self->length = length + 1;
    data[length] = '\n';
    memcpy(self->key, key, sizeof self->key);
    if (length >= OFFSET_MASK)
        return -EFBIG;
    uint64_t lines = 0;
    for (const uint8_t *at = data; (at = memchr(at, '\n', (size_t)(data + self->length - at))) != NULL; at++)
        lines++;
    self->capacity = 8;
    while (self->capacity < lines + lines / 4 + 1)
        self->capacity *= 2;
    self->slots = calloc(self->capacity, sizeof *self->slots);
    if (self->slots == NULL)
        return -ENOMEM;

    size_t tail = 0;            /* where the entry before ends: its LF; 0: there is none */
    bool has_value = false;     /* that entry has one */
    bool is_taken = false;      /* and it counts: of a key given twice the second does not, nor what follows it */
    *line = 0;
    for (size_t at = 0; at < self->length;) {
        size_t end = (size_t)((uint8_t *)memchr(data + at, '\n', self->length - at) - data), next = end + 1, begin = at, start = at;
        ++*line;
        if (memchr(data + at, 0, end - at) != NULL)
            return -EINVAL;
        while (end > start && is_blank(data[end - 1]))
            end--;
        while (start < end && is_blank(data[start]))
            start++;
        at = next;
        if (start == end || data[start] == '#')
            continue;
        if (start > begin && tail != 0) {
            /* Goes on with the entry before, over whatever stood between. */
            if (!is_taken)
                continue;
            memset(data + tail, ' ', start - tail);
            if (!has_value)
                data[tail] = 0;
            has_value = true;
            data[end] = '\n';
            tail = end;
            continue;
        }
        size_t stop = key_end(data, start, end);
        bool has_colon = stop - start > 1 && data[stop - 1] == ':';
        size_t key_stop = has_colon ? stop - 1 : stop;
        fold(data, start, key_stop, folds_case);
        has_value = stop < end;
        uint64_t hash = siphash24(self->key, data + start, key_stop - start);
        uint64_t slot = slot_of(self, data + start, key_stop - start, hash);
        is_taken = self->slots[slot] == 0;
        data[key_stop] = has_value ? 0 : '\n';
        if (is_taken) {
            self->slots[slot] = hash >> OFFSET_BITS << OFFSET_BITS | (start + 1);
            self->count++;
        }
        tail = has_value ? end : key_stop;
        data[tail] = '\n';
    }
    return 0;
}

bool text_map_find(const text_map *self, const uint8_t *key, size_t length, const uint8_t **value, size_t *value_length)
{
    if (self->count == 0 || length == 0 || memchr(key, 0, length) != NULL || memchr(key, '\n', length) != NULL)
        return false;
    uint64_t slot = self->slots[slot_of(self, key, length, siphash24(self->key, key, length))];
    if (slot == 0)
        return false;
    const uint8_t *at = self->data + (slot & OFFSET_MASK) - 1 + length;
    *value = at;
    *value_length = 0;
    if (*at == '\n')
        return true;
    at++;
    while (is_blank(*at))
        at++;
    const uint8_t *end = memchr(at, '\n', (size_t)(self->data + self->length - at));
    while (end > at && is_blank(end[-1]))
        end--;
    *value = at;
    *value_length = (size_t)(end - at);
    return true;
}

/* Unmapping hundreds of MiB at once keeps whoever else wants to map or unmap something, the event loop's malloc(), waiting for
 * all of it. Pages that are gone before take no time then, and between two pieces others have their turn. */
static void give_back(void *memory, size_t length)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t at = ((uintptr_t)memory + page - 1) & ~(page - 1), end = ((uintptr_t)memory + length) & ~(page - 1);
    if (length >= WORTH_PIECES)
        for (; at < end; at += PIECE_OCTETS)
            madvise((void *)at, end - at < PIECE_OCTETS ? end - at : PIECE_OCTETS, MADV_DONTNEED);
    free(memory);
}

void text_map_clear(text_map *self)
{
    give_back(self->data, self->length);
    give_back(self->slots, self->capacity * sizeof *self->slots);
    memset(self, 0, sizeof *self);
}
