/* Compaction: what is in the spool twice, what is said of which copy, and that a segment goes only when nothing in it matters.
 * The mover here is a small one of the tests' own; the real one is in the queue. */
#include "spool_fixture.h"

enum { MIB = 1 << 20, MAIL = 40, OLD_ENOUGH_MS = 3600000 };

typedef struct mail {           /* what the test knows of one message */
    uint64_t id;
    spool_place home, body;
    spool_segment *state;       /* of the newest outcome */
    unsigned version;           /* of it; 0: none */
    size_t length;
    bool is_live;
} mail;

static bool is_known(fixture *self, uint32_t serial)
{
    return spool_shard_segment(self->shard, serial) != NULL;
}

static mail arrive(fixture *self, size_t length)
{
    item *one = append(self, length);
    mail made = {.id = one->op.id, .home = one->op.place, .body = one->op.body_place, .length = length, .is_live = true};
    item_free(one);
    return made;
}

static void say(fixture *self, mail *one, spool_segment *about, spool_segment *previous, unsigned version)
{
    char text[32];
    snprintf(text, sizeof text, "%llu %u", (unsigned long long)one->id, version);
    item *made = calloc(1, sizeof *made);
    made->op = (spool_op){.kind = SPOOL_OUTCOME, .id = one->id, .payload = octets_copy((const uint8_t *)text, strlen(text)),
                          .about = about, .previous_state = previous, .done = item_done, .context = made};
    spool_shard_submit(self->shard, &made->op);
    CHECK(wait_for(self, made) == 0, "outcome");
    one->state = made->op.place.segment;
    one->version = version;
    item_free(made);
}

static void end(fixture *self, mail *one)
{
    spool_shard_free(self->shard, one->id, one->home.segment, one->state, (uint64_t)one->home.length + one->body.length);
    one->is_live = false;
}

static item *copy_of(fixture *self, const mail *one)
{
    octets *envelope = NULL, *body = NULL;
    CHECK(read_place(self, one->home, &envelope) == 0 && read_place(self, one->body, &body) == 0, "read for the copy");
    spool_envelope_mark_copy(envelope->data, one->version != 0);
    item *made = calloc(1, sizeof *made);
    made->op = (spool_op){.kind = SPOOL_ENVELOPE, .id = one->id, .payload = envelope, .body = body, .is_copy = true,
                          .done = item_done, .context = made};
    spool_shard_submit(self->shard, &made->op);
    CHECK(wait_for(self, made) == 0, "copy");
    return made;
}

/* The newest copy counts, with the newest outcome; a message is met once; freed ones are gone. */
static void check_disk(fixture *self, mail *all, unsigned count, const char *when)
{
    static found_list found;
    settle(self);                               /* files do not change while they are copied */
    fixture copy = fixture_crash_copy(self);
    fixture_open(&copy);
    recover_all(&copy, &found);
    for (unsigned i = 0; i < found.count; i++)
        for (unsigned k = i + 1; k < found.count; k++)
            CHECK(found.items[i].id != found.items[k].id, "%s: a message was handed out twice", when);
    for (unsigned i = 0; i < count; i++) {
        const found_message *message = find(&found, all[i].id);
        if (message == NULL) {
            CHECK(!all[i].is_live, "%s: a live message is not found", when);
            continue;
        }
        CHECK(all[i].is_live, "%s: a message that was over came back", when);
        CHECK(check_body(&copy, message, all[i].length) == 0, "%s: body", when);
        if (all[i].is_live && all[i].version != 0) {
            char text[32];
            snprintf(text, sizeof text, "%llu %u", (unsigned long long)all[i].id, all[i].version);
            CHECK(message->state != NULL && message->state->length == strlen(text)
                  && memcmp(message->state->data, text, strlen(text)) == 0, "%s: an old outcome, wanted %s", when, text);
        }
    }
    found_clear(&found);
    /* And what that recovery found out must hold over another one, after it has written what it had to. */
    settle(&copy);
    fixture again = fixture_crash_copy(&copy);
    fixture_open(&again);
    recover_all(&again, &found);
    for (unsigned i = 0; i < count; i++)
        CHECK(!all[i].is_live || find(&found, all[i].id) != NULL, "%s: lost at the second start", when);
    found_clear(&found);
    fixture_remove(&again);
    fixture_remove(&copy);
}

static void a_copy_counts_only_with_the_outcome_that_goes_with_it(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    mail one = arrive(&self, 1000);
    say(&self, &one, one.home.segment, NULL, 1);
    churn(&self, 1);
    item *copy = copy_of(&self, &one);
    fixture after = fixture_crash_copy(&self);
    fixture_open(&after);
    recover_all(&after, &found);
    CHECK(found.count == 1 && spool_segment_serial(found.items[0].place.segment) == spool_segment_serial(one.home.segment),
          "the old one has its outcome, the copy has not");
    CHECK(found.items[0].state != NULL, "outcome");
    /* It ends: the copy must not come back either. */
    spool_shard_free(after.shard, one.id, found.items[0].place.segment, found.items[0].state_segment, 0);
    settle(&after);
    found_clear(&found);
    fixture last = fixture_crash_copy(&after);
    fixture_open(&last);
    recover_all(&last, &found);
    CHECK(found.count == 0, "%u ghosts", found.count);
    found_clear(&found);
    fixture_remove(&last);
    fixture_remove(&after);
    item_free(copy);
    fixture_remove(&self);
}

static void the_newest_copy_is_the_message_and_the_old_one_is_freed_by_recovery(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    mail one = arrive(&self, 1000);
    say(&self, &one, one.home.segment, NULL, 1);
    uint32_t old = spool_segment_serial(one.home.segment);
    churn(&self, 1);
    item *copy = copy_of(&self, &one);
    say(&self, &one, copy->op.place.segment, NULL, 2);
    check_disk(&self, &one, 1, "copied, old one not freed");

    fixture after = fixture_crash_copy(&self);
    fixture_open(&after);
    recover_all(&after, &found);
    CHECK(found.count == 1 && spool_segment_serial(found.items[0].place.segment) > old, "%u found", found.count);
    CHECK(found.items[0].state != NULL, "the outcome goes with the message, wherever that lies");
    settle(&after);
    churn(&after, 2);
    settle(&after);
    CHECK(!is_known(&after, old), "nothing keeps the old segment");
    /* Now the message ends: neither copy may come back. */
    spool_shard_free(after.shard, one.id, found.items[0].place.segment, found.items[0].state_segment, 0);
    churn(&after, 3);
    settle(&after);
    found_clear(&found);
    fixture last = fixture_crash_copy(&after);
    fixture_open(&last);
    recover_all(&last, &found);
    CHECK(found.count == 0, "%u ghosts", found.count);
    found_clear(&found);
    fixture_remove(&last);
    fixture_remove(&after);
    item_free(copy);
    fixture_remove(&self);
}

static void freeing_a_copy_leaves_the_original(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    mail one = arrive(&self, 1000);
    churn(&self, 1);
    item *copy = copy_of(&self, &one);
    spool_shard_free(self.shard, one.id, copy->op.place.segment, NULL, 0);
    settle(&self);
    fixture after = fixture_crash_copy(&self);
    fixture_open(&after);
    recover_all(&after, &found);
    CHECK(found.count == 1 && spool_segment_serial(found.items[0].place.segment) == spool_segment_serial(one.home.segment), "%u found", found.count);
    CHECK(check_body(&after, &found.items[0], 1000) == 0, "body");
    found_clear(&found);
    fixture_remove(&after);
    item_free(copy);
    fixture_remove(&self);
}

static void a_failed_write_of_a_copy_is_not_the_end_of_the_message(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    mail one = arrive(&self, 1000);
    churn(&self, 1);
    octets *envelope = NULL, *body = NULL;
    CHECK(read_place(&self, one.home, &envelope) == 0 && read_place(&self, one.body, &body) == 0, "read");
    spool_envelope_mark_copy(envelope->data, false);
    item *made = calloc(1, sizeof *made);
    made->op = (spool_op){.kind = SPOOL_ENVELOPE, .id = one.id, .payload = envelope, .body = body, .is_copy = true,
                          .done = item_done, .context = made};
    SET(write_errno, EIO);
    spool_shard_submit(self.shard, &made->op);
    CHECK(wait_for(&self, made) != 0, "the write fails");
    SET(write_errno, 0);
    item_free(append_when_served_again(&self, 100));
    settle(&self);
    fixture after = fixture_crash_copy(&self);
    fixture_open(&after);
    recover_all(&after, &found);
    CHECK(find(&found, one.id) != NULL, "lost with its copy");
    found_clear(&found);
    fixture_remove(&after);
    item_free(made);
    fixture_remove(&self);
}

/* --- emptying a victim --- */

static mail *mail_of(mail *all, unsigned count, uint64_t id)
{
    for (unsigned i = 0; i < count; i++)
        if (all[i].id == id && all[i].is_live)
            return &all[i];
    return NULL;
}

static bool checks_moves;

static void move(fixture *self, mail *one, mail *all, unsigned count)
{
    item *copy = copy_of(self, one);
    if (checks_moves)
        check_disk(self, all, count, "copied");
    spool_segment *old_state = one->state;
    spool_segment *old_home = one->home.segment;
    uint64_t octets_count = (uint64_t)one->home.length + one->body.length;
    if (one->version != 0)
        say(self, one, copy->op.place.segment, NULL, one->version);
    if (checks_moves)
        check_disk(self, all, count, "outcome copied");
    spool_shard_free(self->shard, one->id, old_home, old_state, octets_count);
    one->home = copy->op.place;
    one->body = copy->op.body_place;
    item_free(copy);
}

static void read_index(fixture *self, spool_segment *segment, reading *index)
{
    *index = (reading){.op = {.place = {.segment = segment}, .wants_index = true, .done = reading_done}};
    index->op.context = index;
    spool_shard_read(self->shard, &index->op);
    for (int i = 0; i < 500 && !index->is_done; i++)
        turn(self, 20);
}

static unsigned only_own, of_others;    /* FREED records that were met, as the spool tells them apart */

static void empty(fixture *self, spool_segment *victim, mail *all, unsigned count)
{
    reading index;
    read_index(self, victim, &index);
    CHECK(index.op.error == 0 && index.op.out != NULL, "index");
    uint32_t entries = 0;
    CHECK(spool_index_check(index.op.out->data, index.op.out->length, self->options.segment_octets, &entries), "index octets");
    for (uint32_t i = 0; i < entries; i++) {
        spool_index_entry entry = spool_index_at(index.op.out->data, i);
        if (entry.kind == SPOOL_FREED) {
            octets *ids = NULL;
            bool frees_others = spool_segment_frees_others(victim, entry.offset);
            CHECK(read_place(self, (spool_place){victim, entry.offset, entry.length}, &ids) == 0, "freed record");
            only_own += !frees_others;
            of_others += frees_others;
            for (size_t at = 0; at + SPOOL_FREED_ENTRY_OCTETS <= ids->length; at += SPOOL_FREED_ENTRY_OCTETS) {
                uint64_t id;
                uint32_t home;
                memcpy(&id, ids->data + at, 8);
                memcpy(&home, ids->data + at + 8, 4);
                CHECK(frees_others || home == spool_segment_serial(victim), "home %u is forgotten", home);
                spool_shard_free_again(self->shard, id, home, victim);
            }
            octets_unref(ids);
            continue;
        }
        mail *one = mail_of(all, count, entry.id);
        if (one == NULL)
            continue;
        if (entry.kind == SPOOL_ENVELOPE && one->home.segment == victim)
            move(self, one, all, count);
        else if (entry.kind == SPOOL_OUTCOME && one->state == victim)
            say(self, one, one->home.segment, victim, one->version);
    }
    octets_unref(index.op.out);
    for (int i = 0; i < 100 && spool_shard_repeats_under_way(victim) > 0; i++)
        turn(self, 20);
    spool_shard_victim_done(self->shard, victim, spool_shard_repeats_under_way(victim) == 0, 0);
}

static bool compact(fixture *self, mail *all, unsigned count)
{
    spool_segment *victim = spool_shard_victim(self->shard, now_ms() + OLD_ENOUGH_MS, false);
    if (victim == NULL)
        return false;
    empty(self, victim, all, count);
    settle(self);
    return true;
}

static void one_message_that_stays_keeps_a_fixed_number_of_segments(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    recover_all(&self, &found);
    mail all[3];
    for (unsigned i = 0; i < 3; i++) {
        all[i] = arrive(&self, 1000);
        churn(&self, 5);
        say(&self, &all[i], all[i].home.segment, NULL, 1);
    }
    churn(&self, 5);
    settle(&self);
    uint32_t before = statistics(&self).segments;
    CHECK(before > 15, "%u segments: without compaction each keeps the next", before);
    for (int i = 0; i < 60 && compact(&self, all, 3); i++)
        if (i % 6 == 0)
            check_disk(&self, all, 3, "after a victim");
    settle(&self);
    CHECK(statistics(&self).segments <= 4 + 1, "%u segments", statistics(&self).segments);
    CHECK(file_count(&self) <= 4 + 1 + 2 + 1, "%u files", file_count(&self));
    for (unsigned i = 0; i < 3; i++)
        end(&self, &all[i]);
    settle(&self);
    check_disk(&self, all, 3, "over");
    fixture_remove(&self);
}

/* A message keeps its segment, the freed records about its neighbours keep the next, and so on. At rest only those are given,
 * young as they are, never what has to be moved; the first of them lets go of all behind it. */
static void a_chain_is_let_go_of_while_the_compaction_rests(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    recover_all(&self, &found);
    mail stays = arrive(&self, 1000);
    churn(&self, 9);
    mail waits = arrive(&self, 1000);
    churn(&self, 1);
    say(&self, &waits, waits.home.segment, NULL, 1);
    churn(&self, 9);
    settle(&self);
    uint32_t before = statistics(&self).segments, given = 0;
    CHECK(before > 15, "%u segments", before);
    pause_ms(50);
    spool_segment *victim;
    while (given < before && (victim = spool_shard_victim(self.shard, now_ms(), true)) != NULL) {
        given++;
        CHECK(victim != stays.home.segment && victim != waits.home.segment && victim != waits.state, "segment %u is to be moved",
              spool_segment_serial(victim));
        mail all[2] = {stays, waits};
        empty(&self, victim, all, 2);
        settle(&self);
    }
    CHECK(given > 0 && given < 6, "%u at rest", given);
    CHECK(statistics(&self).segments <= 8, "%u segments are left", statistics(&self).segments);
    mail all[2] = {stays, waits};
    check_disk(&self, all, 2, "after the rest");
    fixture_remove(&self);
}

/* What was just sealed is left alone for two seconds as long as a spool is near its bound; less, the more segments there are beyond. */
static void the_more_segments_are_beyond_the_bound_the_younger_they_may_be(void)
{
    enum { YOUNG_MS = 2000, CALM_SEGMENTS = 12 };
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    recover_all(&self, &found);
    for (int i = 0; i < 12; i++) {
        arrive(&self, 1000);
        churn(&self, 1);
    }
    settle(&self);
    CHECK(spool_shard_victim(self.shard, now_ms(), false) == NULL, "a young one");
    uint32_t excess = statistics(&self).excess_segments;
    CHECK(excess >= 6 && excess <= CALM_SEGMENTS && spool_shard_haste(self.shard) == 1, "%u beyond", excess);
    for (int i = 0; i < 8; i++) {
        arrive(&self, 1000);
        churn(&self, 1);
    }
    settle(&self);
    uint64_t now = now_ms();
    CHECK(spool_shard_victim(self.shard, now, false) == NULL, "a young one");
    uint32_t haste = spool_shard_haste(self.shard);
    excess = statistics(&self).excess_segments;
    CHECK(excess > CALM_SEGMENTS && haste > excess - CALM_SEGMENTS, "%u beyond, %u times as fast", excess, haste);
    spool_segment *victim;
    unsigned with_mail = 0;     /* those with nothing but freed entries come first, and are not given twice */
    while ((victim = spool_shard_victim(self.shard, now + YOUNG_MS / haste, false)) != NULL)
        with_mail += spool_segment_has_live(victim);
    CHECK(with_mail > 0, "none, with %u beyond", excess);
    fixture_remove(&self);
}

/* Mail that comes faster than segments are emptied: it waits, each commit for its own octets, until there are fewer. */
static void new_mail_waits_while_compaction_does_not_keep_up(void)
{
    enum { HOLD_SEGMENTS = 14 };
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    recover_all(&self, &found);
    for (int i = 0; i < 20; i++) {
        arrive(&self, 1000);
        churn(&self, 1);
    }
    settle(&self);
    CHECK(statistics(&self).held_us == 0, "held before anybody looked: %llu us", (unsigned long long)statistics(&self).held_us);
    CHECK(spool_shard_victim(self.shard, now_ms(), false) == NULL, "a young one");
    uint32_t excess = statistics(&self).excess_segments;
    CHECK(excess > HOLD_SEGMENTS, "%u beyond", excess);
    churn(&self, 1);
    uint64_t held_us = statistics(&self).held_us;
    CHECK(held_us > 0, "not held, with %u beyond", excess);

    mail kept = arrive(&self, 1000);            /* one message long after the last sync */
    pause_ms(100);
    held_us = statistics(&self).held_us;
    kept = arrive(&self, 1000);
    CHECK(statistics(&self).held_us == held_us, "a lone message was held %llu us",
          (unsigned long long)(statistics(&self).held_us - held_us));
    mail all[1] = {kept};
    check_disk(&self, all, 1, "after it was held");
    fixture_remove(&self);
}

static void file_of(fixture *self, char *out, size_t size, uint32_t serial)
{
    char path[128];
    for (unsigned slot = 0; slot < 16; slot++) {
        snprintf(path, sizeof path, "%s/00/seg-%04u.ang", self->path, slot);
        int fd = open(path, O_RDONLY);
        uint8_t block[SPOOL_HEADER_OCTETS];
        spool_segment_header header;
        if (fd < 0)
            continue;
        if (pread(fd, block, sizeof block, 0) == (ssize_t)sizeof block && spool_header_decode(block, &header) == 0 && header.serial == serial)
            snprintf(out, size, "%s", path);
        close(fd);
    }
}

/* Nothing found would mean that nothing in it matters any more: outcomes would be given up, delivered mail come back. */
static void an_index_that_cannot_be_read_whole_is_none(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    recover_all(&self, &found);
    mail one = arrive(&self, 1000);
    churn(&self, 2);
    say(&self, &one, one.home.segment, NULL, 1);
    churn(&self, 2);
    settle(&self);
    spool_segment *segment = one.state;
    char path[128] = "", away[140];
    file_of(&self, path, sizeof path, spool_segment_serial(segment));
    CHECK(path[0] != 0, "no file of segment %u", spool_segment_serial(segment));
    snprintf(away, sizeof away, "%s.away", path);
    reading index;
    CHECK(rename(path, away) == 0, "rename");
    read_index(&self, segment, &index);
    CHECK(index.op.error == ENOENT && index.op.out == NULL, "file away: %d", index.op.error);
    CHECK(rename(away, path) == 0, "rename");

    read_index(&self, segment, &index);
    CHECK(index.op.error == 0, "whole: %d", index.op.error);
    uint32_t entries = 0;
    spool_index_check(index.op.out->data, index.op.out->length, self.options.segment_octets, &entries);
    int fd = open(path, O_WRONLY);
    uint8_t zeros[SPOOL_HEADER_OCTETS] = {0};
    CHECK(pwrite(fd, zeros, sizeof zeros, MIB - SPOOL_HEADER_OCTETS) == (ssize_t)sizeof zeros, "no locator: no footer");
    octets *whole = index.op.out;
    read_index(&self, segment, &index);
    CHECK(index.op.error == 0, "without footer: %d", index.op.error);
    octets_unref(index.op.out);
    for (uint32_t i = 0; i < entries; i++) {
        spool_index_entry entry = spool_index_at(whole->data, i);
        uint8_t before, after;
        int in = open(path, O_RDONLY);
        CHECK(pread(in, &before, 1, entry.offset + 20) == 1, "read");
        close(in);
        after = before ^ 1;
        CHECK(pwrite(fd, &after, 1, entry.offset + 20) == 1, "write");
        read_index(&self, segment, &index);
        CHECK(index.op.error == EBADMSG && index.op.out == NULL, "record %u of %u is damaged: %d", i, entries, index.op.error);
        CHECK(pwrite(fd, &before, 1, entry.offset + 20) == 1, "write");
    }
    octets_unref(whole);
    close(fd);
    fixture_remove(&self);
}

static void random_mail_with_compaction_survives_a_crash_at_any_step(void)
{
    static found_list found;
    for (unsigned seed = 1; seed <= 2; seed++) {
        srand(seed);
        fixture self = fixture_make(MIB, 1);
        recover_all(&self, &found);
        mail all[MAIL * 4];
        unsigned count = 0, compactions = 0;
        checks_moves = false;
        for (int step = 0; step < 120; step++) {
            unsigned pick = count == 0 ? 0 : (unsigned)rand() % count;
            switch (rand() % 8) {
            case 0: case 1: case 2:
                if (count < MAIL * 4)
                    all[count++] = arrive(&self, (size_t)(rand() % 60000));
                break;
            case 3: case 4:
                if (count > 0 && all[pick].is_live)
                    say(&self, &all[pick], all[pick].home.segment, all[pick].state, all[pick].version + 1);
                break;
            case 5:
                if (count > 0 && all[pick].is_live)
                    end(&self, &all[pick]);
                break;
            case 6:
                churn(&self, 3);
                break;
            default:
                checks_moves = step % 40 == 7;
                for (int i = 0; i < 4 && compact(&self, all, count); i++)
                    compactions++;
            }
            if (step % 37 == 0)
                check_disk(&self, all, count, "at some step");
        }
        CHECK(compactions > 3, "%u compactions", compactions);
        check_disk(&self, all, count, "at the end");
        fixture_remove(&self);
    }
}

/* --- what is on its way while a victim ends --- */

/* Reads what has happened without handing over what waits. */
static void reap_for_a_while(fixture *self)
{
    for (int i = 0; i < 20; i++) {
        while (spool_shard_reap(self->shard, 64))
            ;
        pause_ms(5);
    }
}

/* A message ends while the segment of its newest outcome is being emptied. Whoever empties it finds the message no more; but a
 * crash would, with an outcome from long ago, were that segment to go before the end is durable. */
static void an_outcome_stays_until_the_end_of_its_message_is_durable(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    recover_all(&self, &found);
    mail one = arrive(&self, 400000);
    churn(&self, 1);
    say(&self, &one, one.home.segment, NULL, 1);
    churn(&self, 1);
    spool_segment *victim = NULL, *others[16];
    unsigned count = 0;
    for (int i = 0; i < 6; i++)
        churn(&self, 2);
    settle(&self);
    while ((victim = spool_shard_victim(self.shard, now_ms() + OLD_ENOUGH_MS, false)) != NULL && victim != one.state && count < 16)
        others[count++] = victim;
    CHECK(victim == one.state, "the segment of the outcome is not given");
    uint32_t serial = spool_segment_serial(victim);
    end(&self, &one);
    spool_shard_victim_done(self.shard, victim, true, 0);
    reap_for_a_while(&self);
    CHECK(is_known(&self, serial), "the outcome went before the end of its message was durable");
    while (count > 0)
        spool_shard_victim_done(self.shard, others[--count], false, 0);
    settle(&self);
    settle(&self);
    CHECK(!is_known(&self, serial), "kept for nothing");
    fixture_remove(&self);
}

/* A freed record is to be repeated about a segment whose header is just being written as free. */
static void a_home_that_is_just_going_is_waited_for(int header_errno, int64_t expected)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    recover_all(&self, &found);
    mail alone = arrive(&self, 1000);
    spool_segment *home = alone.home.segment;
    uint32_t serial = spool_segment_serial(home);
    mail pinned[2];                                 /* so that there is something to compact */
    for (int i = 0; i < 2; i++) {
        churn(&self, 3);
        pinned[i] = arrive(&self, 1000);
        say(&self, &pinned[i], alone.home.segment, NULL, 1);
    }
    churn(&self, 3);
    settle(&self);
    spool_segment *victim = spool_shard_victim(self.shard, now_ms() + OLD_ENOUGH_MS, false), *first = NULL;
    if (victim == home) {
        first = victim;
        victim = spool_shard_victim(self.shard, now_ms() + OLD_ENOUGH_MS, false);
        spool_shard_victim_done(self.shard, first, false, 0);
    }
    CHECK(victim != NULL, "nothing to compact");
    spool_shard_hurry(self.shard);
    end(&self, &alone);
    struct pollfd ready = {spool_shard_event_fd(self.shard), POLLIN, 0};
    spool_shard_kick(self.shard, now_ms());
    CHECK(poll(&ready, 1, 5000) == 1, "the end is not durable");
    SET(is_held, true);
    while (spool_shard_reap(self.shard, 64))
        ;
    for (int i = 0; i < 1000 && GET(waiting) == 0; i++)
        pause_ms(1);
    CHECK(GET(waiting) > 0, "the home is not given back");
    spool_shard_free_again(self.shard, alone.id, serial, victim);
    CHECK(spool_shard_repeats_under_way(victim) == 1, "not waited for");
    SET(write_errno, header_errno);
    SET(is_held, false);
    for (int i = 0; i < 200 && spool_shard_repeats_under_way(victim) > 0; i++)
        turn(&self, 20);
    SET(write_errno, 0);
    CHECK(spool_shard_repeats_under_way(victim) == expected, "%lld", (long long)spool_shard_repeats_under_way(victim));
    CHECK(is_known(&self, serial) == (expected < 0), "the home");
    spool_shard_victim_done(self.shard, victim, false, 0);
    fixture_remove(&self);
}

static void repeats_about_a_home_that_is_just_going_wait_for_the_word(void)
{
    a_home_that_is_just_going_is_waited_for(0, 0);
    a_home_that_is_just_going_is_waited_for(EIO, -1);
}

static uint32_t fill_with_nothing(fixture *self)
{
    item *one = submit(self, SPOOL_BODY, 1, pattern(1, 100000), NULL);
    CHECK(wait_for(self, one) == 0, "body");
    uint32_t first = spool_segment_serial(one->op.place.segment), serial = first;
    for (item_free(one); serial == first; item_free(one)) {
        one = submit(self, SPOOL_BODY, 1, pattern(1, 100000), NULL);
        CHECK(wait_for(self, one) == 0, "body");
        serial = spool_segment_serial(one->op.place.segment);
    }
    return serial;
}

static spool_place put_chunk(fixture *self, uint64_t id, size_t length)
{
    item *one = submit(self, SPOOL_BODY, id, pattern(id, length), NULL);
    CHECK(wait_for(self, one) == 0, "chunk");
    spool_place place = one->op.place;
    item_free(one);
    return place;
}

/* An outcome of the old copy that reaches the disk in a torn batch, without the freed record beside it, makes the copy complete for
 * the next start. Its chunks must be there then. */
static void the_chunks_of_a_copy_cut_short_stay_until_it_is_durably_over(void)
{
    static found_list found;
    enum { LENGTH = 5000 };
    fixture self = fixture_make(MIB, 1);
    uint64_t id = spool_shard_next_id(self.shard);
    spool_place at = put_chunk(&self, id, LENGTH);
    spool_chunk chunk = {spool_segment_serial(at.segment), at.offset, at.length};
    item *original = submit(&self, SPOOL_ENVELOPE, id, envelope_of(id, LENGTH, &chunk, 1), NULL);
    CHECK(wait_for(&self, original) == 0, "envelope");
    mail one = {.id = id, .home = original->op.place, .is_live = true};
    say(&self, &one, one.home.segment, NULL, 1);
    fill_with_nothing(&self);
    at = put_chunk(&self, id, LENGTH);
    chunk = (spool_chunk){spool_segment_serial(at.segment), at.offset, at.length};
    uint32_t serial = chunk.segment_serial;
    fill_with_nothing(&self);
    octets *envelope = envelope_of(id, LENGTH, &chunk, 1);
    spool_envelope_mark_copy(envelope->data, true);
    item *copy = submit(&self, SPOOL_ENVELOPE, id, envelope, NULL);
    CHECK(wait_for(&self, copy) == 0 && spool_segment_serial(copy->op.place.segment) > serial, "copy");
    fixture after = fixture_crash_copy(&self);
    fixture_open(&after);
    recover_all(&after, &found);
    CHECK(found.count == 1 && found.items[0].place.segment != NULL
          && spool_segment_serial(found.items[0].place.segment) == spool_segment_serial(one.home.segment), "%u found", found.count);
    reap_for_a_while(&after);
    CHECK(is_known(&after, serial), "the copy's chunk went before the copy was durably over");
    CHECK(check_body(&after, &found.items[0], LENGTH) == 0, "body");
    settle(&after);
    CHECK(!is_known(&after, serial), "kept for nothing");
    found_clear(&found);
    fixture_remove(&after);
    item_free(original);
    item_free(copy);
    fixture_remove(&self);
}

int main(void)
{
    an_outcome_stays_until_the_end_of_its_message_is_durable();
    repeats_about_a_home_that_is_just_going_wait_for_the_word();
    the_chunks_of_a_copy_cut_short_stay_until_it_is_durably_over();
    a_copy_counts_only_with_the_outcome_that_goes_with_it();
    the_newest_copy_is_the_message_and_the_old_one_is_freed_by_recovery();
    freeing_a_copy_leaves_the_original();
    a_failed_write_of_a_copy_is_not_the_end_of_the_message();
    one_message_that_stays_keeps_a_fixed_number_of_segments();
    a_chain_is_let_go_of_while_the_compaction_rests();
    the_more_segments_are_beyond_the_bound_the_younger_they_may_be();
    new_mail_waits_while_compaction_does_not_keep_up();
    an_index_that_cannot_be_read_whole_is_none();
    random_mail_with_compaction_survives_a_crash_at_any_step();
    CHECK(only_own > 0 && of_others > 0, "%u freed records about their own only, %u about others", only_own, of_others);
    return check_report();
}
