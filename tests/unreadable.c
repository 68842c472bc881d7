/* Preloaded: a disk that has lost some octets of one file. Every read that touches them fails, as the kernel has it.
 *   UNREADABLE="/path from to errno" */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_lost(int fd, long offset, size_t length)
{
    char path[4096];
    long from, to;
    int number;
    struct stat wanted, read;
    const char *said = getenv("UNREADABLE");
    if (said == NULL || sscanf(said, "%4095s %ld %ld %d", path, &from, &to, &number) != 4 || stat(path, &wanted) != 0
        || fstat(fd, &read) != 0 || wanted.st_ino != read.st_ino || wanted.st_dev != read.st_dev)
        return 0;
    return offset < to && from < offset + (long)length ? number : 0;
}

ssize_t pread64(int fd, void *out, size_t length, off64_t offset)
{
    static ssize_t (*real)(int, void *, size_t, off64_t);
    int number = is_lost(fd, offset, length);
    if (number != 0) {
        errno = number;
        return -1;
    }
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "pread64");
    return real(fd, out, length, offset);
}

ssize_t pread(int fd, void *out, size_t length, off_t offset)
{
    return pread64(fd, out, length, offset);
}

ssize_t read(int fd, void *out, size_t length)
{
    static ssize_t (*real)(int, void *, size_t);
    int number = is_lost(fd, lseek(fd, 0, SEEK_CUR), length);
    if (number != 0) {
        errno = number;
        return -1;
    }
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "read");
    return real(fd, out, length);
}
