/* A log in words, one line an event, to find out how a failing state came about. */
#ifndef ANGARIUM_CRASH_TRACE_H
#define ANGARIUM_CRASH_TRACE_H

#include "crash/promises.h"

/* The events up to `end`, with what each written record or header is. */
void trace_print(const log *events, const book *said, uint32_t end);

#endif
