/* Who goes next: invariants over random arrivals, removals and turns.
 *
 *  - nobody is lost, nobody comes twice;
 *  - of two under one parent who both wait all the time, octets over weight differ by no more than the largest message of each;
 *  - of one domain's recipients those never tried go in the order in which they came, so do those tried before, and while both
 *    wait one in FAIR_MESSAGES_A_TURN is of the latter;
 *  - who begins to wait is served before anybody else is served twice;
 *  - what nobody waits in is given back. */
#include "check.h"

#include "queue/fair.h"

#include <stdlib.h>
#include <string.h>

enum { TENANTS = 5, CAMPAIGNS = 3, DOMAINS = 4, LEVELS_USED = 3 };

typedef struct thing {
    fair_link link;
    unsigned level, tenant, campaign, domain;
    uint64_t octets, number;
    bool is_again, is_in;
} thing;

static uint64_t random_state = 88172645463325252;

static uint64_t random_below(uint64_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (random_state >> 11) % limit;
}

static fair_flow flow_of(unsigned tenant, unsigned campaign)
{
    return (fair_flow){tenant, campaign == 0 ? 0 : 100 * tenant + campaign, tenant + 1};
}

static int add(fair_tree *tree, thing *each)
{
    fair_flow flow = flow_of(each->tenant, each->campaign);
    each->is_in = true;
    return fair_add(tree, each->level, &flow, each->domain, &each->link, each->is_again, false);
}

static thing *take(fair_tree *tree)
{
    fair_lists *lists = fair_foremost(tree, fair_level_in_turn(tree));
    bool is_again = fair_is_again(lists);
    thing *each = (thing *)(void *)fair_next(lists);
    CHECK(each->is_again == is_again, "%d", is_again);
    fair_pass(lists, is_again);
    fair_charge(lists, each->octets);
    fair_remove(&each->link, is_again);
    fair_tidy(tree);
    each->is_in = false;
    return each;
}

static void nobody_is_lost_and_nothing_stays(void)
{
    enum { THINGS = 20000 };
    thing *things = calloc(THINGS, sizeof *things);
    fair_tree *tree = fair_tree_new();
    uint64_t in = 0, number = 0;
    for (int i = 0; i < 400000; i++) {
        thing *each = &things[random_below(THINGS)];
        bool is_filling = (i / 40000) % 2 == 0;
        if (each->is_in && !is_filling) {
            fair_remove(&each->link, each->is_again);
            each->is_in = false;
            in--;
        } else if (!each->is_in && is_filling) {
            *each = (thing){.level = (unsigned)random_below(FAIR_LEVELS), .tenant = (unsigned)random_below(50),
                            .campaign = (unsigned)random_below(CAMPAIGNS), .domain = (unsigned)random_below(200),
                            .octets = random_below(100000), .number = number++, .is_again = random_below(2)};
            CHECK(add(tree, each) == 0, "no memory");
            in++;
        }
        if (i % 2 == 0 && tree->waiting) {
            take(tree);
            in--;
        }
    }
    while (tree->waiting) {
        take(tree);
        in--;
    }
    CHECK(in == 0, "%u left", (unsigned)in);
    for (int i = 0; i < THINGS; i++)
        CHECK(!things[i].is_in, "%d is still in", i);
    for (int i = 0; i < 200000 && tree->node_count; i++)
        fair_tidy(tree);
    CHECK(tree->node_count == 0 && tree->idle_count == 0, "%u nodes stay", tree->node_count);
    fair_tree_free(tree);
    free(things);
}

/* Everybody has something waiting at any time: what was served is replaced by another of the same. */
static void shares_follow_weights(void)
{
    enum { EACH = 40 };
    static thing things[TENANTS][CAMPAIGNS][DOMAINS][EACH];
    double by_tenant[TENANTS] = {0}, by_campaign[TENANTS][CAMPAIGNS] = {{0}}, by_domain[TENANTS][CAMPAIGNS][DOMAINS] = {{{0}}};
    double largest[TENANTS] = {0}, most = 0;
    fair_tree *tree = fair_tree_new();
    for (unsigned t = 0; t < TENANTS; t++)
        for (unsigned c = 0; c < CAMPAIGNS; c++)
            for (unsigned d = 0; d < DOMAINS; d++)
                for (unsigned i = 0; i < EACH; i++) {
                    /* Tenants differ in the size of their messages by four orders of magnitude. */
                    uint64_t octets = random_below(t == 0 ? 50000000 : 1000u << t);
                    things[t][c][d][i] = (thing){.level = FAIR_USUAL, .tenant = t, .campaign = c, .domain = d, .octets = octets};
                    if ((double)octets + FAIR_MESSAGE_OCTETS > largest[t])
                        largest[t] = (double)octets + FAIR_MESSAGE_OCTETS;
                    add(tree, &things[t][c][d][i]);
                }
    for (unsigned t = 0; t < TENANTS; t++)
        most = largest[t] > most ? largest[t] : most;
    for (int i = 0; i < 300000; i++) {
        thing *each = take(tree);
        double cost = (double)each->octets + FAIR_MESSAGE_OCTETS;
        add(tree, each);
        by_tenant[each->tenant] += cost / (each->tenant + 1);
        by_campaign[each->tenant][each->campaign] += cost;
        by_domain[each->tenant][each->campaign][each->domain] += cost;
        for (unsigned t = 0; t < TENANTS; t++) {
            double apart = by_tenant[each->tenant] - by_tenant[t];
            double bound = largest[each->tenant] / (each->tenant + 1) + largest[t] / (t + 1) + 1;
            CHECK(apart <= bound, "tenants %u and %u are %.0f apart", each->tenant, t, apart);
        }
        for (unsigned c = 0; c < CAMPAIGNS; c++) {
            double apart = by_campaign[each->tenant][each->campaign] - by_campaign[each->tenant][c];
            CHECK(apart <= 2 * largest[each->tenant] + 1, "campaigns of %u are %.0f apart", each->tenant, apart);
        }
        for (unsigned d = 0; d < DOMAINS; d++) {
            double apart = by_domain[each->tenant][each->campaign][each->domain] - by_domain[each->tenant][each->campaign][d];
            CHECK(apart <= 2 * largest[each->tenant] + 1, "domains of %u are %.0f apart", each->tenant, apart);
        }
    }
    fair_tree_free(tree);
}

static void a_newcomer_waits_for_one_message_of_each_other_at_most(void)
{
    enum { BULK = 5000, OTHERS = 7 };
    thing *bulk = calloc(BULK * OTHERS, sizeof *bulk);
    for (int round = 0; round < 200; round++) {
        fair_tree *tree = fair_tree_new();
        uint64_t served = random_below(3000);
        thing reset = {.level = FAIR_USUAL, .tenant = 99, .domain = 3, .octets = 2000};
        unsigned before = 0;
        for (int i = 0; i < BULK * OTHERS; i++) {
            bulk[i] = (thing){.level = FAIR_USUAL, .tenant = 1 + (unsigned)(i % OTHERS), .domain = (unsigned)random_below(50),
                              .octets = random_below(30000)};
            add(tree, &bulk[i]);
        }
        while (served-- > 0)
            take(tree);
        add(tree, &reset);
        while (take(tree) != &reset)
            before++;
        CHECK(before <= OTHERS, "%u went before it", before);
        fair_tree_free(tree);
    }
    free(bulk);
}

/* One message at a time, the next as soon as it is gone: no more than its share all the same. */
static void who_comes_back_at_once_does_not_begin_anew(void)
{
    enum { BULK = 20000 };
    thing *bulk = calloc(BULK, sizeof *bulk);
    thing single = {.level = FAIR_USUAL, .tenant = 9, .domain = 1, .octets = 5000};
    unsigned times = 0;
    fair_tree *tree = fair_tree_new();
    for (int i = 0; i < BULK; i++) {
        bulk[i] = (thing){.level = FAIR_USUAL, .tenant = (unsigned)i % 4, .domain = 1, .octets = 5000};
        fair_flow flow = {bulk[i].tenant, 0, 1};
        fair_add(tree, FAIR_USUAL, &flow, 1, &bulk[i].link, false, false);
    }
    for (int i = 0; i < 10000; i++) {
        fair_flow flow = {9, 0, 1};
        if (!single.is_in)
            fair_add(tree, FAIR_USUAL, &flow, 1, &single.link, false, false);
        single.is_in = true;
        if (take(tree) == &single)
            times++;
    }
    CHECK(times >= 1990 && times <= 2010, "%u of 10000, and not a fifth", times);
    fair_tree_free(tree);
    free(bulk);
}

/* What others were given before somebody came is not made up for. */
static void who_comes_late_has_its_share_from_then_on(void)
{
    enum { EACH = 1000 };
    static thing old[2 * EACH], late[EACH];
    unsigned times = 0;
    fair_flow flow = {1, 0, 1}, other = {2, 0, 1};
    fair_tree *tree = fair_tree_new();
    for (int i = 0; i < 2 * EACH; i++) {
        old[i] = (thing){.octets = 1000};
        fair_add(tree, FAIR_USUAL, &flow, 1, &old[i].link, false, false);
    }
    for (int i = 0; i < EACH; i++)
        take(tree);
    for (int i = 0; i < EACH; i++) {
        late[i] = (thing){.tenant = 2, .octets = 1000};
        fair_add(tree, FAIR_USUAL, &other, 1, &late[i].link, false, false);
    }
    for (int i = 0; i < EACH; i++)
        times += take(tree)->tenant == 2;
    CHECK(times >= EACH / 2 - 1 && times <= EACH / 2 + 1, "%u of %d", times, EACH);
    fair_tree_free(tree);
}

/* All are there from the start: then the next is always of who has had the least, however others were taken out of the middle. */
static void the_next_is_of_who_has_had_the_least(void)
{
    enum { MANY = 300, EACH = 6 };
    static thing things[MANY][EACH];
    static double had[MANY];
    for (int round = 0; round < 30; round++) {
        fair_tree *tree = fair_tree_new();
        unsigned left[MANY];
        for (unsigned t = 0; t < MANY; t++) {
            had[t] = 0;
            left[t] = EACH;
            for (unsigned i = 0; i < EACH; i++) {
                fair_flow flow = {t + 1, 0, 1};
                things[t][i] = (thing){.tenant = t, .octets = random_below(100000), .is_in = true};
                fair_add(tree, FAIR_USUAL, &flow, 1, &things[t][i].link, false, false);
            }
        }
        while (tree->waiting) {
            unsigned gone = (unsigned)random_below(MANY);
            thing *each = take(tree);
            for (unsigned t = 0; t < MANY; t++)
                CHECK(left[t] == 0 || had[each->tenant] <= had[t], "%u before %u", each->tenant, t);
            had[each->tenant] += (double)each->octets + FAIR_MESSAGE_OCTETS;
            left[each->tenant]--;
            for (unsigned i = 0; i < EACH && random_below(3) == 0; i++) {
                if (things[gone][i].is_in) {
                    fair_remove(&things[gone][i].link, false);
                    things[gone][i].is_in = false;
                    left[gone]--;
                }
            }
        }
        fair_tree_free(tree);
    }
}

static void first_attempts_go_before_retries_but_for_one_in_sixteen(void)
{
    enum { THINGS = 1000 };
    static thing things[THINGS];
    fair_tree *tree = fair_tree_new();
    uint64_t last[2] = {0, 0};
    int again = 0, first = 0;
    for (int i = 0; i < THINGS; i++) {
        things[i] = (thing){.level = FAIR_USUAL, .number = (uint64_t)i + 1, .is_again = i < THINGS / 2};
        add(tree, &things[i]);
    }
    for (int i = 0; i < THINGS; i++) {
        thing *each = take(tree);
        CHECK(each->number > last[each->is_again], "%u behind %u", (unsigned)each->number, (unsigned)last[each->is_again]);
        last[each->is_again] = each->number;
        if (each->is_again)
            again++;
        else
            first++;
        if (first < THINGS / 2)
            CHECK(again == (first + again) / FAIR_MESSAGES_A_TURN, "%d retries with %d first attempts", again, first);
    }
    CHECK(again == first, "%d and %d", again, first);
    fair_tree_free(tree);
}

static void higher_priorities_go_first_and_each_lower_one_gets_turns(void)
{
    enum { EACH = 2000 };
    static thing things[LEVELS_USED][EACH];
    static const unsigned levels[LEVELS_USED] = {18, 9, 0};
    unsigned taken[FAIR_LEVELS] = {0};
    fair_tree *tree = fair_tree_new();
    for (int l = 0; l < LEVELS_USED; l++)
        for (unsigned i = 0; i < EACH; i++) {
            things[l][i] = (thing){.level = levels[l], .tenant = i % 3, .octets = 100};
            add(tree, &things[l][i]);
        }
    CHECK(fair_highest(tree) == 18, "%u", fair_highest(tree));
    for (int i = 0; i < 1600; i++)
        taken[take(tree)->level]++;
    CHECK(taken[18] == 1500 && taken[9] == 50 && taken[0] == 50, "%u %u %u", taken[18], taken[9], taken[0]);
    fair_tree_free(tree);
}

static void what_is_adopted_keeps_its_order_and_what_is_put_in_front_goes_first(void)
{
    fair_tree *tree = fair_tree_new();
    fair_lists alone;
    fair_flow nobody = {0, 0, 1};
    thing things[4] = {{.number = 0}, {.number = 1}, {.number = 2}, {.number = 3}};
    fair_lists_init(&alone);
    CHECK(fair_adopt(tree, FAIR_USUAL, &nobody, 7, &alone) == 0 && tree->waiting == 0, "nothing was to be had");
    for (int i = 1; i < 3; i++) {
        things[i].link.next = &alone.first;
        things[i].link.previous = alone.first.previous;
        alone.first.previous->next = &things[i].link;
        alone.first.previous = &things[i].link;
    }
    CHECK(fair_adopt(tree, FAIR_USUAL, &nobody, 7, &alone) == 0 && fair_lists_empty(&alone), "moved");
    fair_add(tree, FAIR_USUAL, &nobody, 7, &things[3].link, false, false);
    fair_add(tree, FAIR_USUAL, &nobody, 7, &things[0].link, false, true);
    for (uint64_t i = 0; i < 4; i++) {
        thing *each = take(tree);
        CHECK(each->number == i, "%u, not %u", (unsigned)each->number, (unsigned)i);
    }
    CHECK(tree->waiting == 0, "%x", tree->waiting);
    fair_tree_free(tree);
}

int main(void)
{
    nobody_is_lost_and_nothing_stays();
    shares_follow_weights();
    a_newcomer_waits_for_one_message_of_each_other_at_most();
    who_comes_back_at_once_does_not_begin_anew();
    who_comes_late_has_its_share_from_then_on();
    the_next_is_of_who_has_had_the_least();
    first_attempts_go_before_retries_but_for_one_in_sixteen();
    higher_priorities_go_first_and_each_lower_one_gets_turns();
    what_is_adopted_keeps_its_order_and_what_is_put_in_front_goes_first();
    return check_report();
}
