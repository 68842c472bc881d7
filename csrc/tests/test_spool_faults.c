/* What the disk can do to a shard: errors on write, no space, torn tails, damage. Never a lost acknowledged message. */
#include "spool_fixture.h"

enum { MIB = 1 << 20 };

static void write_error_seals_the_segment_and_service_goes_on(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    item *before = append(&self, 100);
    SET(write_errno, EIO);
    item *refused = submit_message(&self, 100);
    CHECK(wait_for(&self, refused) == EIO && refused->op.place.segment == NULL, "told EIO");
    SET(write_errno, 0);
    item *after = append_when_served_again(&self, 100);
    CHECK(after->op.place.segment != before->op.place.segment, "another segment");
    CHECK(statistics(&self).write_errors == 1 && has_report(&self, "sealed"), "counted and reported");
    octets *body = NULL;
    CHECK(read_place(&self, before->op.body_place, &body) == 0, "the sealed segment stays readable");
    octets_unref(body);
    fixture_close(&self);
    fixture_open(&self);
    recover_all(&self, &found);
    CHECK(found.count == 2 && find(&found, before->op.id) != NULL && find(&found, after->op.id) != NULL, "%u found", found.count);
    found_clear(&found);
    item_free(before), item_free(refused), item_free(after);
    fixture_remove(&self);
}

/* The write fails although its octets arrive: the client was told 451 and sends again, so this copy must not come back. */
static void refused_message_whose_octets_arrived_stays_refused(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    item *before = append(&self, 100);
    SET(writes_then_fails, true);
    SET(write_errno, EIO);
    item *refused = submit_message(&self, 100);
    CHECK(wait_for(&self, refused) == EIO, "told EIO");
    SET(write_errno, 0);
    SET(writes_then_fails, false);
    item *after = append_when_served_again(&self, 100);
    pause_ms(100);
    settle(&self);
    fixture copy = fixture_crash_copy(&self);
    fixture_open(&copy);
    recover_all(&copy, &found);
    CHECK(find(&found, refused->op.id) == NULL, "came back");
    CHECK(found.count == 2, "%u found", found.count);
    found_clear(&found);
    fixture_remove(&copy);
    item_free(before), item_free(refused), item_free(after);
    fixture_remove(&self);
}

static void failed_freed_record_is_written_again(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    item *message = append(&self, 100);
    SET(write_errno, EIO);
    spool_shard_free(self.shard, message->op.id, message->op.place.segment, NULL, 0);
    item *refused = submit_message(&self, 10);
    CHECK(wait_for(&self, refused) == EIO, "told EIO");
    SET(write_errno, 0);
    item *other = append_when_served_again(&self, 10);
    for (int i = 0; i < 60; i++)
        turn(&self, 20);
    CHECK(!spool_shard_is_lazy_waiting(self.shard), "nothing waits any more");
    fixture copy = fixture_crash_copy(&self);
    fixture_open(&copy);
    recover_all(&copy, &found);
    CHECK(found.count == 1 && find(&found, other->op.id) != NULL, "%u found", found.count);
    found_clear(&found);
    fixture_remove(&copy);
    item_free(message), item_free(refused), item_free(other);
    fixture_remove(&self);
}

static void full_disk_refuses_mail_and_goes_on_delivering(void)
{
    fixture self = fixture_make(MIB, 1);
    settle(&self);
    SET(allocate_errno, ENOSPC);
    enum { LIMIT = 100 };
    item *items[LIMIT];
    int count = 0, error = 0;
    while (count < LIMIT && error == 0) {
        items[count] = submit_message(&self, 60000);
        error = wait_for(&self, items[count++]);
    }
    CHECK(error == ENOSPC && count > 10, "ENOSPC after %d", count);
    CHECK(!spool_shard_has_room(self.shard) && statistics(&self).is_full, "MAIL gets 452");
    CHECK(has_report(&self, "452"), "reported");
    uint64_t commits = statistics(&self).commits;
    item *outcome = submit_outcome(&self, items[0], NULL, "delivery goes on");
    turn(&self, 0);
    pause_ms(100);
    CHECK(wait_for(&self, outcome) == 0 && statistics(&self).commits > commits, "outcome in the reserve");

    SET(allocate_errno, 0);                     /* by itself, within about a second */
    uint64_t start = now_ms();
    while (!spool_shard_has_room(self.shard) && now_ms() - start < 3000)
        turn(&self, 20);
    CHECK(spool_shard_has_room(self.shard), "room again");
    item *after = append(&self, 60000);
    for (int i = 0; i < count; i++)
        item_free(items[i]);
    item_free(outcome), item_free(after);
    fixture_remove(&self);
}

/* Not even the reserve is left: settled mail must still empty the disk, without a freed record. */
static void disk_full_to_the_last_octet_empties_itself(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 0);
    settle(&self);
    SET(allocate_errno, ENOSPC);
    enum { LIMIT = 400 };
    static item *items[LIMIT];
    int count = 0, error = 0;
    while (count < LIMIT && error == 0) {
        items[count] = submit_message(&self, 8000);
        error = wait_for(&self, items[count++]);
    }
    CHECK(error == ENOSPC, "full after %d", count);
    item_free(items[--count]);
    item *previous = NULL;
    for (error = 0; error == 0;) {              /* large outcomes eat the reserve */
        octets *text = pattern(1, 3000);
        item *outcome = calloc(1, sizeof *outcome);
        outcome->op = (spool_op){.kind = SPOOL_OUTCOME, .id = items[0]->op.id, .payload = text, .about = items[0]->op.place.segment,
                                 .done = item_done, .context = outcome};
        spool_shard_submit(self.shard, &outcome->op);
        turn(&self, 0);
        pause_ms(SPOOL_LAZY_MS);
        error = wait_for(&self, outcome);
        if (previous != NULL)
            item_free(previous);
        previous = outcome;
    }
    CHECK(error == ENOSPC, "the reserve is gone");
    for (int i = 0; i < count; i++)
        spool_shard_free(self.shard, items[i]->op.id, items[i]->op.place.segment, NULL, 0);
    SET(allocate_errno, 0);
    /* Allocation works again only for a file that has been given back: keep it failing unless files went. */
    SET(allocate_errno, ENOSPC);
    uint64_t start = now_ms();
    while (statistics(&self).segments > 0 && now_ms() - start < 5000)
        turn(&self, 20);
    CHECK(statistics(&self).segments == 0 && file_count(&self) == 0, "%u segments, %u files", statistics(&self).segments, file_count(&self));
    SET(allocate_errno, 0);
    start = now_ms();
    while (!spool_shard_has_room(self.shard) && now_ms() - start < 3000)
        turn(&self, 20);
    item *after = append(&self, 60000);
    fixture_close(&self);
    fixture_open(&self);
    recover_all(&self, &found);
    CHECK(found.count == 1 && find(&found, after->op.id) != NULL, "%u found", found.count);
    found_clear(&found);
    for (int i = 0; i < count; i++)
        item_free(items[i]);
    item_free(previous), item_free(after);
    fixture_remove(&self);
}

static void failing_directory_sync_is_no_new_segment(void)
{
    fixture self = fixture_make(MIB, 1);
    settle(&self);
    SET(fsync_errno, EIO);
    item *one = NULL;
    int error = 0;
    for (int i = 0; i < 40 && error == 0; i++) {
        one = submit_message(&self, 60000);
        error = wait_for(&self, one);
        item_free(one);
    }
    CHECK(error != 0, "no message in a segment whose name is not durable");
    SET(fsync_errno, 0);
    uint64_t start = now_ms();
    while (!spool_shard_has_room(self.shard) && now_ms() - start < 3000)
        turn(&self, 20);
    item_free(append(&self, 60000));
    fixture_remove(&self);
}

/* Six messages in three batches, the last batch partly missing: none of the earlier harmed, nothing half there. */
static void torn_tail_is_dropped_silently(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    item *kept[4], *torn[3];
    for (int i = 0; i < 4; i++)
        kept[i] = append(&self, 3000);
    SET(is_held, true);
    item *first = submit_message(&self, 10);
    for (int i = 0; i < 100 && GET(waiting) == 0; i++)
        turn(&self, 5);
    for (int i = 0; i < 3; i++)
        torn[i] = submit_message(&self, 3000);
    SET(is_held, false);
    for (int i = 0; i < 3; i++)
        CHECK(wait_for(&self, torn[i]) == 0, "batch");
    uint32_t start = torn[0]->op.body_place.offset, serial = spool_segment_serial(torn[0]->op.place.segment);
    uint32_t end = torn[2]->op.place.offset + 200, torn_count = 0;
    for (uint32_t mask = 0; mask < 64; mask++) {
        fixture copy = fixture_crash_copy(&self);
        int fd = segment_file(&copy, serial);
        uint8_t zeros[512] = {0};
        uint32_t seed = mask * 2654435761u + 1;
        bool is_any = false;
        for (uint32_t at = start / 512 * 512; at < end; at += 512)
            if ((seed = seed * 1664525u + 1013904223u) >> 31) {
                CHECK(pwrite(fd, zeros, 512, at) == 512, "zero");
                is_any = true;
            }
        close(fd);
        fixture_open(&copy);
        recover_all(&copy, &found);
        spool_statistics figures = statistics(&copy);
        spool_notice notice = {0};
        bool is_told = take_notice(&copy, SPOOL_NOTICE_TORN, &notice);
        CHECK(figures.damaged_records == 0 && figures.unread_segments == 0, "mask %u: torn taken for damage", mask);
        CHECK(is_told == (figures.torn_records > 0), "mask %u: torn and not told, or told and not torn", mask);
        CHECK(!is_told || (notice.at.serial == serial && notice.at.offset >= start && notice.at.offset < end),
              "mask %u: torn at %u %llu", mask, notice.at.serial, (unsigned long long)notice.at.offset);
        torn_count += is_told;
        CHECK(!is_any || found.count < 8, "mask %u: %u found", mask, found.count);
        for (int i = 0; i < 4; i++)
            CHECK(find(&found, kept[i]->op.id) != NULL, "mask %u: message %d lost", mask, i);
        CHECK(find(&found, first->op.id) != NULL, "mask %u: message of the batch before lost", mask);
        for (unsigned i = 0; i < found.count; i++)
            CHECK(check_body(&copy, &found.items[i], found.items[i].id == first->op.id ? 10 : 3000) == 0, "mask %u: half there", mask);
        found_clear(&found);
        fixture_remove(&copy);
    }
    CHECK(torn_count > 32, "%u torn ends told", torn_count);
    for (int i = 0; i < 4; i++)
        item_free(kept[i]);
    for (int i = 0; i < 3; i++)
        item_free(torn[i]);
    item_free(first);
    fixture_remove(&self);
}

static void damage_in_the_middle_is_reported_and_set_aside(void)
{
    for (int is_sealed = 0; is_sealed < 2; is_sealed++)
        for (int hit = 0; hit < 3; hit++) {
            static found_list found;
            fixture self = fixture_make(MIB, 1);
            item *items[9];
            for (int i = 0; i < 9; i++)
                items[i] = append(&self, 3000);
            uint32_t serial = spool_segment_serial(items[4]->op.place.segment);
            uint32_t offset = hit == 0 ? items[4]->op.place.offset + 40 : hit == 1 ? items[4]->op.body_place.offset + 100
                            : items[4]->op.place.offset + 5;
            fixture copy = self;
            if (is_sealed)
                fixture_close(&self), copy = self;
            else
                copy = fixture_crash_copy(&self);
            int fd = segment_file(&copy, serial);
            uint8_t octet;
            CHECK(pread(fd, &octet, 1, offset) == 1, "read");
            octet ^= 0x40;
            CHECK(pwrite(fd, &octet, 1, offset) == 1, "write");
            close(fd);
            fixture_open(&copy);
            recover_all(&copy, &found);
            for (int i = 0; i < 9; i++) {
                const found_message *message = find(&found, items[i]->op.id);
                if (i != 4) {
                    CHECK(message != NULL && check_body(&copy, message, 3000) == 0, "sealed %d hit %d: %d lost", is_sealed, hit, i);
                    continue;
                }
                if (hit == 1)
                    CHECK(message != NULL && check_body(&copy, message, 3000) == EBADMSG, "a damaged body is told when read");
                else
                    CHECK(message == NULL, "no envelope, no message");
            }
            char words[64], path[128];
            uint32_t start = hit == 1 ? items[4]->op.body_place.offset : items[4]->op.place.offset;
            snprintf(words, sizeof words, "segment %u offset %u", serial, start);
            CHECK(statistics(&copy).damaged_records == 1 && has_report(&copy, words), "sealed %d hit %d: %s", is_sealed, hit, words);
            /* What is met by a read is set aside and told; only what a start could not read keeps its segment. */
            CHECK(statistics(&copy).unread_segments == (is_sealed && hit == 1 ? 0 : 1), "sealed %d hit %d: unread", is_sealed, hit);
            snprintf(path, sizeof path, "%s/00/damaged/%u-%u.bin", copy.path, serial, start);
            struct stat status;
            CHECK(stat(path, &status) == 0 && status.st_size > 32 && (status.st_mode & 0777) == 0600, "%s", path);
            if (is_sealed && hit == 1) {        /* every attempt reads it again */
                CHECK(check_body(&copy, find(&found, items[4]->op.id), 3000) == EBADMSG, "damaged still");
                CHECK(statistics(&copy).damaged_records == 1 && !has_report(&copy, words), "told and counted once");
            }
            found_clear(&found);
            for (int i = 0; i < 9; i++)
                item_free(items[i]);
            fixture_remove(&copy);
            if (!is_sealed)
                fixture_remove(&self);
        }
}

static void a_file_without_a_header_is_no_trouble(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    item *message = append(&self, 100);
    fixture_close(&self);
    int directory = openat(self.dirfd, "00", O_RDONLY | O_DIRECTORY);
    close(openat(directory, "seg-0050.ang", O_CREAT | O_WRONLY, 0600));             /* a crash before its first header */
    int fd = openat(directory, "seg-0051.ang", O_CREAT | O_WRONLY, 0600);           /* both copies damaged */
    char junk[8192];
    memset(junk, 'x', sizeof junk);
    CHECK(write(fd, junk, sizeof junk) == sizeof junk, "junk");
    close(fd);
    close(openat(directory, "seg-00052.ang", O_CREAT | O_WRONLY, 0600));            /* not a name of ours */
    fixture_open(&self);
    recover_all(&self, &found);
    CHECK(found.count == 1, "%u found", found.count);
    CHECK(has_report(&self, "seg-0051.ang"), "named");
    bool is_settled = false;            /* the next segment may take its number: for a moment that file is empty too */
    for (int i = 0; i < 10000 && !is_settled; i++) {
        struct stat status;
        is_settled = fstatat(directory, "seg-0050.ang", &status, 0) != 0 || status.st_size == MIB;
        if (!is_settled)
            usleep(1000);
    }
    CHECK(is_settled, "the empty one is gone, or in use");
    CHECK(faccessat(directory, "seg-0051.ang", F_OK, 0) == 0, "the damaged one is left alone");
    close(directory);
    found_clear(&found);
    item_free(message);
    fixture_remove(&self);
}

static void harm(const fixture *self, void (*what)(int fd))
{
    int directory = openat(self->dirfd, "00", O_RDONLY | O_DIRECTORY);
    int fd = openat(directory, "seg-0000.ang", O_RDWR);
    what(fd);
    close(fd);
    close(directory);
}

static void zero_header(int fd)
{
    static const char zeros[SPOOL_HEADER_OCTETS];
    CHECK(pwrite(fd, zeros, sizeof zeros, 0) == sizeof zeros, "zeros");
}

static void cut_short(int fd)
{
    CHECK(ftruncate(fd, MIB - SPOOL_HEADER_OCTETS) == 0, "cut");
}

/* A header of zeros is that of a file which was never used, or one that the disk has lost: records are behind it then. */
static void a_lost_header_costs_no_file(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    item *message = append(&self, 100);
    fixture_close(&self);
    harm(&self, zero_header);
    fixture_open(&self);
    recover_all(&self, &found);
    CHECK(found.count == 0 && has_report(&self, "seg-0000.ang: both copies of its header are damaged"), "told");
    int directory = openat(self.dirfd, "00", O_RDONLY | O_DIRECTORY);
    CHECK(faccessat(directory, "seg-0000.ang", F_OK, 0) == 0, "and left alone");
    close(directory);
    found_clear(&found);
    item_free(message);
    fixture_remove(&self);
}

static void what_is_there_of_a_short_file_is_served(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    item *message = append(&self, 100);
    fixture_close(&self);
    harm(&self, cut_short);
    fixture_open(&self);
    recover_all(&self, &found);
    CHECK(found.count == 1, "%u found", found.count);
    CHECK(has_report(&self, "seg-0000.ang is too short: from offset 1044480 on 4096 octets are missing"), "told");
    found_clear(&found);
    item_free(message);
    fixture_remove(&self);
}

/* A segment that a kill left open is synced before anything follows from it. When that cannot be, its mail is taken over and
 * the segment is kept, whatever becomes of the mail. */
static void segment_that_cannot_be_synced_at_start_is_kept(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    item *message = append(&self, 100);
    CHECK(!statistics(&self).is_scan_broken, "an empty spool is no broken one");
    fixture copy = fixture_crash_copy(&self);
    SET(fdatasync_errno, EIO);
    fixture_open(&copy);
    recover_all(&copy, &found);
    CHECK(found.count == 1, "%u found", found.count);
    CHECK(has_report(&copy, "cannot be synced"), "reported");
    found_clear(&found);
    SET(fdatasync_errno, 0);
    fixture_close(&copy);
    fixture_open(&copy);
    recover_all(&copy, &found);
    CHECK(found.count == 1 && !statistics(&copy).is_scan_broken, "a restart finds it");
    found_clear(&found);
    fixture_remove(&copy);
    item_free(message);
    fixture_remove(&self);
}

enum { SLOTS = 12 };

static unsigned read_headers(const fixture *self, spool_segment_header headers[SLOTS])
{
    unsigned free_count = 0;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        char path[100];
        uint8_t block[SPOOL_HEADER_OCTETS];
        snprintf(path, sizeof path, "%s/00/seg-%04u.ang", self->path, slot);
        int fd = open(path, O_RDONLY);
        headers[slot] = (spool_segment_header){.use = SPOOL_SEGMENT_LIVE};
        if (fd < 0)
            continue;
        CHECK(pread(fd, block, sizeof block, 0) == sizeof block && spool_header_decode(block, &headers[slot]) == 0, "%s", path);
        free_count += headers[slot].use == SPOOL_SEGMENT_FREE;
        close(fd);
    }
    return free_count;
}

/* After a sync that failed the kernel shows what was written, takes it for clean, and has nothing left to sync: whoever believes what
 * it reads must write it. A segment that comes back LIVE has lost those that say what in it was over. */
static void free_header_is_written_anew_at_start(void)
{
    static found_list found;
    spool_segment_header before[SLOTS], after[SLOTS];
    fixture self = fixture_make(MIB, SLOTS);
    item *items[40];
    for (int i = 0; i < 40; i++)
        items[i] = append(&self, 100000);
    for (int i = 0; i < 40; i++) {
        spool_shard_free(self.shard, items[i]->op.id, items[i]->op.place.segment, NULL, 0);
        item_free(items[i]);
    }
    settle(&self);
    fixture_close(&self);
    CHECK(read_headers(&self, before) >= 2, "one is used again at once, another stays");
    fixture_open(&self);
    recover_all(&self, &found);
    settle(&self);
    read_headers(&self, after);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        if (before[slot].use == SPOOL_SEGMENT_FREE)
            CHECK(after[slot].generation > before[slot].generation, "slot %u: as it was read", slot);
    found_clear(&found);
    fixture_close(&self);

    unsigned free_count = read_headers(&self, before);
    CHECK(free_count >= 2, "%u are free", free_count);
    SET(fdatasync_errno, EIO);
    fixture_open(&self);
    recover_all(&self, &found);
    CHECK(statistics(&self).is_scan_broken && statistics(&self).unread_segments == free_count, "none of them is believed");
    CHECK(has_report(&self, "its header cannot be written"), "reported");
    found_clear(&found);
    SET(fdatasync_errno, 0);
    item *message = append_when_served_again(&self, 100);
    read_headers(&self, after);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        CHECK(before[slot].use != SPOOL_SEGMENT_FREE || after[slot].use == SPOOL_SEGMENT_FREE, "slot %u: used in this run", slot);
    fixture_close(&self);
    fixture_open(&self);
    recover_all(&self, &found);
    CHECK(found.count == 1 && !statistics(&self).is_scan_broken, "a restart believes them");
    found_clear(&found);
    item_free(message);
    fixture_remove(&self);
}

/* An envelope that cannot be read just now: nobody pins the chunks it names, and they lie in segments that can be read. */
static void chunks_wait_for_an_envelope_that_could_not_be_read(void)
{
    static found_list found;
    enum { RUN = 100000, RUNS = 3 };
    fixture self = fixture_make(MIB, 1);
    uint64_t id = spool_shard_next_id(self.shard);
    octets *whole = pattern(id, RUN * RUNS);
    spool_chunk chunks[RUNS];
    for (int i = 0; i < RUNS; i++) {
        item *run = submit(&self, SPOOL_BODY, id, octets_copy(whole->data + i * RUN, RUN), NULL);
        run->op.aux = (uint64_t)i * RUN;
        CHECK(wait_for(&self, run) == 0, "run %d", i);
        chunks[i] = (spool_chunk){spool_segment_serial(run->op.place.segment), run->op.place.offset, RUN};
        item_free(run);
    }
    churn(&self, 1);
    item *message = submit(&self, SPOOL_ENVELOPE, id, envelope_of(id, RUN * RUNS, chunks, RUNS), NULL);
    CHECK(wait_for(&self, message) == 0, "envelope");
    uint32_t home = spool_segment_serial(message->op.place.segment);
    CHECK(home != chunks[0].segment_serial, "in another segment");
    fixture_close(&self);

    SET(unreadable_serial, home);
    fixture_open(&self);
    recover_all(&self, &found);
    CHECK(find(&found, id) == NULL && statistics(&self).is_scan_broken, "not found, and that is not all");
    found_clear(&found);                /* those whose FREED could not be read */
    churn(&self, 4);
    settle(&self);
    fixture_close(&self);

    SET(unreadable_serial, 0);
    fixture_open(&self);
    recover_all(&self, &found);
    const found_message *again = find(&found, id);
    CHECK(again != NULL && check_body(&self, again, RUN * RUNS) == 0, "found after a restart");
    found_clear(&found);
    octets_unref(whole);
    item_free(message);
    fixture_remove(&self);
}

int main(void)
{
    write_error_seals_the_segment_and_service_goes_on();
    refused_message_whose_octets_arrived_stays_refused();
    failed_freed_record_is_written_again();
    full_disk_refuses_mail_and_goes_on_delivering();
    disk_full_to_the_last_octet_empties_itself();
    failing_directory_sync_is_no_new_segment();
    torn_tail_is_dropped_silently();
    damage_in_the_middle_is_reported_and_set_aside();
    a_file_without_a_header_is_no_trouble();
    a_lost_header_costs_no_file();
    what_is_there_of_a_short_file_is_served();
    segment_that_cannot_be_synced_at_start_is_kept();
    free_header_is_written_anew_at_start();
    chunks_wait_for_an_envelope_that_could_not_be_read();
    CHECK(octets_live_count() == 0, "%ld buffers leaked", octets_live_count());
    return check_report();
}
