/* Every call of the spool failing once, in every way it can, at every point of a few short scripts; then a look at what is left.
 * And a disk of a few MiB filled to its last block and emptied again. */
#ifndef ANGARIUM_CRASH_FAULTS_H
#define ANGARIUM_CRASH_FAULTS_H

#include <stdbool.h>

typedef struct faults_result {
    unsigned cases, struck, refused, failures;  /* struck: the fault met a call that can fail so; refused: ops it cost */
    char first[600];
} faults_result;

/* every: only each every-th call is made to fail (1: all; of long scripts every second). only: the name of one script; NULL: all of them. */
faults_result faults_explore(bool is_buffered, unsigned every, const char *only);
bool faults_has_script(const char *name);

/* The same scripts killed at every call (`every` not 1: at every second, and of long scripts at half as many as fail), started again,
 * and cut off from power after that. */
faults_result faults_kill(bool is_buffered, unsigned every, const char *only);

/* A disk of so many MiB, at most FAULTS_DISK_MIB_MOST. NULL or what went wrong. `words` receives what happened, in figures. */
enum { FAULTS_DISK_MIB = 5, FAULTS_DISK_MIB_MOST = 80 };
const char *faults_fill_small_disk(bool is_buffered, unsigned mib, char words[200]);

#endif
