/* What was submitted and what was promised about each message of a run: the book that every recovery is held against. */
#ifndef ANGARIUM_CRASH_PROMISES_H
#define ANGARIUM_CRASH_PROMISES_H

#include "crash/log.h"
#include "octets/octets.h"
#include "spool/envelope.h"

typedef enum promise_what {
    PROMISE_SUBMITTED,          /* the envelope has been handed to the shard: it may be on the disk from here on */
    PROMISE_ACKNOWLEDGED,       /* done with error 0 */
    PROMISE_OUTCOME_SUBMITTED,  /* version */
    PROMISE_OUTCOME_DURABLE,    /* version: done with error 0 */
    PROMISE_LEAVING,            /* freed, or refused: may be there or not */
    PROMISE_GONE,               /* and that is durable: must not be there */
    PROMISE_COPY_SUBMITTED,     /* a copy of it has been handed to the shard by compaction */
    PROMISE_KEPT,               /* handed out by a later start, with an outcome of that version: it stays */
} promise_what;

typedef struct promise {
    bool is_submitted, is_acknowledged, is_leaving, is_gone, is_copied;
    uint32_t outcome_durable, outcome_submitted;    /* versions from 1; 0: none */
} promise;

typedef struct book_message {
    uint64_t id;
    bool is_inline;
    octets *envelope, *body;            /* as submitted; an inline message's place of its body is not yet in the envelope */
} book_message;

typedef struct book {
    book_message *messages;
    promise *promises;
    uint32_t count, capacity;
} book;

/* `id` with a body and an envelope that follow from it. Streamed messages get their envelope from book_set_chunks. */
uint32_t book_add(book *self, uint64_t id, size_t body_octets);
void book_set_chunks(book *self, uint32_t message, const spool_chunk *chunks, uint32_t count);
octets *book_outcome(uint64_t id, uint32_t version);    /* one reference for the caller */
uint32_t book_outcome_version(const octets *state);     /* 0: not one of these */
uint32_t book_find(const book *self, uint64_t id);      /* UINT32_MAX: not known */
void book_apply(book *self, const log_event *event);    /* LOG_PROMISE; others are ignored */
void book_clear(book *self);
/* The same messages (one reference more) with nothing promised yet. */
book book_copy_without_promises(const book *from);

#endif
