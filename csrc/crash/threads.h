/* When the spool's threads sleep, and what time it is for them: the part of the layer that makes a run repeatable.
 * The driver acts only when every thread sleeps and nothing is on its way to wake it. */
#ifndef ANGARIUM_CRASH_THREADS_H
#define ANGARIUM_CRASH_THREADS_H

#include <stdint.h>

/* The one lock of the layer. Taken inside the spool's mutex, never the other way round. */
void threads_lock(void);
void threads_unlock(void);

#endif
