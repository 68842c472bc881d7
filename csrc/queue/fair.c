#include "fair.h"

#include <stdlib.h>
#include <string.h>

/* An octet at weight 1 is so much of a tag: weights up to here divide without loss that would show. */
#define TAG_UNIT 1024u
#define BUCKETS_AT_FIRST 8u
#define TIDIED_AT_ONCE 4            /* more than one message can leave behind, so that idle nodes do not add up */

struct fair_node {
    fair_node *parent;              /* NULL: a root */
    fair_node *chained;             /* in the same bucket */
    uint64_t key;                   /* among the parent's children; of a root: its level */
    uint64_t tag;
    uint64_t turn;                  /* of equal tags the earlier one */
    fair_link idle;
    uint32_t position;              /* in the parent's heap, from 1; 0: idle */
    uint32_t children;              /* nodes there are, idle or not */
    uint32_t weight;
    bool is_leaf;
    union {
        fair_lists lists;
        struct {
            fair_node **heap;
            uint32_t count, capacity;
            uint64_t now;           /* tag of who was served last */
            fair_tree *tree;
        } inner;
    } of;
};

static void list_init(fair_link *head) { head->next = head->previous = head; }

static bool list_empty(const fair_link *head) { return head->next == head; }

static void list_append(fair_link *head, fair_link *link)
{
    link->next = head;
    link->previous = head->previous;
    head->previous->next = link;
    head->previous = link;
}

static void list_remove(fair_link *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
    link->next = link->previous = NULL;
}

static void list_move_all(fair_link *to, fair_link *from)
{
    if (list_empty(from))
        return;
    from->next->previous = to->previous;
    to->previous->next = from->next;
    from->previous->next = to;
    to->previous = from->previous;
    list_init(from);
}

void fair_lists_init(fair_lists *self)
{
    list_init(&self->first);
    list_init(&self->again);
    self->node = NULL;
    self->passed = 0;
}

bool fair_lists_empty(const fair_lists *self) { return list_empty(&self->first) && list_empty(&self->again); }

/* ---- heaps: position i has its children at 2i and 2i + 1 ---- */

static bool goes_before(const fair_node *a, const fair_node *b)
{
    return a->tag != b->tag ? a->tag < b->tag : a->turn < b->turn;
}

static void put(fair_node **heap, uint32_t position, fair_node *node)
{
    heap[position - 1] = node;
    node->position = position;
}

static void sift_up(fair_node **heap, fair_node *node)
{
    uint32_t at = node->position;
    while (at > 1 && goes_before(node, heap[at / 2 - 1])) {
        put(heap, at, heap[at / 2 - 1]);
        at /= 2;
    }
    put(heap, at, node);
}

static void sift_down(fair_node **heap, uint32_t count, fair_node *node)
{
    uint32_t at = node->position;
    while (at <= count / 2) {
        uint32_t least = 2 * at;
        if (least < count && goes_before(heap[least], heap[least - 1]))
            least++;
        if (!goes_before(heap[least - 1], node))
            break;
        put(heap, at, heap[least - 1]);
        at = least;
    }
    put(heap, at, node);
}

static void heap_remove(fair_node *parent, fair_node *node)
{
    fair_node **heap = parent->of.inner.heap;
    fair_node *last = heap[parent->of.inner.count - 1];
    uint32_t hole = node->position;
    parent->of.inner.count--;
    node->position = 0;
    if (last == node)
        return;
    put(heap, hole, last);
    sift_up(heap, last);
    sift_down(heap, parent->of.inner.count, last);
}

/* ---- nodes by parent and key ---- */

static uint64_t hash_of(const fair_node *parent, uint64_t key)
{
    uint64_t mixed = (uint64_t)(uintptr_t)parent * 0x9E3779B97F4A7C15u ^ key * 0xC2B2AE3D27D4EB4Fu;
    mixed ^= mixed >> 32;
    mixed *= 0x9E3779B97F4A7C15u;
    return mixed >> 32;
}

static uint32_t bucket_of(const fair_tree *self, const fair_node *parent, uint64_t key)
{
    uint64_t hash = hash_of(parent, key);
    uint32_t bucket = (uint32_t)(hash & (2 * self->bucket_base - 1));
    return bucket < self->bucket_count ? bucket : (uint32_t)(hash & (self->bucket_base - 1));
}

/* One bucket more, which takes its part of another's nodes. Without memory for it chains get longer. */
static void add_bucket(fair_tree *self)
{
    fair_node **from, *node;
    if (self->bucket_count == self->bucket_capacity) {
        fair_node **grown = realloc(self->buckets, 2 * (size_t)self->bucket_capacity * sizeof(*grown));
        if (grown == NULL)
            return;
        self->buckets = grown;
        self->bucket_capacity *= 2;
    }
    self->buckets[self->bucket_count] = NULL;
    from = &self->buckets[self->bucket_count - self->bucket_base];
    self->bucket_count++;
    while ((node = *from) != NULL) {
        uint32_t bucket = bucket_of(self, node->parent, node->key);
        if (bucket == self->bucket_count - 1) {
            *from = node->chained;
            node->chained = self->buckets[bucket];
            self->buckets[bucket] = node;
        } else {
            from = &node->chained;
        }
    }
    if (self->bucket_count == 2 * self->bucket_base)
        self->bucket_base *= 2;
}

static fair_node *child_of(fair_tree *self, fair_node *parent, uint64_t key, bool is_leaf)
{
    uint32_t bucket = bucket_of(self, parent, key);
    fair_node *node = self->buckets[bucket];
    while (node != NULL && (node->parent != parent || node->key != key))
        node = node->chained;
    if (node != NULL)
        return node;
    node = calloc(1, sizeof(*node));
    if (node == NULL)
        return NULL;
    node->parent = parent;
    node->key = key;
    node->weight = 1;
    node->is_leaf = is_leaf;
    if (is_leaf) {
        fair_lists_init(&node->of.lists);
        node->of.lists.node = node;
    } else {
        node->of.inner.tree = self;
    }
    node->chained = self->buckets[bucket];
    self->buckets[bucket] = node;
    parent->children++;
    list_append(&self->idle, &node->idle);      /* fair_add() takes it out, or it goes again */
    self->idle_count++;
    self->node_count++;
    if (self->node_count > self->bucket_count)
        add_bucket(self);
    return node;
}

static void forget(fair_tree *self, fair_node *node)
{
    fair_node **from = &self->buckets[bucket_of(self, node->parent, node->key)];
    while (*from != node)
        from = &(*from)->chained;
    *from = node->chained;
    node->parent->children--;
    list_remove(&node->idle);
    self->idle_count--;
    self->node_count--;
    if (!node->is_leaf)
        free(node->of.inner.heap);
    free(node);
}

/* ---- the tree ---- */

fair_tree *fair_tree_new(void)
{
    fair_tree *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return NULL;
    self->buckets = calloc(BUCKETS_AT_FIRST, sizeof(*self->buckets));
    if (self->buckets == NULL) {
        free(self);
        return NULL;
    }
    self->bucket_count = self->bucket_base = self->bucket_capacity = BUCKETS_AT_FIRST;
    list_init(&self->idle);
    return self;
}

void fair_tree_free(fair_tree *self)
{
    uint32_t i;
    if (self == NULL)
        return;
    for (i = 0; i < self->bucket_count; i++) {
        while (self->buckets[i] != NULL) {
            fair_node *node = self->buckets[i];
            self->buckets[i] = node->chained;
            if (!node->is_leaf)
                free(node->of.inner.heap);
            free(node);
        }
    }
    for (i = 0; i < FAIR_LEVELS; i++) {
        if (self->roots[i] != NULL)
            free(self->roots[i]->of.inner.heap);
        free(self->roots[i]);
    }
    free(self->buckets);
    free(self);
}

static fair_lists *lists_of(fair_tree *self, unsigned level, const fair_flow *flow, uint64_t domain)
{
    fair_node *node = self->roots[level];
    if (node == NULL) {
        node = self->roots[level] = calloc(1, sizeof(*node));
        if (node == NULL)
            return NULL;
        node->key = level;
        node->weight = 1;
        node->of.inner.tree = self;
    }
    node = child_of(self, node, flow->tenant, false);
    if (node == NULL)
        return NULL;
    node->weight = flow->weight != 0 ? flow->weight : 1;
    node = child_of(self, node, flow->campaign, false);
    if (node == NULL)
        return NULL;
    node = child_of(self, node, domain, true);
    return node != NULL ? &node->of.lists : NULL;
}

/* Room in the heaps of everybody above, so that activate() cannot fail half-way. */
static int make_room(const fair_node *node)
{
    fair_node *parent;
    for (; (parent = node->parent) != NULL && node->position == 0; node = parent) {
        if (parent->of.inner.count == parent->of.inner.capacity) {
            uint32_t capacity = parent->of.inner.capacity != 0 ? 2 * parent->of.inner.capacity : 2;
            fair_node **grown = realloc(parent->of.inner.heap, capacity * sizeof(*grown));
            if (grown == NULL)
                return -1;
            parent->of.inner.heap = grown;
            parent->of.inner.capacity = capacity;
        }
    }
    return 0;
}

static void activate(fair_tree *self, fair_node *node)
{
    fair_node *parent;
    for (; (parent = node->parent) != NULL; node = parent) {
        if (node->position != 0)
            return;
        list_remove(&node->idle);
        self->idle_count--;
        if (node->tag < parent->of.inner.now)
            node->tag = parent->of.inner.now;
        node->turn = ++self->turns;
        put(parent->of.inner.heap, ++parent->of.inner.count, node);
        sift_up(parent->of.inner.heap, node);
    }
    self->waiting |= 1u << node->key;
}

static void deactivate(fair_node *node)
{
    fair_node *root = node, *parent;
    fair_tree *self;
    while (root->parent != NULL)
        root = root->parent;
    self = root->of.inner.tree;
    for (; (parent = node->parent) != NULL; node = parent) {
        heap_remove(parent, node);
        list_append(&self->idle, &node->idle);
        self->idle_count++;
        if (parent->of.inner.count != 0)
            return;
    }
    self->waiting &= ~(1u << root->key);
}

int fair_add(fair_tree *self, unsigned level, const fair_flow *flow, uint64_t domain, fair_link *link, bool is_again,
             bool at_front)
{
    fair_lists *lists = lists_of(self, level, flow, domain);
    fair_link *head;
    if (lists == NULL || make_room(lists->node) != 0)
        return -1;
    head = is_again ? &lists->again : &lists->first;
    list_append(at_front ? head->next : head, link);        /* before the head is behind the last */
    if (lists->node->position == 0)
        activate(self, lists->node);
    return 0;
}

int fair_adopt(fair_tree *self, unsigned level, const fair_flow *flow, uint64_t domain, fair_lists *from)
{
    fair_lists *lists;
    if (fair_lists_empty(from))
        return 0;
    lists = lists_of(self, level, flow, domain);
    if (lists == NULL || make_room(lists->node) != 0)
        return -1;
    list_move_all(&lists->first, &from->first);
    list_move_all(&lists->again, &from->again);
    lists->passed = from->passed;
    if (lists->node->position == 0)
        activate(self, lists->node);
    return 0;
}

void fair_remove(fair_link *link, bool is_again)
{
    fair_link *head = link->next == link->previous ? link->next : NULL;     /* it is the only one */
    fair_lists *lists;
    list_remove(link);
    if (head == NULL)
        return;
    lists = (fair_lists *)(void *)((char *)head - (is_again ? offsetof(fair_lists, again) : offsetof(fair_lists, first)));
    if (lists->node != NULL && fair_lists_empty(lists))
        deactivate(lists->node);
}

unsigned fair_highest(const fair_tree *self) { return 31u - (unsigned)__builtin_clz(self->waiting); }

unsigned fair_level_in_turn(fair_tree *self)
{
    unsigned highest = fair_highest(self);
    uint32_t others = self->waiting & ~(1u << highest), below;
    if (others == 0) {
        self->passed = 0;
        return highest;
    }
    if (++self->passed < FAIR_MESSAGES_A_TURN)
        return highest;
    self->passed = 0;
    below = others & ((1u << self->turn) - 1);
    self->turn = 31u - (unsigned)__builtin_clz(below != 0 ? below : others);
    return self->turn;
}

fair_lists *fair_foremost(const fair_tree *self, unsigned level)
{
    fair_node *node = self->roots[level];
    while (!node->is_leaf)
        node = node->of.inner.heap[0];
    return &node->of.lists;
}

bool fair_is_again(const fair_lists *self)
{
    return !list_empty(&self->again) && (list_empty(&self->first) || self->passed + 1 >= FAIR_MESSAGES_A_TURN);
}

fair_link *fair_next(const fair_lists *self) { return fair_is_again(self) ? self->again.next : self->first.next; }

void fair_pass(fair_lists *self, bool is_again)
{
    self->passed = is_again || list_empty(&self->again) ? 0 : self->passed + 1;
}

void fair_charge(fair_lists *self, uint64_t octets)
{
    fair_node *node = self->node, *parent;
    octets = (octets + FAIR_MESSAGE_OCTETS) * TAG_UNIT;
    for (; node != NULL && (parent = node->parent) != NULL; node = parent) {
        fair_node **heap = parent->of.inner.heap;
        if (parent->of.inner.now < heap[0]->tag)
            parent->of.inner.now = heap[0]->tag;
        node->tag += octets / node->weight;
        sift_down(heap, parent->of.inner.count, node);
    }
}

void fair_tidy(fair_tree *self)
{
    int i;
    for (i = 0; i < TIDIED_AT_ONCE && self->idle_count != 0; i++) {
        fair_node *node = (fair_node *)(void *)((char *)self->idle.next - offsetof(fair_node, idle));
        fair_node *parent = node->parent;
        bool is_past = node->tag <= parent->of.inner.now || parent->of.inner.count == 0 || self->is_aside;
        if (node->children == 0 && is_past) {
            forget(self, node);
        } else {
            list_remove(&node->idle);
            list_append(&self->idle, &node->idle);
        }
    }
}
