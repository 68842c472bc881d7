#include "crash/disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct page {               /* shared between views and between disks; NULL in a table is a page of zeros */
    uint32_t references;
    bool has_hash;
    uint64_t hash;
    uint8_t data[DISK_PAGE_OCTETS];
} page;

typedef struct pages { page **items; uint32_t count; } pages;

typedef struct version {            /* a sector written and not yet durable */
    uint32_t sector;
    bool is_doomed;                 /* its sync failed: no later one covers it */
    uint8_t data[DISK_SECTOR_OCTETS];
} version;

typedef struct file {
    bool is_directory;
    int open_count, name_count;
    uint64_t size, durable_size, reserved_octets;
    pages written, durable;
    version *versions;              /* oldest first */
    uint32_t version_count, version_capacity;
} file;

typedef struct name {
    char path[DISK_PATH_OCTETS];
    int file, durable_file;         /* DISK_NONE: not there */
    int *versions;                  /* what it was since its directory was synced, oldest first; the last is `file` */
    uint32_t version_count;
} name;

struct disk {
    uint64_t quota_octets;
    file *files;
    name *names;
    uint32_t file_count, name_count;
};

static void *grow(void *items, uint32_t count, size_t size)
{
    if ((count & (count - 1)) == 0)         /* at 0, 1, 2, 4, 8 ... */
        items = realloc(items, (count == 0 ? 1 : 2 * (size_t)count) * size);
    if (items == NULL)
        abort();
    return items;
}

/* --- pages --- */

static const uint8_t zeros[DISK_PAGE_OCTETS];

static page *page_ref(page *self)
{
    if (self != NULL)
        self->references++;
    return self;
}

static void page_unref(page *self)
{
    if (self != NULL && --self->references == 0)
        free(self);
}

static const uint8_t *page_data(const pages *self, uint32_t index)
{
    return index < self->count && self->items[index] != NULL ? self->items[index]->data : zeros;
}

static uint8_t *page_for_writing(pages *self, uint32_t index)
{
    if (index >= self->count) {
        self->items = realloc(self->items, (index + 1) * sizeof *self->items);
        if (self->items == NULL)
            abort();
        memset(self->items + self->count, 0, (index + 1 - self->count) * sizeof *self->items);
        self->count = index + 1;
    }
    page *old = self->items[index];
    if (old == NULL || old->references > 1) {
        page *own = malloc(sizeof *own);
        if (own == NULL)
            abort();
        memcpy(own->data, old != NULL ? old->data : zeros, DISK_PAGE_OCTETS);
        own->references = 1;
        self->items[index] = own;
        page_unref(old);
    }
    self->items[index]->has_hash = false;
    return self->items[index]->data;
}

static pages pages_share(const pages *from)
{
    pages made = {malloc((from->count + 1) * sizeof *made.items), from->count};
    for (uint32_t i = 0; i < from->count; i++)
        made.items[i] = page_ref(from->items[i]);
    return made;
}

static void pages_clear(pages *self)
{
    for (uint32_t i = 0; i < self->count; i++)
        page_unref(self->items[i]);
    free(self->items);
    *self = (pages){0};
}

static void pages_cut(pages *self, uint64_t size)
{
    uint32_t kept = (uint32_t)((size + DISK_PAGE_OCTETS - 1) / DISK_PAGE_OCTETS);
    for (uint32_t i = kept; i < self->count; i++) {
        page_unref(self->items[i]);
        self->items[i] = NULL;
    }
    uint32_t rest = (uint32_t)(size % DISK_PAGE_OCTETS);
    if (rest != 0 && kept <= self->count && self->items[kept - 1] != NULL)
        memset(page_for_writing(self, kept - 1) + rest, 0, DISK_PAGE_OCTETS - rest);
}

static const uint8_t *sector_data(const pages *self, uint32_t sector)
{
    return page_data(self, sector / 8) + sector % 8 * DISK_SECTOR_OCTETS;
}

static void sector_set(pages *self, uint32_t sector, const uint8_t *data)
{
    if (memcmp(sector_data(self, sector), data, DISK_SECTOR_OCTETS) != 0)
        memcpy(page_for_writing(self, sector / 8) + sector % 8 * DISK_SECTOR_OCTETS, data, DISK_SECTOR_OCTETS);
}

/* --- disks and names --- */

static int file_new(disk *self, bool is_directory)
{
    self->files = grow(self->files, self->file_count, sizeof *self->files);
    self->files[self->file_count] = (file){.is_directory = is_directory};
    return (int)self->file_count++;
}

disk *disk_new(uint64_t quota_octets)
{
    disk *self = calloc(1, sizeof *self);
    if (self == NULL)
        abort();
    self->quota_octets = quota_octets;
    file_new(self, true);
    self->files[0].name_count = 1;
    return self;
}

void disk_free(disk *self)
{
    if (self == NULL)
        return;
    for (uint32_t i = 0; i < self->file_count; i++) {
        pages_clear(&self->files[i].written);
        pages_clear(&self->files[i].durable);
        free(self->files[i].versions);
    }
    for (uint32_t i = 0; i < self->name_count; i++)
        free(self->names[i].versions);
    free(self->files);
    free(self->names);
    free(self);
}

void disk_set_quota(disk *self, uint64_t quota_octets)
{
    self->quota_octets = quota_octets;
}

static name *name_of(const disk *self, const char *path)
{
    for (uint32_t i = 0; i < self->name_count; i++)
        if (strcmp(self->names[i].path, path) == 0)
            return &self->names[i];
    return NULL;
}

int disk_find(const disk *self, const char *path)
{
    const name *found = name_of(self, path);
    return path[0] == 0 ? 0 : found != NULL ? found->file : DISK_NONE;
}

static name *name_new(disk *self, const char *path)
{
    self->names = grow(self->names, self->name_count, sizeof *self->names);
    name *made = &self->names[self->name_count++];
    *made = (name){.file = DISK_NONE, .durable_file = DISK_NONE};
    snprintf(made->path, sizeof made->path, "%s", path);
    return made;
}

static void name_set(name *self, int to)
{
    self->file = to;
    self->versions = grow(self->versions, self->version_count, sizeof *self->versions);
    self->versions[self->version_count++] = to;
}

int disk_make(disk *self, const char *path, bool is_directory)
{
    name *made = name_of(self, path);
    if (made == NULL)
        made = name_new(self, path);
    int number = file_new(self, is_directory);
    self->files[number].name_count = 1;
    name_set(made, number);
    return number;
}

void disk_unlink(disk *self, const char *path)
{
    name *gone = name_of(self, path);
    self->files[gone->file].name_count--;
    name_set(gone, DISK_NONE);
}

bool disk_is_directory(const disk *self, int file)
{
    return self->files[file].is_directory;
}

static bool is_below(const char *path, const char *parent)
{
    size_t length = strlen(parent);
    if (length == 0)
        return strchr(path, '/') == NULL;
    return strncmp(path, parent, length) == 0 && path[length] == '/' && strchr(path + length + 1, '/') == NULL;
}

const char *disk_entry(const disk *self, const char *parent, unsigned index)
{
    for (uint32_t i = 0; i < self->name_count; i++)
        if (self->names[i].file != DISK_NONE && is_below(self->names[i].path, parent) && index-- == 0)
            return self->names[i].path;
    return NULL;
}

/* --- contents --- */

uint64_t disk_size(const disk *self, int file)
{
    return self->files[file].size;
}

size_t disk_read(const disk *self, int number, uint64_t offset, void *out, size_t length)
{
    const file *from = &self->files[number];
    if (offset >= from->size)
        return 0;
    if (length > from->size - offset)
        length = from->size - offset;
    for (size_t done = 0; done < length;) {
        size_t inside = (offset + done) % DISK_PAGE_OCTETS, part = DISK_PAGE_OCTETS - inside;
        if (part > length - done)
            part = length - done;
        memcpy((uint8_t *)out + done, page_data(&from->written, (uint32_t)((offset + done) / DISK_PAGE_OCTETS)) + inside, part);
        done += part;
    }
    return length;
}

uint64_t disk_used_octets(const disk *self)
{
    uint64_t used = 0;
    for (uint32_t i = 0; i < self->file_count; i++)
        if (self->files[i].name_count > 0 || self->files[i].open_count > 0)
            used += self->files[i].reserved_octets;
    return used;
}

/* Blocks up to `end`. Segments are reserved at one go and small files grow at their end: no holes to count. */
static int take_blocks(disk *self, file *to, uint64_t end)
{
    uint64_t wanted = (end + DISK_PAGE_OCTETS - 1) / DISK_PAGE_OCTETS * DISK_PAGE_OCTETS;
    if (wanted <= to->reserved_octets)
        return 0;
    if (self->quota_octets != 0 && disk_used_octets(self) - to->reserved_octets + wanted > self->quota_octets)
        return ENOSPC;
    to->reserved_octets = wanted;
    return 0;
}

/* The same octets again make no other state, unless a failed sync has left some that only a new write can replace. */
static bool is_written_already(const file *self, uint32_t sector, const uint8_t *data)
{
    const uint8_t *newest = sector_data(&self->durable, sector);
    for (uint32_t i = 0; i < self->version_count; i++)
        if (self->versions[i].sector == sector) {
            if (self->versions[i].is_doomed)
                return false;
            newest = self->versions[i].data;
        }
    return memcmp(newest, data, DISK_SECTOR_OCTETS) == 0;
}

static void note_versions(file *self, uint64_t offset, size_t length)
{
    for (uint32_t sector = (uint32_t)(offset / DISK_SECTOR_OCTETS); (uint64_t)sector * DISK_SECTOR_OCTETS < offset + length; sector++) {
        const uint8_t *data = sector_data(&self->written, sector);
        if (is_written_already(self, sector, data))
            continue;
        if (self->version_count == self->version_capacity) {
            self->version_capacity = self->version_capacity == 0 ? 64 : 2 * self->version_capacity;
            self->versions = realloc(self->versions, self->version_capacity * sizeof *self->versions);
            if (self->versions == NULL)
                abort();
        }
        version *made = &self->versions[self->version_count++];
        made->sector = sector;
        made->is_doomed = false;
        memcpy(made->data, data, DISK_SECTOR_OCTETS);
    }
}

int disk_write(disk *self, int number, uint64_t offset, const void *data, size_t length)
{
    file *to = &self->files[number];
    if (take_blocks(self, to, offset + length) != 0)
        return ENOSPC;
    for (size_t done = 0; done < length;) {
        size_t inside = (offset + done) % DISK_PAGE_OCTETS, part = DISK_PAGE_OCTETS - inside;
        uint32_t index = (uint32_t)((offset + done) / DISK_PAGE_OCTETS);
        if (part > length - done)
            part = length - done;
        const uint8_t *from = (const uint8_t *)data + done;
        bool is_other = memcmp(page_data(&to->written, index) + inside, from, part) != 0;
        if (is_other)
            memcpy(page_for_writing(&to->written, index) + inside, from, part);
        if (is_other || to->version_count > 0)      /* the same octets again may be what a failed sync has lost */
            note_versions(to, offset + done, part);
        done += part;
    }
    if (offset + length > to->size)
        to->size = offset + length;
    return 0;
}

int disk_reserve(disk *self, int number, uint64_t size)
{
    file *to = &self->files[number];
    if (take_blocks(self, to, size) != 0)
        return ENOSPC;
    if (size > to->size)
        to->size = size;
    return 0;
}

void disk_resize(disk *self, int number, uint64_t size)
{
    file *to = &self->files[number];
    if (size < to->size) {
        uint64_t old = to->size;
        pages_cut(&to->written, size);
        note_versions(to, size, old - size);
        to->reserved_octets = (size + DISK_PAGE_OCTETS - 1) / DISK_PAGE_OCTETS * DISK_PAGE_OCTETS;
    }
    to->size = size;
}

void disk_opened(disk *self, int file, int by)
{
    self->files[file].open_count += by;
}

/* --- syncs --- */

static void sync_names(disk *self, const char *parent)
{
    for (uint32_t i = 0; i < self->name_count; i++)
        if (is_below(self->names[i].path, parent)) {
            self->names[i].durable_file = self->names[i].file;
            self->names[i].version_count = 0;
            free(self->names[i].versions);
            self->names[i].versions = NULL;
        }
}

static bool is_written_again(const file *self, uint32_t at)
{
    for (uint32_t i = at + 1; i < self->version_count; i++)
        if (self->versions[i].sector == self->versions[at].sector && !self->versions[i].is_doomed)
            return true;
    return false;
}

void disk_sync(disk *self, int number)
{
    file *of = &self->files[number];
    if (of->is_directory) {
        const char *parent = "";
        for (uint32_t i = 0; i < self->name_count; i++)
            if (self->names[i].file == number)
                parent = self->names[i].path;
        sync_names(self, parent);
        return;
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < of->version_count; i++) {
        const version *at = &of->versions[i];
        if (!at->is_doomed)
            sector_set(&of->durable, at->sector, at->data);
        else if (!is_written_again(of, i))
            of->versions[kept++] = *at;
    }
    of->version_count = kept;
    of->durable_size = of->size;
}

void disk_sync_range(disk *self, int number, uint64_t offset, size_t length)
{
    file *of = &self->files[number];
    uint32_t first = (uint32_t)(offset / DISK_SECTOR_OCTETS), end = (uint32_t)((offset + length + DISK_SECTOR_OCTETS - 1) / DISK_SECTOR_OCTETS);
    for (uint32_t sector = first; sector < end; sector++)
        sector_set(&of->durable, sector, sector_data(&of->written, sector));
    uint32_t kept = 0;
    for (uint32_t i = 0; i < of->version_count; i++)
        if (of->versions[i].sector < first || of->versions[i].sector >= end)
            of->versions[kept++] = of->versions[i];
    of->version_count = kept;
    of->durable_size = of->size;        /* what is needed to find the octets again is part of such a sync */
}

void disk_sync_failed(disk *self, int number)
{
    file *of = &self->files[number];
    for (uint32_t i = 0; i < of->version_count; i++)
        of->versions[i].is_doomed = true;
}

/* --- the cut --- */

unsigned disk_choose_durable(void *context, unsigned alternatives)
{
    (void)context, (void)alternatives;
    return 0;
}

unsigned disk_choose_written(void *context, unsigned alternatives)
{
    (void)context;
    return alternatives - 1;
}

static void cut_sectors(const file *from, file *to, disk_choose *choose, void *context)
{
    /* Few sectors have a second version; those are looked for from each sector's first. */
    for (uint32_t i = 0; i < from->version_count; i++) {
        uint32_t sector = from->versions[i].sector, found[8], count = 0;
        bool is_first = true;
        for (uint32_t j = 0; j < i && is_first; j++)
            is_first = from->versions[j].sector != sector;
        if (!is_first)
            continue;
        for (uint32_t j = i; j < from->version_count; j++)
            if (from->versions[j].sector == sector) {
                if (count == 8)             /* keep the newest eight */
                    memmove(found, found + 1, --count * sizeof *found);
                found[count++] = j;
            }
        unsigned chosen = choose(context, count + 1);
        if (chosen > 0)
            sector_set(&to->written, sector, from->versions[found[chosen - 1]].data);
    }
}

static int cut_file(const disk *self, int number, disk *made, disk_choose *choose, void *context)
{
    const file *from = &self->files[number];
    int copy = file_new(made, from->is_directory);
    file *to = &made->files[copy];
    to->name_count = 1;
    to->written = pages_share(&from->durable);
    cut_sectors(from, to, choose, context);
    to->size = from->durable_size;
    if (from->size != from->durable_size && choose(context, 2) == 1)
        to->size = from->size;
    pages_cut(&to->written, to->size);
    to->durable = pages_share(&to->written);
    to->durable_size = to->size;
    to->reserved_octets = (to->size + DISK_PAGE_OCTETS - 1) / DISK_PAGE_OCTETS * DISK_PAGE_OCTETS;
    return copy;
}

static bool has_parent(const disk *self, const char *path)
{
    char parent[DISK_PATH_OCTETS];
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return true;
    snprintf(parent, sizeof parent, "%.*s", (int)(slash - path), path);
    return disk_find(self, parent) != DISK_NONE;
}

disk *disk_after_cut(const disk *self, disk_choose *choose, void *context)
{
    disk *made = disk_new(self->quota_octets);
    for (uint32_t i = 0; i < self->name_count; i++) {       /* a directory's name was made before those in it */
        const name *from = &self->names[i];
        int file = from->durable_file;
        if (from->version_count > 0) {
            unsigned chosen = choose(context, from->version_count + 1);
            file = chosen == 0 ? from->durable_file : from->versions[chosen - 1];
        }
        if (file == DISK_NONE || !has_parent(made, from->path))
            continue;
        int copy = cut_file(self, file, made, choose, context);
        name *to = name_new(made, from->path);
        to->file = to->durable_file = copy;
    }
    return made;
}

/* --- sameness --- */

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 29;
}

static uint64_t page_hash(page *self)
{
    if (self == NULL)
        return 0;
    if (!self->has_hash) {
        uint64_t hash = 1, word;
        for (size_t i = 0; i < DISK_PAGE_OCTETS; i += sizeof word) {
            memcpy(&word, self->data + i, sizeof word);
            hash = mix(hash, word);
        }
        self->hash = memcmp(self->data, zeros, DISK_PAGE_OCTETS) == 0 ? 0 : hash;
        self->has_hash = true;
    }
    return self->hash;
}

uint64_t disk_hash(const disk *self)
{
    uint64_t sum = 0;                       /* a sum: the order in which names were made makes no other disk */
    for (uint32_t i = 0; i < self->name_count; i++) {
        const name *at = &self->names[i];
        size_t length = strlen(at->path);
        if (at->file == DISK_NONE)
            continue;
        uint64_t hash = 7;
        for (size_t j = 0; j < length; j++)
            hash = mix(hash, (uint8_t)at->path[j]);
        if (length < 4 || strcmp(at->path + length - 4, "lock") != 0) {
            const file *of = &self->files[at->file];
            hash = mix(hash, of->size);
            for (uint32_t j = 0; j < of->written.count; j++)
                hash = mix(hash, page_hash(of->written.items[j]) + j);
        }
        sum += mix(hash, 1);
    }
    return sum;
}
