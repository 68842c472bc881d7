/* Who of those that wait in one ready queue goes next: priority (RFC 6710) first; in a priority a share of the octets for each
 * tenant by its weight, for each campaign of a tenant, and for each domain of a campaign; of one domain first attempts before
 * old retries, and then who came first.
 *
 * Shares are those of deficit round robin, without its rounds: each tenant, campaign and domain has a tag, the octets that it
 * was given over its weight, and of those under one parent the one with the least tag has its turn (start-time fair queueing,
 * Goyal, Vin and Cheng 1996). A round costs a visit to everybody for each quantum of a large message; a heap costs log n a message.
 * Who begins to wait begins at the tag of the one served last, so that it goes before all who have had their share: a single
 * message behind a million of somebody else is the next. A tag stays for a while after its owner has no more, so that who comes
 * with one message at a time does not begin anew each time.
 *
 * Two of one parent who both wait are given the same (by weight) to within the largest message of each.
 *
 * Borrows the links; owns all else. Single-threaded.
 */
#ifndef ANGARIUM_QUEUE_FAIR_H
#define ANGARIUM_QUEUE_FAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAIR_LEVELS 19              /* priorities -9 to 9 */
#define FAIR_USUAL 9                /* the level of priority 0 */

/* Messages that go before others until one that would wait has its turn: of a lower priority, or an old retry. Judged: a
 * sixteenth of the way is little for those in front, and lets everybody else arrive. */
#define FAIR_MESSAGES_A_TURN 16

/* What a message counts beside its octets: a transaction keeps a connection busy for a round trip or two however short it is.
 * Judged: about what a connection sends meanwhile to a host nearby. */
#define FAIR_MESSAGE_OCTETS 4096

typedef struct fair_link {          /* as wheel_node begins; a circular list with a head */
    struct fair_link *next, *previous;
} fair_link;

typedef struct fair_node fair_node;

typedef struct fair_lists {         /* recipients of one domain */
    fair_link first, again;         /* heads: never tried, tried before */
    fair_node *node;                /* NULL: in no tree */
    uint32_t passed;                /* of `first`, since one of `again` had its turn */
} fair_lists;

typedef struct fair_flow {          /* whose mail it is. Numbers are never given twice, 0: nobody's */
    uint64_t tenant, campaign;      /* campaign: no two tenants have the same, but 0 */
    uint32_t weight;                /* of the tenant, 1 at least */
} fair_flow;

typedef struct fair_tree fair_tree;

struct fair_tree {
    uint32_t waiting;               /* bit i: somebody of level i waits */
    uint32_t passed, turn;          /* messages since a lower level had its turn, and which had it */
    bool is_aside;                  /* nobody is added any more, and nobody's share matters */
    fair_node *roots[FAIR_LEVELS];
    fair_node **buckets;            /* linear hashing: one more at a time */
    uint32_t bucket_count, bucket_base, bucket_capacity;
    uint32_t node_count;            /* beside roots */
    uint32_t idle_count;
    uint64_t turns;
    fair_link idle;                 /* nodes with nobody waiting, which keep their tag still */
    fair_tree *next;                /* the owner's */
};

void fair_lists_init(fair_lists *self);
bool fair_lists_empty(const fair_lists *self);

fair_tree *fair_tree_new(void);             /* NULL: out of memory */
void fair_tree_free(fair_tree *self);       /* NULL is harmless. Links that are still in it are forgotten */

/* Appends (or, at_front, prepends) a link. is_again: it was tried before. 0, or -1 when memory is out (nothing has changed). */
int fair_add(fair_tree *self, unsigned level, const fair_flow *flow, uint64_t domain, fair_link *link, bool is_again,
             bool at_front);

/* Moves all of `from`, which belong to one flow and domain, behind those of it in the tree. 0 or -1 likewise. */
int fair_adopt(fair_tree *self, unsigned level, const fair_flow *flow, uint64_t domain, fair_lists *from);

/* Takes a link out of whatever lists it is in; is_again as it was added. */
void fair_remove(fair_link *link, bool is_again);

/* The highest level that waits, and the one whose message goes now: as a rule the same, and once in a while the next one below the
 * one that had the last turn (RFC 6710 asks for no more than that higher ones go first; without end they must not). Somebody
 * waits. The second counts a message. */
unsigned fair_highest(const fair_tree *self);
unsigned fair_level_in_turn(fair_tree *self);

/* Whose turn it is on a level that waits. */
fair_lists *fair_foremost(const fair_tree *self, unsigned level);

/* Of lists that are not empty: whether one that was tried before goes next, and who it is. fair_pass() counts that it went. */
bool fair_is_again(const fair_lists *self);
fair_link *fair_next(const fair_lists *self);
void fair_pass(fair_lists *self, bool is_again);

/* Counts a message against everybody that these lists belong to. Before its links are removed. */
void fair_charge(fair_lists *self, uint64_t octets);

/* Gives back nodes that nobody waits in, and whose tags are past; a few at each call. */
void fair_tidy(fair_tree *self);

#endif
