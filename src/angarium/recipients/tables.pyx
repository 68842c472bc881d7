# Text maps and constant databases as objects that own what they read. When they are read anew is maps.py's.
cimport cython
from libc.errno cimport EBADMSG, EFBIG, EINVAL, EIO, ENOMEM
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from posix.unistd cimport close, read
from angarium.recipients.ctables cimport cdb_find, text_map, text_map_build, text_map_clear, text_map_find

import os

cdef enum:
    READ_OCTETS = 8 << 20
    VALUE_OCTETS_MAX = 1 << 20      # of a cdb: far more than an alias may expand to


@cython.final
@cython.no_gc
cdef class TextMap:
    """Owns the map. Never changes, so that the thread which read it may hand it over."""
    cdef text_map map

    def __dealloc__(self):
        with nogil:
            text_map_clear(&self.map)

    def __len__(self):
        return self.map.count

    @staticmethod
    def read(path, bint folds_case):
        cdef TextMap self = TextMap.__new__(TextMap)
        cdef int fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        cdef uint64_t[2] key
        cdef uint64_t line = 0
        cdef uint8_t *data
        cdef size_t length = 0, wanted
        cdef ssize_t got = 0
        cdef int error = 0
        cdef bytes random = os.urandom(sizeof(key))
        memcpy(key, <const char *>random, sizeof(key))
        wanted = os.fstat(fd).st_size
        with nogil:
            data = <uint8_t *>malloc(wanted + 1)
            while data != NULL and length < wanted:
                got = read(fd, data + length, min(wanted - length, <size_t>READ_OCTETS))
                if got <= 0:
                    break
                length += <size_t>got
            close(fd)
            if data == NULL:
                error = -ENOMEM
            elif got < 0:
                free(data)
                error = -EIO
            else:
                error = text_map_build(&self.map, data, length, folds_case, key, &line)
        if error == -EINVAL:
            raise ValueError(f"{path}: line {line}: NUL octet")
        if error:
            raise OSError(-error, os.strerror(-error), str(path))
        return self

    def get(self, bytes key):
        cdef const uint8_t *value
        cdef size_t length
        if not text_map_find(&self.map, <const uint8_t *><const char *>key, len(key), &value, &length):
            return None
        return (<const char *>value)[:length]

    def close(self):
        """Gives the memory back; nobody may look up any more. For a thread: of a large map it takes its time."""
        with nogil:
            text_map_clear(&self.map)


@cython.final
@cython.no_gc
cdef class CdbMap:
    """Owns the file."""
    cdef int fd
    cdef uint64_t octets
    cdef object path

    def __cinit__(self):
        self.fd = -1

    def __init__(self, path):
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.octets = os.fstat(self.fd).st_size
        if not 2048 <= self.octets <= <uint64_t>1 << 32:
            raise ValueError(f"{path}: not a constant database")

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)

    def get(self, bytes key):
        cdef uint64_t at
        cdef uint32_t length
        cdef int found = cdb_find(self.fd, self.octets, <const uint8_t *><const char *>key, <uint32_t>len(key), &at, &length)
        if found == 0:
            return None
        if found == -EBADMSG or (found == 1 and length > VALUE_OCTETS_MAX):
            raise ValueError(f"{self.path}: not a sound constant database")
        if found < 0:
            raise OSError(-found, os.strerror(-found), str(self.path))
        value = os.pread(self.fd, length, at)
        if len(value) != length:        # shortened since: half an alias would lose mail
            raise ValueError(f"{self.path}: not a sound constant database")
        return value

    def close(self):
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1
