/* The state of a message's recipients, as octets: the payload of a SPOOL_OUTCOME record.
 *
 * One record holds the whole state of all recipients in the order of the envelope and replaces every earlier one, so
 * that recovery needs only the newest. Opaque to the shard. The byte table stands at the top of state.c.
 */
#ifndef ANGARIUM_SPOOL_STATE_H
#define ANGARIUM_SPOOL_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "octets/octets.h"
#include "spool/envelope.h"

enum {                              /* spool_recipient_state.status */
    SPOOL_STATUS_WAITING = 0,
    SPOOL_STATUS_DELIVERED = 1,
    SPOOL_STATUS_FAILED = 2,
    SPOOL_STATUS_EXPIRED = 3,
};

enum {                              /* spool_recipient_state.flags; the shard does not look */
    SPOOL_STATE_DELAY_REPORTED = 1, /* a "delayed" DSN has gone out for this recipient */
    SPOOL_STATE_DSN_DONE = 2,       /* its failure or success needs no DSN any more */
};

enum { SPOOL_STATE_REPLY_LIMIT = 200, SPOOL_STATE_HOST_LIMIT = 100 };

typedef struct spool_recipient_state {
    uint8_t status;                 /* SPOOL_STATUS_* */
    uint8_t flags;                  /* SPOOL_STATE_* */
    uint16_t attempts;
    uint64_t next_attempt_utc_s;    /* 0: none planned */
    uint16_t reply_code;            /* last SMTP reply, 0: none (connection trouble, DNS ...) */
    uint8_t enhanced_class;         /* RFC 3463 class.subject.detail; all 0: none */
    uint16_t enhanced_subject, enhanced_detail;
    spool_span reply_text;          /* last reply, first line; at most 200 octets, control octets become "?" */
    spool_span remote_host;         /* at most 100 octets, likewise */
} spool_recipient_state;

typedef struct spool_state {        /* a checked view of state octets; spans point into them */
    uint32_t recipient_count;
    const uint8_t *entries;         /* first entry: where a cursor starts */
    const uint8_t *end;
} spool_state;

/* Building: begin, then one append per recipient in envelope order. Each may move *self and returns 0, -ENOMEM or
 * -EINVAL (unknown status). Longer texts are cut, control octets replaced: what a peer said never makes this fail. */
int spool_state_begin(octets **self);
int spool_state_append(octets **self, const spool_recipient_state *recipient);

/* Reading. Checks every length; 0 or -EBADMSG. The view lives as long as `data`. */
int spool_state_open(const uint8_t *data, size_t length, spool_state *out);
/* Iterates: *cursor starts as self->entries; false at the end. */
bool spool_state_next(const spool_state *self, const uint8_t **cursor, spool_recipient_state *out);

#endif
