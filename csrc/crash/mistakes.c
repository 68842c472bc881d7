#include "crash/mistakes.h"

#include "spool/bytes.h"
#include "spool/format.h"
#include "spool/shard.h"

const char *const mistake_names[MISTAKE_COUNT] = {"", "unread-index-is-empty", "kept-not-synced", "kept-not-rewritten",
                                                  "torn-not-kept"};

static mistake made;

void mistake_make(mistake which)
{
    made = which;
}

bool mistake_is_made(mistake which)
{
    return made == which;
}

int __real_spool_segment_read_index(spool_shard *self, spool_segment *segment, octets **out);
int __wrap_spool_segment_read_index(spool_shard *self, spool_segment *segment, octets **out);
int __wrap_spool_segment_read_index(spool_shard *self, spool_segment *segment, octets **out)
{
    int error = __real_spool_segment_read_index(self, segment, out);
    if (error == 0 || !mistake_is_made(MISTAKE_UNREAD_INDEX_IS_EMPTY) || (*out = octets_new(spool_index_octets(0))) == NULL)
        return error;
    spool_index_encode((*out)->data, NULL, 0);
    (*out)->length = spool_index_octets(0);
    return 0;
}

void __real_spool_torn_found(spool_shard *shard, spool_segment *segment, uint64_t start, uint64_t end, uint32_t pieces);
void __wrap_spool_torn_found(spool_shard *shard, spool_segment *segment, uint64_t start, uint64_t end, uint32_t pieces);
void __wrap_spool_torn_found(spool_shard *shard, spool_segment *segment, uint64_t start, uint64_t end, uint32_t pieces)
{
    if (mistake_is_made(MISTAKE_TORN_NOT_KEPT)) {
        spool_notice_place at = {SPOOL_NOTICE_TORN, segment->serial, start, start < end ? end - start : 0};
        spool_report_at(shard, at, "shard %s segment %u: torn end, %u pieces dropped", shard->name, segment->serial, pieces);
    } else
        __real_spool_torn_found(shard, segment, start, end, pieces);
}
