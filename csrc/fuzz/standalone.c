/* Feeds a fuzz target where libFuzzer is missing: seeds as they are, then seeded mutations of them.
 *
 *     fuzz_data -max_total_time=10 -seed=1 DIR...     for so long
 *     fuzz_data FILE...                               only these
 *
 * It knows no coverage. The input that broke an invariant is written to crash-NAME (run with
 * ASAN_OPTIONS=abort_on_error=1, so that a sanitizer's report counts as one).
 */
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"

enum { SEEDS_MAX = 256, INPUT_MAX = 4096 };

static struct { uint8_t octets[INPUT_MAX]; size_t size; } seeds[SEEDS_MAX], input;
static size_t seed_count;
static char crash_name[256];
static uint64_t random_state;

static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % limit;
}

static void seed_read(const char *name)
{
    FILE *file = seed_count < SEEDS_MAX ? fopen(name, "rb") : NULL;

    if (file == NULL)
        return;
    seeds[seed_count].size = fread(seeds[seed_count].octets, 1, INPUT_MAX, file);
    seed_count++;
    fclose(file);
}

static void seeds_read(const char *name)
{
    struct stat status;
    struct dirent *entry;
    char path[1024];

    if (stat(name, &status) == 0 && S_ISREG(status.st_mode)) {
        seed_read(name);
        return;
    }
    DIR *directory = opendir(name);
    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        snprintf(path, sizeof path, "%s/%s", name, entry->d_name);
        if (stat(path, &status) == 0 && S_ISREG(status.st_mode))
            seed_read(path);
    }
    if (directory != NULL)
        closedir(directory);
}

static void on_abort(int number)
{
    FILE *file = fopen(crash_name, "wb");   /* not async-signal-safe, but we are dying from our own abort() */

    if (file != NULL) {
        fwrite(input.octets, 1, input.size, file);
        fclose(file);
        fprintf(stderr, "input written to %s\n", crash_name);
    }
    signal(number, SIG_DFL);
    raise(number);
}

static void mutate(void)
{
    static const char *const tokens[] = {"\r\n", "\r\n.\r\n", "\r\n..", "\n.\n", "\r", "\n", ".", "\0", "<", ">",
                                         "@", "[IPv6:", "::", "\"", "\\", "\xc3\xa9", "250-", "550 5.7.1 ", " ", "="};
    enum { TOKENS = sizeof tokens / sizeof tokens[0] };

    for (uint32_t changes = 1 + random_below(8); changes > 0; changes--) {
        size_t at = random_below((uint32_t)input.size + 1), length;
        switch (random_below(5)) {
        case 0:                                         /* another octet */
            if (at < input.size)
                input.octets[at] = (uint8_t)random_below(256);
            break;
        case 1: {                                       /* a token */
            const char *token = tokens[random_below(TOKENS)];
            length = token[0] == 0 ? 1 : strlen(token);
            if (input.size + length > INPUT_MAX)
                break;
            memmove(input.octets + at + length, input.octets + at, input.size - at);
            memcpy(input.octets + at, token, length);
            input.size += length;
            break;
        }
        case 2:                                         /* a hole */
            length = random_below(9) < input.size - at ? random_below(9) : input.size - at;
            if (length > input.size - at)
                length = input.size - at;
            memmove(input.octets + at, input.octets + at + length, input.size - at - length);
            input.size -= length;
            break;
        case 3:                                         /* a part twice */
            length = random_below(33);
            if (length > input.size - at || input.size + length > INPUT_MAX)
                break;
            memmove(input.octets + at + length, input.octets + at, input.size - at);
            input.size += length;
            break;
        case 4:                                         /* a part of another seed */
            if (seed_count > 0) {
                size_t other = random_below((uint32_t)seed_count);
                length = seeds[other].size;
                if (input.size + length > INPUT_MAX)
                    break;
                memmove(input.octets + at + length, input.octets + at, input.size - at);
                memcpy(input.octets + at, seeds[other].octets, length);
                input.size += length;
            }
            break;
        }
    }
}

int main(int argc, char **argv)
{
    const char *base = strrchr(argv[0], '/');
    unsigned long seconds = 0, count = 0;
    time_t end;

    random_state = (uint64_t)time(NULL);
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-max_total_time=", 16) == 0)
            seconds = strtoul(argv[i] + 16, NULL, 10);
        else if (strncmp(argv[i], "-seed=", 6) == 0)
            random_state = strtoull(argv[i] + 6, NULL, 10);
        else if (argv[i][0] != '-')
            seeds_read(argv[i]);
    }
    snprintf(crash_name, sizeof crash_name, "crash-%s", base != NULL ? base + 1 : argv[0]);
    printf("seed %llu, %zu files\n", (unsigned long long)random_state, seed_count);
    fflush(stdout);
    signal(SIGABRT, on_abort);
    for (size_t i = 0; i < seed_count; i++) {
        memcpy(&input, &seeds[i], sizeof input);
        LLVMFuzzerTestOneInput(input.octets, input.size);
    }
    end = time(NULL) + (time_t)seconds;
    while (time(NULL) < end) {
        for (int i = 0; i < 256; i++, count++) {
            if (seed_count > 0 && random_below(16) != 0)
                memcpy(&input, &seeds[random_below((uint32_t)seed_count)], sizeof input);
            else if (random_below(4) == 0)
                input.size = 0;         /* else: what the last round left, mutated once more */
            mutate();
            LLVMFuzzerTestOneInput(input.octets, input.size);
        }
    }
    printf("Done %lu runs\n", count);
    return 0;
}
