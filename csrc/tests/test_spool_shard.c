/* The shard on a real file system: durability before done, restart, streaming, ids, locks, versions, alignments,
 * and read by another process. */
#include "spool_fixture.h"

enum { MIB = 1 << 20 };

static void messages_come_back_after_a_restart(void)
{
    fixture self = fixture_make(MIB, 2);
    enum { COUNT_ = 300 };
    item *items[COUNT_];
    size_t lengths[COUNT_];
    for (int i = 0; i < COUNT_; i++) {
        lengths[i] = (size_t)(i * i * 7 % 30000);
        items[i] = submit_message(&self, lengths[i]);
        if (i % 8 == 7)
            turn(&self, 20);
    }
    for (int i = 0; i < COUNT_; i++)
        CHECK(wait_for(&self, items[i]) == 0, "message %d", i);
    octets *body = NULL;
    CHECK(read_place(&self, items[7]->op.body_place, &body) == 0 && body->length == lengths[7]
          && memcmp(body->data, items[7]->op.body->data, lengths[7]) == 0, "read while open");
    octets_unref(body);
    CHECK(statistics(&self).sealed_segments >= 3, "several segments");

    for (int is_crash = 0; is_crash < 2; is_crash++) {
        static found_list found;
        fixture after = self;
        if (is_crash)                           /* the current segment has no footer yet */
            after = fixture_crash_copy(&self);
        else
            fixture_close(&self), after = self;
        if (is_crash == 0)
            fixture_open(&self), after = self;
        else
            fixture_open(&after);
        recover_all(&after, &found);
        CHECK(found.count == COUNT_, "found %u", found.count);
        for (int i = 0; i < COUNT_; i++) {
            const found_message *message = find(&found, items[i]->op.id);
            CHECK(message != NULL && check_body(&after, message, lengths[i]) == 0, "message %d", i);
        }
        CHECK(statistics(&after).torn_records == 0 && statistics(&after).damaged_records == 0, "nothing wrong");
        found_clear(&found);
        if (is_crash)
            fixture_remove(&after);
    }
    for (int i = 0; i < COUNT_; i++)
        item_free(items[i]);
    fixture_remove(&self);
}

/* The promise itself: while the sync is under way nobody is told anything, and all who came meanwhile share the next one. */
static void done_comes_only_after_the_sync(void)
{
    fixture self = fixture_make(MIB, 2);
    item_free(append(&self, 10));
    settle(&self);
    SET(is_held, true);
    item *first = submit_message(&self, 1000);
    for (int i = 0; i < 100 && GET(waiting) == 0; i++)
        turn(&self, 5);
    item *others[20];
    for (int i = 0; i < 20; i++)
        others[i] = submit_message(&self, 1000);
    for (int i = 0; i < 5; i++)
        turn(&self, 5);
    CHECK(!first->is_done && !others[0]->is_done, "told before the sync");
    uint64_t commits = statistics(&self).commits;
    int writes = GET(durable_writes);
    SET(is_held, false);
    CHECK(wait_for(&self, first) == 0 && first->called_after_writes > writes, "first");
    for (int i = 0; i < 20; i++) {
        CHECK(wait_for(&self, others[i]) == 0 && others[i]->called_after_writes >= writes + 2, "other %d", i);
        item_free(others[i]);
    }
    CHECK(statistics(&self).commits == commits + 2, "%llu commits for one and twenty",
          (unsigned long long)(statistics(&self).commits - commits));
    item_free(first);
    fixture_remove(&self);
}

static void company_is_waited_for_only_when_expected(void)
{
    fixture self = fixture_make(4 * MIB, 2);
    self.options.window_us = 1000;
    item_free(append(&self, 10));
    settle(&self);
    uint64_t commits = statistics(&self).commits;
    for (int i = 0; i < 50; i++)
        item_free(append(&self, 100));
    CHECK(statistics(&self).commits - commits == 50, "alone: one commit each");

    fixture_close(&self);
    self.options.window_us = 400000;            /* far longer than this takes */
    fixture_open(&self);
    spool_shard_expect(self.shard, 40);         /* ten make a batch */
    item_free(append(&self, 100));
    commits = statistics(&self).commits;
    item *items[10];
    for (int i = 0; i < 10; i++) {
        CHECK(i == 0 || (!items[0]->is_done && statistics(&self).commits == commits), "%d did not wait for the tenth", i);
        items[i] = submit_message(&self, 100);
        turn(&self, 3);
    }
    for (int i = 0; i < 10; i++) {
        CHECK(wait_for(&self, items[i]) == 0, "message %d", i);
        item_free(items[i]);
    }
    CHECK(statistics(&self).commits == commits + 1, "one commit for ten");

    item *late = submit_message(&self, 100);    /* no company comes: the window ends */
    CHECK(wait_for(&self, late) == 0, "alone among many");
    item_free(late);
    fixture_remove(&self);
}

static void nothing_waits_where_the_wait_is_set_to_nothing_or_in_a_hurry(void)
{
    fixture self = fixture_make(MIB, 2);
    item *message = append(&self, 10);
    settle(&self);
    item *outcome = submit_outcome(&self, message, NULL, "one");
    spool_shard_kick(self.shard, 1000000);
    CHECK(spool_shard_is_lazy_waiting(self.shard), "waits");
    spool_shard_hurry(self.shard);
    spool_shard_kick(self.shard, 1000000);
    CHECK(!spool_shard_is_lazy_waiting(self.shard) && wait_for(&self, outcome) == 0, "hurried");
    fixture_close(&self);
    self.options.lazy_ms = 0;
    fixture_open(&self);
    item *second = append(&self, 10);
    settle(&self);
    item *at_once = submit_outcome(&self, second, NULL, "two");
    spool_shard_kick(self.shard, 1000000);
    CHECK(!spool_shard_is_lazy_waiting(self.shard) && wait_for(&self, at_once) == 0, "at once");
    item_free(message), item_free(outcome), item_free(second), item_free(at_once);
    fixture_remove(&self);
}

static void lazy_ops_ride_or_go_alone_in_time(void)
{
    fixture self = fixture_make(MIB, 2);
    item *message = append(&self, 10);
    settle(&self);
    item *outcome = submit_outcome(&self, message, NULL, "one");
    spool_shard_kick(self.shard, 1000000);
    CHECK(spool_shard_is_lazy_waiting(self.shard), "waits");
    CHECK(spool_shard_kick_due_ms(self.shard, 1000000) == SPOOL_LAZY_MS, "for so long");
    spool_shard_kick(self.shard, 1000000 + SPOOL_LAZY_MS - 1);
    pause_ms(20);
    spool_shard_reap(self.shard, 10);
    CHECK(!outcome->is_done, "not earlier than it must");
    CHECK(spool_shard_kick_due_ms(self.shard, 1000000 + SPOOL_LAZY_MS - 1) == 1, "counted from when it came");
    spool_shard_kick(self.shard, 1000000 + SPOOL_LAZY_MS);
    CHECK(!spool_shard_is_lazy_waiting(self.shard), "handed over");
    CHECK(spool_shard_kick_due_ms(self.shard, 1000000 + SPOOL_LAZY_MS) == 0, "no further kick needed");
    CHECK(wait_for(&self, outcome) == 0, "alone");

    uint64_t commits = statistics(&self).commits;
    item *riding = submit_outcome(&self, message, outcome, "two");
    item *other = submit_message(&self, 10);
    spool_shard_kick(self.shard, 2000000);
    CHECK(wait_for(&self, other) == 0 && wait_for(&self, riding) == 0, "riding");
    CHECK(statistics(&self).commits == commits + 1, "one commit for both");
    item_free(message), item_free(outcome), item_free(riding), item_free(other);
    fixture_remove(&self);
}

static void a_clean_stop_leaves_no_outcome_behind(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 2);
    item *kept = append(&self, 10), *settled = append(&self, 10);
    item *outcome = submit_outcome(&self, kept, NULL, "state");
    spool_shard_free(self.shard, settled->op.id, settled->op.place.segment, NULL, 0);
    fixture_close(&self);
    CHECK(outcome->is_done && outcome->op.error == 0, "told");
    fixture_open(&self);
    recover_all(&self, &found);
    CHECK(found.count == 1 && found.items[0].id == kept->op.id && found.items[0].state != NULL
          && memcmp(found.items[0].state->data, "state", 5) == 0, "only the kept one, with its state");
    found_clear(&found);
    item_free(kept), item_free(settled), item_free(outcome);
    fixture_remove(&self);
}

static void ops_after_the_stop_are_refused(void)
{
    fixture self = fixture_make(MIB, 2);
    item *message = append(&self, 10);
    spool_shard_stop(self.shard);
    item *late = submit_message(&self, 10);
    reading read = {.op = {.place = message->op.body_place, .done = reading_done}};
    read.op.context = &read;
    spool_shard_read(self.shard, &read.op);
    while (spool_shard_reap(self.shard, 10))
        ;
    CHECK(late->is_done && late->op.error == ESHUTDOWN, "submit");
    CHECK(read.is_done && read.op.error == ESHUTDOWN, "read");
    item_free(message), item_free(late);
    fixture_remove(&self);
}

static void streamed_messages_span_segments_and_let_them_go(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    enum { RUN = 200000, RUNS = 9 };
    uint64_t id = spool_shard_next_id(self.shard);
    octets *whole = pattern(id, RUN * RUNS);
    spool_chunk chunks[RUNS];
    spool_segment *segments[RUNS];
    for (int i = 0; i < RUNS; i++) {
        item *run = submit(&self, SPOOL_BODY, id, octets_copy(whole->data + i * RUN, RUN), NULL);
        run->op.aux = (uint64_t)i * RUN;
        CHECK(wait_for(&self, run) == 0, "run %d", i);
        segments[i] = run->op.place.segment;
        chunks[i] = (spool_chunk){spool_segment_serial(segments[i]), run->op.place.offset, RUN};
        item_free(run);
    }
    CHECK(segments[0] != segments[RUNS - 1], "several segments");
    item *message = submit(&self, SPOOL_ENVELOPE, id, envelope_of(id, RUN * RUNS, chunks, RUNS), NULL);
    CHECK(wait_for(&self, message) == 0, "envelope");
    churn(&self, 3);
    settle(&self);
    CHECK(spool_shard_segment(self.shard, chunks[0].segment_serial) == segments[0], "pinned by its chunk");
    fixture_close(&self);

    fixture_open(&self);                        /* chunks are pinned after a restart too */
    recover_all(&self, &found);
    CHECK(found.count == 1 && check_body(&self, &found.items[0], RUN * RUNS) == 0, "whole");
    churn(&self, 3);
    settle(&self);
    CHECK(found.count == 1 && check_body(&self, &found.items[0], RUN * RUNS) == 0, "still whole");
    spool_shard_free(self.shard, id, found.items[0].place.segment, NULL, 0);
    for (int i = 0; i < RUNS; i++)
        spool_segment_release(self.shard, spool_shard_segment(self.shard, chunks[i].segment_serial), 0);
    churn(&self, 2);
    settle(&self);
    CHECK(spool_shard_segment(self.shard, chunks[0].segment_serial) == NULL, "let go");
    CHECK(file_count(&self) <= 5, "%u files", file_count(&self));
    found_clear(&found);
    octets_unref(whole);
    item_free(message);
    fixture_remove(&self);
}

static void an_aborted_stream_lets_its_segment_go(void)
{
    fixture self = fixture_make(MIB, 1);
    item *run = submit(&self, SPOOL_BODY, 1, pattern(1, 1000), NULL);
    CHECK(wait_for(&self, run) == 0, "run");
    uint32_t serial = spool_segment_serial(run->op.place.segment);
    churn(&self, 2);
    settle(&self);
    CHECK(spool_shard_segment(self.shard, serial) != NULL, "pinned");
    spool_segment_release(self.shard, run->op.place.segment, 0);
    pause_ms(100);
    settle(&self);
    CHECK(spool_shard_segment(self.shard, serial) == NULL, "let go without any other commit");
    item_free(run);
    fixture_remove(&self);
}

static void too_large_for_a_segment_is_refused_not_split(void)
{
    fixture self = fixture_make(MIB, 1);
    item *large = submit_message(&self, MIB);
    CHECK(wait_for(&self, large) == EFBIG, "refused");
    item *fits = submit_message(&self, MIB - 3 * 4096);
    CHECK(wait_for(&self, fits) == 0, "the largest fits");
    item *small = append(&self, 10);
    item_free(large), item_free(fits), item_free(small);
    fixture_remove(&self);
}

static void ids_are_unique_over_restarts_and_overflow(void)
{
    fixture self = fixture_make(MIB, 1);
    uint64_t first = spool_shard_next_id(self.shard), last = first;
    CHECK(first >> 56 == 0 && (first >> 24 & 0xffffffff) >= (uint64_t)time(NULL) - 5, "shard, incarnation, counter");
    for (uint32_t i = 0; i < (1u << 24) + 10; i++) {
        uint64_t id = spool_shard_next_id(self.shard);
        if (id <= last) {
            CHECK(false, "not rising at %u", i);
            break;
        }
        last = id;
    }
    CHECK(last >> 24 > first >> 24, "a new incarnation");
    item_free(append(&self, 10));
    fixture_close(&self);
    for (int i = 0; i < 5; i++) {               /* several starts within one second */
        fixture_open(&self);
        CHECK(spool_shard_next_id(self.shard) > last, "restart %d", i);
        item *message = append(&self, 10);
        last = message->op.id;
        item_free(message);
        fixture_close(&self);
    }
    fixture_remove(&self);
}

static void a_shard_in_use_names_its_owner(void)
{
    fixture self = fixture_make(MIB, 1);
    spool_shard *second;
    spool_error error;
    char pid[24];
    snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    CHECK(spool_shard_open(self.dirfd, "00", 0, &self.options, &second, &error) == EBUSY && second == NULL, "refused");
    CHECK(error.code == EBUSY && strstr(error.text, pid) != NULL, "%s", error.text);
    item_free(append(&self, 10));
    fixture_close(&self);
    CHECK(spool_shard_open(self.dirfd, "00", 1, &self.options, &second, &error) == EPROTO
          && strstr(error.text, "belongs to shard 0") != NULL, "another number: %s", error.text);
    fixture_remove(&self);
}

static void another_version_is_refused_untouched(void)
{
    fixture self = fixture_make(MIB, 1);
    item *message = append(&self, 10);
    uint32_t serial = spool_segment_serial(message->op.place.segment);
    fixture_close(&self);
    int fd = segment_file(&self, serial);
    uint8_t block[SPOOL_HEADER_OCTETS];
    spool_segment_header header;
    CHECK(pread(fd, block, sizeof block, 0) == sizeof block && spool_header_decode(block, &header) == 0, "read");
    header.version = 2;
    header.generation++;
    spool_header_encode(block, &header);
    CHECK(pwrite(fd, block, sizeof block, 0) == sizeof block, "write");
    spool_error error;
    CHECK(spool_shard_open(self.dirfd, "00", 0, &self.options, &self.shard, &error) == EPROTO
          && strstr(error.text, "version 2") != NULL, "%s", error.text);
    uint8_t again[SPOOL_HEADER_OCTETS];
    CHECK(pread(fd, again, sizeof again, 0) == sizeof again && memcmp(block, again, sizeof again) == 0, "untouched");
    close(fd);
    item_free(message);
    fixture_remove(&self);
}

static void works_without_direct_writes(void)
{
    static found_list found;
    SET(has_no_direct, true);
    fixture self = fixture_make(MIB, 1);
    item *message = append(&self, 3000);
    churn(&self, 2);
    fixture_close(&self);
    fixture_open(&self);
    recover_all(&self, &found);
    CHECK(found.count == 1 && check_body(&self, &found.items[0], 3000) == 0, "whole");
    found_clear(&found);
    SET(has_no_direct, false);
    item_free(message);
    fixture_remove(&self);
}

static void short_writes_are_continued(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    settle(&self);
    SET(short_writes, 3);
    item *message = append(&self, 5000);
    CHECK(GET(short_writes) == 0, "they happened");
    fixture_close(&self);
    fixture_open(&self);
    recover_all(&self, &found);
    CHECK(found.count == 1 && check_body(&self, &found.items[0], 5000) == 0, "whole");
    found_clear(&found);
    item_free(message);
    fixture_remove(&self);
}

/* --- read by another process --- */

static spool_segment_face face_of(const item *message)
{
    spool_segment_face face;
    spool_segment_describe(message->op.place.segment, &face);
    return face;
}

/* What one place gives where the segment is the one described. */
static int read_foreign(fixture *foreign, const spool_segment_face *face, spool_place place, octets **out)
{
    place.segment = spool_shard_hold_foreign(foreign->shard, face);
    CHECK(place.segment != NULL, "no memory");
    int error = read_place(foreign, place, out);
    spool_shard_drop_foreign(foreign->shard, place.segment);
    return error;
}

static fixture open_foreign(const fixture *self)
{
    fixture foreign = *self;
    spool_error error;
    int code = spool_shard_open_foreign(self->dirfd, "00", 0, &foreign.shard, &error);
    CHECK(code == 0, "%s", error.text);
    return foreign;
}

static void bodies_and_envelopes_are_read_beside_the_owner(void)
{
    fixture self = fixture_make(MIB, 2);
    fixture foreign = open_foreign(&self);
    for (int i = 0; i < 100; i++) {                 /* over several segments, the current one among them */
        item *message = submit_message(&self, (size_t)(i * 977 % 60000 + 1));
        CHECK(wait_for(&self, message) == 0, "message %d", i);
        spool_segment_face face = face_of(message);
        octets *envelope = NULL, *body = NULL;
        CHECK(read_foreign(&foreign, &face, message->op.place, &envelope) == 0, "envelope %d", i);
        CHECK(read_foreign(&foreign, &face, message->op.body_place, &body) == 0, "body %d", i);
        CHECK(body->length == message->op.body->length && memcmp(body->data, message->op.body->data, body->length) == 0, "body %d", i);
        octets_unref(envelope);
        octets_unref(body);
        item_free(message);
    }
    CHECK(statistics(&foreign).segments == 0, "nothing is held any more");
    spool_shard_stop(foreign.shard);
    spool_shard_close(foreign.shard);
    item_free(append(&self, 10));                   /* the owner goes on */
    settle(&self);
    fixture_remove(&self);
}

static void another_segment_in_the_same_file_is_refused(void)
{
    fixture self = fixture_make(MIB, 2);
    fixture foreign = open_foreign(&self);
    item *message = submit_message(&self, 1000);
    CHECK(wait_for(&self, message) == 0, "stored");
    spool_segment_face face = face_of(message), other = face, none = face;
    octets *body = NULL;
    other.salt++;
    none.slot += 1000;
    CHECK(read_foreign(&foreign, &other, message->op.body_place, &body) == EBADMSG && body == NULL, "another salt");
    CHECK(read_foreign(&foreign, &none, message->op.body_place, &body) == ENOENT && body == NULL, "no such file");
    spool_place beyond = message->op.body_place;
    beyond.offset = MIB - 8;
    CHECK(read_foreign(&foreign, &face, beyond, &body) == EBADMSG && body == NULL, "beyond its end");
    CHECK(read_foreign(&foreign, &face, message->op.body_place, &body) == 0, "and the right one is read");
    octets_unref(body);
    item_free(message);
    spool_shard_close(foreign.shard);
    fixture_remove(&self);
}

static void a_shard_that_there_is_not_is_not_made(void)
{
    fixture self = fixture_make(MIB, 2);
    spool_shard *shard;
    spool_error error;
    CHECK(spool_shard_open_foreign(self.dirfd, "07", 7, &shard, &error) == ENOENT && shard == NULL, "refused");
    CHECK(strstr(error.text, "07") != NULL, "%s", error.text);
    struct stat status;
    CHECK(fstatat(self.dirfd, "07", &status, 0) != 0, "and not made");
    fixture_remove(&self);
}

int main(void)
{
    messages_come_back_after_a_restart();
    done_comes_only_after_the_sync();
    company_is_waited_for_only_when_expected();
    lazy_ops_ride_or_go_alone_in_time();
    nothing_waits_where_the_wait_is_set_to_nothing_or_in_a_hurry();
    a_clean_stop_leaves_no_outcome_behind();
    ops_after_the_stop_are_refused();
    streamed_messages_span_segments_and_let_them_go();
    an_aborted_stream_lets_its_segment_go();
    too_large_for_a_segment_is_refused_not_split();
    ids_are_unique_over_restarts_and_overflow();
    a_shard_in_use_names_its_owner();
    another_version_is_refused_untouched();
    works_without_direct_writes();
    short_writes_are_continued();
    bodies_and_envelopes_are_read_beside_the_owner();
    another_segment_in_the_same_file_is_refused();
    a_shard_that_there_is_not_is_not_made();
    CHECK(octets_live_count() == 0, "%ld buffers leaked", octets_live_count());
    return check_report();
}
