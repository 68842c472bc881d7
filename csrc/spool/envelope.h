/* The envelope: who a message is from and to, as octets, the same in memory and on disk.
 *
 * Built once while the transaction runs (server session), stored as the payload of a SPOOL_ENVELOPE record,
 * read back by the scheduler, the outbound connection and the DSN writer. Fields are length-prefixed, little-endian;
 * no field may hold NUL, CR or LF (the builder refuses). The byte table stands at the top of envelope.c.
 */
#ifndef ANGARIUM_SPOOL_ENVELOPE_H
#define ANGARIUM_SPOOL_ENVELOPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "octets/octets.h"

enum {                              /* envelope flags (u32) */
    SPOOL_ENVELOPE_8BIT = 1,        /* the message has octets above 127 */
    SPOOL_ENVELOPE_SMTPUTF8 = 2,    /* MAIL ... SMTPUTF8 */
    SPOOL_ENVELOPE_BODY_8BITMIME = 4,   /* MAIL ... BODY=8BITMIME was said */
    SPOOL_ENVELOPE_DOT_LINE = 8,    /* some line starts with ".": DATA must stuff */
    SPOOL_ENVELOPE_NO_FINAL_CRLF = 16,  /* came by BDAT without a last CRLF */
    SPOOL_ENVELOPE_RET_FULL = 32,   /* DSN RET=FULL */
    SPOOL_ENVELOPE_RET_HDRS = 64,   /* DSN RET=HDRS */
    SPOOL_ENVELOPE_IS_DSN = 128,    /* made by ourselves with a null reverse-path */
    SPOOL_ENVELOPE_INLINE = 256,    /* set by finish: the one body record lies beside the envelope, has no pin of its own */
    SPOOL_ENVELOPE_COPY = 512,      /* a compaction wrote this record: an older one of the same id may be on disk */
    SPOOL_ENVELOPE_COPY_FIRST = 1024,   /* the message had an outcome, written again behind this copy: complete with that */
    SPOOL_ENVELOPE_REQUIRETLS = 2048,   /* MAIL ... REQUIRETLS (RFC 8689 §2) */
    SPOOL_ENVELOPE_TLS_OPTIONAL = 4096, /* field TLS-Required: No (RFC 8689 §3) */
    SPOOL_ENVELOPE_BINARYMIME = 8192,   /* MAIL ... BODY=BINARYMIME (RFC 3030): only BDAT may carry it */
};

enum {                              /* what few messages have: keys of attributes (u16), all values text */
    SPOOL_ATTRIBUTE_HOLD_UNTIL = 1, /* no attempt before: UTC seconds, decimal; then, if MAIL asked for it (RFC 4865), ";" and
                                     * "U" for HOLDUNTIL, or "F" and the seconds of HOLDFOR, decimal */
    SPOOL_ATTRIBUTE_DELIVER_BY = 2, /* UTC seconds, decimal, then ";" and "N" or "R", then "T" or nothing (RFC 2852) */
    SPOOL_ATTRIBUTE_PRIORITY = 3,   /* "-9" to "9" (RFC 6710); absent: 0 */
    SPOOL_ATTRIBUTE_TENANT = 4,
    SPOOL_ATTRIBUTE_CAMPAIGN = 5,
    SPOOL_ATTRIBUTE_ROUTE = 6,      /* a next hop as the configuration writes it, instead of the routes' */
    SPOOL_ATTRIBUTE_POOL = 7,       /* name of an egress pool */
    SPOOL_ATTRIBUTE_IDENTITY = 8,   /* who authenticated */
    SPOOL_ATTRIBUTE_SOLICIT = 9,    /* keywords of MAIL ... SOLICIT, as given (RFC 3865) */
};

typedef struct spool_span { const uint8_t *data; uint32_t length; } spool_span;

typedef struct spool_chunk {        /* where a run of the message's octets lies */
    uint32_t segment_serial;
    uint32_t offset;                /* of the record header in the segment */
    uint32_t length;                /* of the payload */
} spool_chunk;

typedef struct spool_envelope {     /* a checked view of envelope octets; spans point into them */
    uint64_t id;
    uint64_t received_utc_ms;
    uint64_t message_octets;        /* all chunks together */
    uint32_t flags;
    uint32_t recipient_count;
    uint32_t chunk_count;
    spool_span reverse_path;        /* mailbox without brackets; empty: null reverse-path */
    spool_span envid;               /* DSN ENVID as given (xtext), or empty */
    spool_span helo;
    spool_span client_address;      /* text, "192.0.2.1" or "IPv6:..." or "" for our own messages */
    spool_span listener;            /* name/address of the listener, for the log */
    const uint8_t *chunks;          /* private: first chunk entry */
    const uint8_t *recipients;      /* private: first recipient entry */
    const uint8_t *end;             /* private: of the recipients; the first attribute entry */
} spool_envelope;

typedef struct spool_attribute {
    spool_span text;
    uint16_t key;                   /* SPOOL_ATTRIBUTE_*, or one of a later version */
} spool_attribute;

typedef struct spool_recipient {
    spool_span forward_path;        /* mailbox without brackets */
    spool_span orcpt;               /* DSN ORCPT as given ("rfc822;xtext") or empty */
    uint8_t notify;                 /* SMTP_NOTIFY_* bits; 0: not given */
    uint8_t reserved;
    uint32_t domain_offset;         /* of the domain inside forward_path */
} spool_recipient;

/* Building. The octets are the only owner's; every function may move *self. All return 0, -ENOMEM, or
 * -EINVAL (a field holds NUL, CR or LF, or is too long). Order: begin, recipients..., attributes..., (streamed) chunks are set by
 * finish. `id`, `flags`, `message_octets` are patched by finish, because they are known at end of data. */
int spool_envelope_begin(octets **self, spool_span reverse_path, spool_span envid, spool_span helo,
                         spool_span client_address, spool_span listener);
int spool_envelope_add_recipient(octets **self, spool_span forward_path, uint32_t domain_offset,
                                 spool_span orcpt, uint8_t notify);
/* Takes back what was added since the envelope had this length and so many recipients. */
void spool_envelope_cut(octets *self, size_t length, uint32_t recipient_count);
/* While building: whether one of the first `limit` recipients has this forward-path, octet by octet, and none of the bits of
 * `unless_notify`. */
bool spool_envelope_has_recipient(const octets *self, spool_span forward_path, uint8_t unless_notify, uint32_t limit);
/* At most 65535 octets of them all, 4 besides each text. Of a key given twice the first counts. */
int spool_envelope_add_attribute(octets **self, uint16_t key, spool_span text);
/* chunk_count 0 with chunks NULL means: the body travels in the same spool_op and the commit thread writes
 * its place (one chunk entry is reserved for it). */
int spool_envelope_finish(octets **self, uint64_t id, uint64_t received_utc_ms, uint32_t flags,
                          uint64_t message_octets, const spool_chunk *chunks, uint32_t chunk_count);
/* Commit thread only: fills the reserved chunk entry. */
void spool_envelope_set_single_chunk(uint8_t *payload, spool_chunk chunk);

/* Compaction, over octets that spool_envelope_open has accepted: says that this is a copy, and where chunk `index`
 * (below chunk_count) lies now. */
void spool_envelope_mark_copy(uint8_t *payload, bool has_outcome);
void spool_envelope_set_chunk(uint8_t *payload, uint32_t index, spool_chunk chunk);

/* Reading. Checks every length; returns 0 or -EBADMSG. The view lives as long as `data`. */
int spool_envelope_open(const uint8_t *data, size_t length, spool_envelope *out);
spool_chunk spool_envelope_chunk(const spool_envelope *self, uint32_t index);
/* Offset in the message of the chunk's first octet: what its BODY record says too. */
uint32_t spool_envelope_chunk_position(const spool_envelope *self, uint32_t index);
/* Iterates: *cursor starts as self->recipients; returns false at the end. */
bool spool_envelope_next_recipient(const spool_envelope *self, const uint8_t **cursor, spool_recipient *out);
/* Iterates: *cursor starts as self->end; returns false at the end. */
bool spool_envelope_next_attribute(const spool_envelope *self, const uint8_t **cursor, spool_attribute *out);
bool spool_envelope_find_attribute(const spool_envelope *self, uint16_t key, spool_span *text);

/* Message ids as 13 characters of Crockford base32, upper case, no terminator; decode accepts any case. */
void spool_id_encode(uint64_t id, char out[13]);
bool spool_id_decode(const char *in, size_t length, uint64_t *id);

#endif
