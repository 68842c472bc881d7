/* A part of the caller's buffer: offset from its start, and length, in octets. Never a copy. */
#ifndef ANGARIUM_SMTP_SPAN_H
#define ANGARIUM_SMTP_SPAN_H

#include <stdint.h>

typedef struct smtp_span {
    uint32_t offset;
    uint32_t length;
} smtp_span;

#endif
