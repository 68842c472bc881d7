/* A reference-counted run of octets.
 *
 * What it is: the one buffer type that crosses module and thread boundaries (an inbound session fills
 * a body, the spool's commit thread writes it, an outbound connection sends it).
 * What it is not: a string library. Nothing here knows about SMTP.
 *
 * Ownership: octets_new() gives one reference to the caller. Whoever stores the pointer takes a
 * reference (octets_ref) and gives it back (octets_unref); the last one frees. The count is atomic
 * because the commit thread holds references; contents may be written only while exactly one
 * reference exists, so readers in other threads never see a change.
 */
#ifndef ANGARIUM_OCTETS_H
#define ANGARIUM_OCTETS_H

#include <stddef.h>
#include <stdint.h>

typedef struct octets {
    uint32_t references;        /* touched with __atomic builtins only */
    uint32_t reserved;
    size_t length;              /* octets in use */
    size_t capacity;            /* octets allocated behind data */
    uint8_t data[];
} octets;

/* A new empty buffer of at least `capacity` octets, one reference; NULL when memory is out. */
octets *octets_new(size_t capacity);

/* A new buffer holding a copy of data[0..length). */
octets *octets_copy(const uint8_t *data, size_t length);

octets *octets_ref(octets *self);

/* Gives back one reference. NULL is allowed. */
void octets_unref(octets *self);

/* Makes room for `more` octets behind length, growing geometrically; the pointer in *self may move.
 * The caller must hold the only reference. Returns 0, or -1 when memory is out (*self unchanged). */
int octets_reserve(octets **self, size_t more);

/* Appends a copy. Same rules and results as octets_reserve. */
int octets_append(octets **self, const uint8_t *data, size_t length);

/* Live buffers of this extension module in debug builds, 0 in release builds: for leak tests. */
long octets_live_count(void);

#endif
