/* Damage that was found, at start (recover.c) or when a record was read (read.c): counted, told with segment and offset, and its
 * octets set aside in damaged/SERIAL-OFFSET.bin, since the segment may be recycled once its mail is over. Reader thread.
 *
 * A place is told once in a run: a message whose body is damaged is read again for every attempt. The file is made once for all.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spool/shard.h"

enum {
    SET_ASIDE_LIMIT_OCTETS = 64 << 20,
    KNOWN_LIMIT = 4096,             /* by judgement; places beyond are told each time they are met */
};

/* Where it is noted, whatever part of it is met again; NULL: it is new. */
static spool_damage_place *known(spool_shard *shard, const spool_segment *segment, uint64_t start, uint64_t end)
{
    for (uint32_t i = 0; i < shard->reader.damage_count; i++) {
        spool_damage_place *place = &shard->reader.damage[i];
        if (place->serial == segment->serial && place->start <= start && end <= place->end)
            return place;
    }
    return NULL;
}

static void remember(spool_shard *shard, const spool_segment *segment, uint64_t start, uint64_t end, bool is_kept)
{
    if (shard->reader.damage_count == shard->reader.damage_capacity && shard->reader.damage_capacity < KNOWN_LIMIT) {
        uint32_t capacity = shard->reader.damage_capacity == 0 ? 16 : shard->reader.damage_capacity * 2;
        spool_damage_place *more = realloc(shard->reader.damage, capacity * sizeof *more);
        if (more != NULL) {
            shard->reader.damage = more;
            shard->reader.damage_capacity = capacity;
        }
    }
    if (shard->reader.damage_count < shard->reader.damage_capacity)
        shard->reader.damage[shard->reader.damage_count++] = (spool_damage_place){segment->serial, is_kept, start, end};
}

static int sync_fd(int fd)
{
    int error;
    do
        error = fsync(fd) == 0 ? 0 : errno;
    while (error == EINTR);
    return error;
}

/* Of a file that has so many octets already. What cannot be read is counted, and left as an earlier start kept it, or as zeros. */
static int copy_out(spool_shard *shard, spool_segment *segment, int fd, uint64_t has_octets, uint64_t start, uint64_t end,
                    uint64_t *unread)
{
    uint8_t block[4096];
    int error = 0;
    for (uint64_t at = 0; at < end - start && error == 0;) {
        size_t part = end - start - at < sizeof block ? end - start - at : sizeof block, done = 0;
        if (spool_segment_pread(shard, segment, block, part, start + at) != 0) {
            memset(block, 0, part);
            *unread += part;
            done = has_octets <= at ? 0 : has_octets - at < part ? has_octets - at : part;
        }
        error = spool_write_at(fd, block + done, part - done, at + done);
        at += part;
    }
    return error != 0 ? error : sync_fd(fd);
}

static int sync_directory(spool_shard *shard, const char *name)
{
    int fd = openat(shard->dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno;
    int error = sync_fd(fd);
    close(fd);
    return error;
}

/* 0 or an errno. Of one that is there already nothing says that it is whole or durable: it is written over, unless it has more. What
 * could not be written whole is not left behind. The names must be durable too: the segment may be recycled then. */
static int set_aside(spool_shard *shard, spool_segment *segment, const char *name, uint64_t start, uint64_t end,
                     uint64_t *unread)
{
    if (end - start > SET_ASIDE_LIMIT_OCTETS)
        end = start + SET_ASIDE_LIMIT_OCTETS;
    if (mkdirat(shard->dirfd, "damaged", 0700) != 0 && errno != EEXIST)
        return errno;
    int fd = openat(shard->dirfd, name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return errno;
    struct stat before;
    int error = fstat(fd, &before) == 0 ? 0 : errno;
    if (error == 0 && (uint64_t)before.st_size > end - start)
        error = sync_fd(fd);
    else if (error == 0
             && (error = copy_out(shard, segment, fd, (uint64_t)before.st_size, start, end, unread)) != 0 && before.st_size == 0)
        unlinkat(shard->dirfd, name, 0);
    close(fd);
    if (error == 0)
        error = sync_directory(shard, "damaged");
    return error != 0 ? error : sync_directory(shard, ".");
}

/* What became of the octets, in words. False: not all of them are kept. */
static bool keep(spool_shard *shard, spool_segment *segment, uint64_t start, uint64_t end, char *words, size_t size)
{
    char name[48];
    snprintf(name, sizeof name, "damaged/%u-%llu.bin", segment->serial, (unsigned long long)start);
    uint64_t unread = 0;
    int error = set_aside(shard, segment, name, start, end, &unread);
    if (error != 0)
        snprintf(words, size, "not kept: %s", strerror(error));
    else if (unread != 0)
        snprintf(words, size, "kept in %s, %llu octets unreadable", name, (unsigned long long)unread);
    else
        snprintf(words, size, "kept in %s", name);
    return error == 0 && unread == 0;
}

void spool_torn_found(spool_shard *shard, spool_segment *segment, uint64_t start, uint64_t end, uint32_t pieces)
{
    char kept[100] = "none of their octets is there";
    if (end > segment->octets)
        end = segment->octets;
    if (start < end)
        keep(shard, segment, start, end, kept, sizeof kept);
    spool_notice_place at = {SPOOL_NOTICE_TORN, segment->serial, start, start < end ? end - start : 0};
    spool_report_at(shard, at, "shard %s segment %u offset %llu: torn end, %u unfinished pieces of its last write dropped, %s; unless the "
                    "disk has lost them since, nobody was told 250 for them", shard->name, segment->serial, (unsigned long long)start,
                    pieces, kept);
}

void spool_damage_found(spool_shard *shard, spool_segment *segment, uint64_t start, uint64_t end, const char *what)
{
    char kept[100];
    if (end > segment->octets)
        end = segment->octets;
    if (start > end)
        start = end;
    spool_damage_place *before = known(shard, segment, start, end);
    if (before != NULL && before->is_kept)
        return;
    bool is_kept = keep(shard, segment, start, end, kept, sizeof kept);
    if (before != NULL) {
        before->is_kept = is_kept;          /* the disk was full, say; told a second time when there is something to tell */
        if (!is_kept)
            return;
    } else {
        remember(shard, segment, start, end, is_kept);
        SPOOL_COUNT(shard, damaged_records, 1);
        SPOOL_COUNT(shard, damaged_octets, end - start);
    }
    spool_notice_place at = {SPOOL_NOTICE_DAMAGED, segment->serial, start, end - start};
    spool_report_at(shard, at, "shard %s segment %u offset %llu: %llu damaged octets (%s), %s", shard->name, segment->serial,
                    (unsigned long long)start, (unsigned long long)(end - start), what, kept);
}
