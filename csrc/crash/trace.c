#include "crash/trace.h"

#include <stdio.h>

#include "spool/bytes.h"
#include "spool/format.h"
#include "spool/spool.h"

static const char *const kinds[] = {"make", "unlink", "write", "reserve", "resize", "sync", "sync range", "sync failed", "power cut", "promise"};
static const char *const promises[] = {"submitted", "acknowledged", "outcome submitted", "outcome durable", "leaving", "gone", "copy submitted", "kept"};

static void print_freed(const uint8_t *payload, uint32_t length)
{
    for (uint32_t at = 0; at + SPOOL_FREED_ENTRY_OCTETS <= length; at += SPOOL_FREED_ENTRY_OCTETS)
        printf(" %llx(home %u)", (unsigned long long)load64(payload + at), load32(payload + at + 8));
}

static void print_contents(const log_event *event)
{
    static const char *const records[] = {"?", "body", "envelope", "outcome", "freed", "footer"};
    spool_segment_header header;
    spool_record record;
    if (event->data == NULL)
        return;
    if (event->offset == 0 && event->length == SPOOL_HEADER_OCTETS && spool_header_decode(event->data, &header) == 0) {
        printf(": header, serial %u %s, generation %llu", header.serial, header.use == SPOOL_SEGMENT_FREE ? "FREE" : "LIVE",
               (unsigned long long)header.generation);
        return;
    }
    for (size_t at = 0; at + SPOOL_RECORD_OCTETS <= event->length && spool_record_decode(event->data + at, &record);
         at += spool_record_size(record.length)) {
        printf(" | %s %llx", records[record.kind <= SPOOL_FOOTER ? record.kind : 0], (unsigned long long)record.id);
        if (record.kind == SPOOL_OUTCOME)
            printf("(home %u)", record.aux);
        if (record.kind == SPOOL_FREED && at + spool_record_size(record.length) <= event->length)
            print_freed(event->data + at + SPOOL_RECORD_OCTETS, record.length);
    }
}

void trace_print(const log *events, const book *said, uint32_t end)
{
    for (uint32_t i = 0; i < events->count && i <= end; i++) {
        const log_event *event = &events->events[i];
        printf("%u %s", i, kinds[event->kind]);
        if (event->kind == LOG_PROMISE)
            printf(" %llx %s %u", (unsigned long long)said->messages[event->message].id, promises[event->what], event->version);
        else if (event->kind == LOG_CUT)
            printf(" ---------- style %zu", event->length);
        else
            printf(" file %d %s at %llu + %zu", event->file, event->path, (unsigned long long)event->offset, event->length);
        if (event->kind == LOG_WRITE)
            print_contents(event);
        printf("\n");
    }
}
