/* Which segments may be used again, and when: pins of messages, outcomes and freed ids, also over restarts. */
#include "spool_fixture.h"

enum { MIB = 1 << 20 };

static uint32_t serial_of(const item *one)
{
    return spool_segment_serial(one->op.place.segment);
}

static bool is_known(fixture *self, uint32_t serial)
{
    return spool_shard_segment(self->shard, serial) != NULL;
}

/* Fills the current segment with settled messages so that the next op goes to a new one. */
static void next_segment(fixture *self)
{
    churn(self, 1);
    settle(self);
}

static void disk_use_stays_bounded(void)
{
    fixture self = fixture_make(MIB, 2);
    churn(&self, 30);
    settle(&self);
    CHECK(file_count(&self) <= 2 + 3, "%u files after 30 segments", file_count(&self));
    CHECK(statistics(&self).segments <= 3, "%u in use", statistics(&self).segments);
    fixture_close(&self);
    static found_list found;
    fixture_open(&self);
    recover_all(&self, &found);
    CHECK(found.count == 0, "%u ghosts", found.count);
    fixture_remove(&self);
}

/* The story: two messages in A; one is settled, its freed record lies in B. All of B's own mail is settled. Were B used again
 * now, a restart would find the settled message in A and nobody to say that it is over. */
static void freed_record_keeps_its_segment_until_the_home_is_gone(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    item *settled = append(&self, 100), *staying = append(&self, 100);
    uint32_t a = serial_of(settled);
    next_segment(&self);
    item *mark = append(&self, 100);
    uint32_t b = serial_of(mark);
    CHECK(b > a, "another segment");
    spool_shard_free(self.shard, settled->op.id, settled->op.place.segment, NULL, 0);
    spool_shard_free(self.shard, mark->op.id, mark->op.place.segment, NULL, 0);
    churn(&self, 4);
    settle(&self);
    CHECK(is_known(&self, a) && is_known(&self, b), "A is needed, so B is");

    fixture copy = fixture_crash_copy(&self);
    fixture_open(&copy);
    recover_all(&copy, &found);
    CHECK(found.count == 1 && find(&found, staying->op.id) != NULL, "%u found", found.count);
    churn(&copy, 4);                            /* the same again after the restart: pins come back with recovery */
    settle(&copy);
    CHECK(is_known(&copy, a) && is_known(&copy, b), "A is needed, so B is, after a restart");
    found_clear(&found);
    fixture second = fixture_crash_copy(&copy);
    fixture_open(&second);
    recover_all(&second, &found);
    CHECK(found.count == 1 && find(&found, staying->op.id) != NULL, "%u found after two restarts", found.count);
    spool_shard_free(second.shard, staying->op.id, found.items[0].place.segment, NULL, 0);
    churn(&second, 2);
    settle(&second);
    CHECK(!is_known(&second, a) && !is_known(&second, b), "both gone when the last message is");
    CHECK(file_count(&second) <= 5, "%u files", file_count(&second));
    found_clear(&found);
    fixture_remove(&second);
    fixture_remove(&copy);

    spool_shard_free(self.shard, staying->op.id, staying->op.place.segment, NULL, 0);
    churn(&self, 2);
    settle(&self);
    CHECK(!is_known(&self, a) && !is_known(&self, b), "both gone");
    item_free(settled), item_free(staying), item_free(mark);
    fixture_remove(&self);
}

/* The retirement of A and the new use of B are two writes; in between lies a crash. */
static void home_is_durably_free_before_its_records_go(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    item *settled = append(&self, 100), *staying = append(&self, 100);
    next_segment(&self);
    spool_shard_free(self.shard, settled->op.id, settled->op.place.segment, NULL, 0);
    churn(&self, 3);
    settle(&self);
    uint32_t a = serial_of(staying);
    SET(write_errno, EIO);                      /* A's header cannot be written */
    spool_shard_free(self.shard, staying->op.id, staying->op.place.segment, NULL, 0);
    settle(&self);
    SET(write_errno, 0);
    for (int i = 0; i < 60; i++)
        turn(&self, 20);
    churn(&self, 6);
    settle(&self);
    fixture copy = fixture_crash_copy(&self);
    fixture_open(&copy);
    recover_all(&copy, &found);
    CHECK(found.count == 0, "ghost: %u found, A %s", found.count, is_known(&self, a) ? "there" : "gone");
    found_clear(&found);
    fixture_remove(&copy);
    item_free(settled), item_free(staying);
    fixture_remove(&self);
}

/* One large message settled in its own segment: nothing elsewhere is about it. The next call goes to a new segment. */
static uint32_t fill_segment(fixture *self)
{
    item *filler = append(self, 700000);
    uint32_t serial = serial_of(filler);
    spool_shard_free(self->shard, filler->op.id, filler->op.place.segment, NULL, 0);
    turn(self, 0);
    pause_ms(SPOOL_LAZY_MS);
    settle(self);
    item_free(filler);
    return serial;
}

/* A becomes the one spare file, B behind it is unlinked at once: with A still saying "live" a restart would find the settled
 * message again, and B, which said that it is over, gone. */
static void spare_file_says_free_before_others_are_unlinked(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    item *settled = append(&self, 100), *staying = append(&self, 100);
    uint32_t a = serial_of(settled);
    CHECK(fill_segment(&self) == a, "A is full");
    spool_shard_free(self.shard, settled->op.id, settled->op.place.segment, NULL, 0);
    uint32_t b = fill_segment(&self);
    CHECK(b != a && fill_segment(&self) != b, "B is full");
    CHECK(is_known(&self, a) && is_known(&self, b), "both needed");
    spool_shard_free(self.shard, staying->op.id, staying->op.place.segment, NULL, 0);
    turn(&self, 0);
    pause_ms(SPOOL_LAZY_MS);
    settle(&self);
    CHECK(!is_known(&self, a) && !is_known(&self, b), "both gone");
    CHECK(segment_file(&self, b) < 0, "B is unlinked");
    fixture copy = fixture_crash_copy(&self);
    fixture_open(&copy);
    recover_all(&copy, &found);
    CHECK(found.count == 0, "%u ghosts", found.count);
    found_clear(&found);
    fixture_remove(&copy);
    item_free(settled), item_free(staying);
    fixture_remove(&self);
}

static void superseded_outcomes_do_not_pin(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    item *message = append(&self, 100), *outcomes[5], *previous = NULL;
    uint32_t serials[5], home = serial_of(message);
    CHECK(fill_segment(&self) == home, "the home's segment is full");
    for (int i = 0; i < 5; i++) {
        char text[] = "state 0";
        text[6] = (char)('0' + i);
        serials[i] = fill_segment(&self);
        outcomes[i] = submit_outcome(&self, message, previous, text);
        turn(&self, 0);
        pause_ms(SPOOL_LAZY_MS);
        CHECK(wait_for(&self, outcomes[i]) == 0 && serial_of(outcomes[i]) == serials[i], "outcome %d", i);
        previous = outcomes[i];
    }
    fill_segment(&self);
    for (int i = 0; i < 4; i++)
        CHECK(!is_known(&self, serials[i]), "outcome %d is superseded, its segment %u stays", i, serials[i]);
    CHECK(is_known(&self, serials[4]) && is_known(&self, home), "the newest and the home are needed");
    fixture copy = fixture_crash_copy(&self);
    fixture_open(&copy);
    recover_all(&copy, &found);
    CHECK(found.count == 1 && found.items[0].state != NULL && memcmp(found.items[0].state->data, "state 4", 7) == 0, "newest");
    churn(&copy, 3);
    settle(&copy);
    CHECK(is_known(&copy, serials[4]), "pinned after a restart");
    spool_shard_free(copy.shard, message->op.id, found.items[0].place.segment, found.items[0].state_segment, 0);
    churn(&copy, 2);
    settle(&copy);
    CHECK(!is_known(&copy, serials[4]), "gone with the message");
    found_clear(&found);
    fixture_remove(&copy);
    for (int i = 0; i < 5; i++)
        item_free(outcomes[i]);
    item_free(message);
    fixture_remove(&self);
}

static void newest_outcome_of_one_segment_wins(void)
{
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    item *message = append(&self, 100);
    item *one = submit_outcome(&self, message, NULL, "one"), *two = submit_outcome(&self, message, NULL, "two");
    item_free(append(&self, 10));
    CHECK(wait_for(&self, two) == 0, "outcome");
    fixture_close(&self);
    fixture_open(&self);
    recover_all(&self, &found);
    const found_message *back = find(&found, message->op.id);
    CHECK(back != NULL && back->state != NULL && memcmp(back->state->data, "two", 3) == 0, "two");
    found_clear(&found);
    item_free(message), item_free(one), item_free(two);
    fixture_remove(&self);
}

/* Random life: messages come, get outcomes, end, segments go round, the power is cut again and again. What is live comes back
 * with its newest durable state, nothing else does. */
static void random_life_with_power_cuts(void)
{
    enum { LIVE = 60, ROUNDS = 12 };
    static found_list found;
    fixture self = fixture_make(MIB, 1);
    struct { uint64_t id; spool_segment *home, *state; size_t length; char text[32]; } live[LIVE] = {0};
    uint32_t seed = 4711;
    for (int round = 0; round < ROUNDS; round++) {
        for (int step = 0; step < 400; step++) {
            seed = seed * 1664525u + 1013904223u;
            unsigned at = (seed >> 8) % LIVE;
            if (live[at].id == 0) {
                live[at].length = seed >> 13 & 0x7fff;
                item *one = append(&self, live[at].length);
                live[at].id = one->op.id, live[at].home = one->op.place.segment, live[at].state = NULL, live[at].text[0] = 0;
                item_free(one);
            } else if (seed >> 28 < 6) {
                item message = {.op = {.id = live[at].id, .place = {live[at].home, 0, 0}}};
                item previous = {.op = {.place = {live[at].state, 0, 0}}};
                snprintf(live[at].text, sizeof live[at].text, "%d/%d", round, step);
                item *one = submit_outcome(&self, &message, live[at].state != NULL ? &previous : NULL, live[at].text);
                item *ride = append(&self, 1000);
                CHECK(wait_for(&self, one) == 0, "outcome");
                live[at].state = one->op.place.segment;
                spool_shard_free(self.shard, ride->op.id, ride->op.place.segment, NULL, 0);
                item_free(one), item_free(ride);
            } else if (at % 10 != 0 || seed >> 28 == 6) {       /* a few live long */
                spool_shard_free(self.shard, live[at].id, live[at].home, live[at].state, 0);
                live[at].id = 0;
            }
        }
        item *last = append(&self, 10);         /* the freed ids are durable with it */
        spool_shard_free(self.shard, last->op.id, last->op.place.segment, NULL, 0);
        uint64_t last_id = last->op.id;
        item_free(last);
        fixture after = self;
        if (round % 3 == 2) {
            fixture_close(&self);
            after = self;
        } else
            after = fixture_crash_copy(&self);
        fixture_open(&after);
        recover_all(&after, &found);
        unsigned expected = 0;
        for (int i = 0; i < LIVE; i++)
            if (live[i].id != 0) {
                expected++;
                const found_message *back = find(&found, live[i].id);
                CHECK(back != NULL, "round %d: %llu lost", round, (unsigned long long)live[i].id);
                if (back == NULL)
                    continue;
                CHECK(check_body(&after, back, live[i].length) == 0, "round %d: body", round);
                CHECK((back->state == NULL) == (live[i].text[0] == 0), "round %d: has state", round);
                CHECK(back->state == NULL || (back->state->length == strlen(live[i].text)
                      && memcmp(back->state->data, live[i].text, back->state->length) == 0), "round %d: state", round);
                live[i].home = back->place.segment;
                live[i].state = back->state_segment;
            }
        const found_message *ghost = find(&found, last_id);     /* freed, but not yet durably */
        if (ghost != NULL)
            spool_shard_free(after.shard, last_id, ghost->place.segment, NULL, 0);
        CHECK(found.count - (ghost != NULL) == expected, "round %d: %u found, %u live", round, found.count, expected);
        found_clear(&found);
        if (self.shard != NULL) {
            char path[64];
            memcpy(path, self.path, sizeof path);
            fixture_remove(&self);
            CHECK(rename(after.path, path) == 0, "rename");
            memcpy(after.path, path, sizeof path);
        }
        self = after;
    }
    CHECK(statistics(&self).damaged_records == 0 && statistics(&self).torn_records == 0, "nothing damaged");
    CHECK(file_count(&self) < 40, "%u files", file_count(&self));
    fixture_remove(&self);
}

int main(void)
{
    disk_use_stays_bounded();
    freed_record_keeps_its_segment_until_the_home_is_gone();
    home_is_durably_free_before_its_records_go();
    spare_file_says_free_before_others_are_unlinked();
    superseded_outcomes_do_not_pin();
    newest_outcome_of_one_segment_wins();
    random_life_with_power_cuts();
    CHECK(octets_live_count() == 0, "%ld buffers leaked", octets_live_count());
    return check_report();
}
