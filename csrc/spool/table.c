#include "spool/table.h"

#include <stdlib.h>
#include <string.h>

static spool_count *counts_slot(const spool_counts *self, uint32_t serial)
{
    uint32_t at = serial * 0x9e3779b1u;
    for (;; at++) {
        spool_count *entry = &self->entries[at & (self->capacity - 1)];
        if (entry->serial == serial || entry->serial == 0)
            return entry;
    }
}

static int counts_grow(spool_counts *self)
{
    spool_counts grown = {.capacity = self->capacity == 0 ? 8 : self->capacity * 2};
    grown.entries = calloc(grown.capacity, sizeof *grown.entries);
    if (grown.entries == NULL)
        return -1;
    for (uint32_t i = 0; i < self->capacity; i++)
        if (self->entries[i].serial != 0 && self->entries[i].count != 0) {
            *counts_slot(&grown, self->entries[i].serial) = self->entries[i];
            grown.used++;
        }
    grown.total = self->total;
    free(self->entries);
    *self = grown;
    return 0;
}

int spool_counts_add(spool_counts *self, uint32_t serial, int32_t n)
{
    if ((self->used + 1) * 4 > self->capacity * 3) {
        if (n < 0 && self->capacity == 0)
            return 0;
        if (counts_grow(self) != 0)
            return -1;
    }
    spool_count *entry = counts_slot(self, serial);
    if (entry->serial == 0) {
        if (n < 0)
            return 0;
        entry->serial = serial;
        self->used++;
    }
    if (entry->count + n < 0)
        n = -entry->count;
    entry->count += n;
    self->total += n;
    return 0;
}

void spool_counts_drop(spool_counts *self, uint32_t serial)
{
    if (self->capacity == 0)
        return;
    spool_count *entry = counts_slot(self, serial);
    if (entry->serial == serial) {
        self->total -= entry->count;
        entry->count = 0;
    }
}

void spool_counts_clear(spool_counts *self)
{
    free(self->entries);
    *self = (spool_counts){0};
}

static spool_newest *ids_slot(const spool_ids *self, uint64_t id, uint32_t home)
{
    uint64_t at = id * 0x9e3779b97f4a7c15u >> 20;
    for (;; at++) {
        spool_newest *entry = &self->entries[at & (self->capacity - 1)];
        if ((entry->id == id && entry->home == home) || entry->id == 0)
            return entry;
    }
}

spool_newest *spool_ids_put(spool_ids *self, uint64_t id, uint32_t home)
{
    if ((self->used + 1) * 4 > self->capacity * 3) {
        spool_ids grown = {.capacity = self->capacity == 0 ? 1024 : self->capacity * 2, .used = self->used};
        grown.entries = calloc(grown.capacity, sizeof *grown.entries);
        if (grown.entries == NULL)
            return NULL;
        for (uint64_t i = 0; i < self->capacity; i++)
            if (self->entries[i].id != 0)
                *ids_slot(&grown, self->entries[i].id, self->entries[i].home) = self->entries[i];
        free(self->entries);
        *self = grown;
    }
    spool_newest *entry = ids_slot(self, id, home);
    if (entry->id == 0) {
        *entry = (spool_newest){.id = id, .home = home, .segment = UINT32_MAX};
        self->used++;
    }
    return entry;
}

spool_newest *spool_ids_find(const spool_ids *self, uint64_t id, uint32_t home)
{
    if (self->capacity == 0)
        return NULL;
    spool_newest *entry = ids_slot(self, id, home);
    return entry->id == id ? entry : NULL;
}

void spool_ids_clear(spool_ids *self)
{
    free(self->entries);
    *self = (spool_ids){0};
}
