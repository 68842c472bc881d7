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

static bool is_known(spool_shard *shard, const spool_segment *segment, uint64_t offset)
{
    for (uint32_t i = 0; i < shard->reader.damage_count; i++)
        if (shard->reader.damage[i].serial == segment->serial && shard->reader.damage[i].offset == offset)
            return true;
    if (shard->reader.damage_count == shard->reader.damage_capacity && shard->reader.damage_capacity < KNOWN_LIMIT) {
        uint32_t capacity = shard->reader.damage_capacity == 0 ? 16 : shard->reader.damage_capacity * 2;
        spool_damage_place *more = realloc(shard->reader.damage, capacity * sizeof *more);
        if (more != NULL) {
            shard->reader.damage = more;
            shard->reader.damage_capacity = capacity;
        }
    }
    if (shard->reader.damage_count < shard->reader.damage_capacity)
        shard->reader.damage[shard->reader.damage_count++] = (spool_damage_place){segment->serial, offset};
    return false;
}

/* 0 or an errno; EEXIST: an earlier start met the same. What could not be written whole is not left behind. */
static int set_aside(spool_shard *shard, spool_segment *segment, const char *name, uint64_t start, uint64_t end)
{
    uint8_t block[4096];
    if (mkdirat(shard->dirfd, "damaged", 0700) != 0 && errno != EEXIST)
        return errno;
    int fd = openat(shard->dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return errno;
    if (end - start > SET_ASIDE_LIMIT_OCTETS)
        end = start + SET_ASIDE_LIMIT_OCTETS;
    int error = 0;
    while (start < end && error == 0) {
        size_t part = end - start < sizeof block ? end - start : sizeof block;
        if (spool_segment_pread(shard, segment, block, part, start) != 0)
            memset(block, 0, part);
        for (size_t done = 0; done < part && error == 0;) {
            ssize_t written = write(fd, block + done, part - done);
            if (written > 0)
                done += (size_t)written;
            else if (written == 0 || errno != EINTR)
                error = written == 0 ? EIO : errno;
        }
        start += part;
    }
    while (error == 0 && fsync(fd) != 0)
        if (errno != EINTR)
            error = errno;
    close(fd);
    if (error != 0)
        unlinkat(shard->dirfd, name, 0);
    return error;
}

void spool_damage_found(spool_shard *shard, spool_segment *segment, uint64_t start, uint64_t end, const char *what)
{
    char name[48], kept[80];
    if (end > segment->octets)
        end = segment->octets;
    if (start > end)
        start = end;
    if (is_known(shard, segment, start))
        return;
    snprintf(name, sizeof name, "damaged/%u-%llu.bin", segment->serial, (unsigned long long)start);
    int error = set_aside(shard, segment, name, start, end);
    if (error == 0 || error == EEXIST)
        snprintf(kept, sizeof kept, "kept in %s", name);
    else
        snprintf(kept, sizeof kept, "not kept: %s", strerror(error));
    SPOOL_COUNT(shard, damaged_records, 1);
    SPOOL_COUNT(shard, damaged_octets, end - start);
    spool_notice_place at = {SPOOL_NOTICE_DAMAGED, segment->serial, start, end - start};
    spool_report_at(shard, at, "shard %s segment %u offset %llu: %llu damaged octets (%s), %s", shard->name, segment->serial,
                    (unsigned long long)start, (unsigned long long)(end - start), what, kept);
}
