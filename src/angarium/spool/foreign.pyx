# A shard that another worker owns, opened for reading (csrc/spool/foreign.c). Records lie where its owner says, who keeps them there.
cimport cython
from libc.stdint cimport uint8_t

from angarium.spool.cspool cimport (
    spool_error, spool_segment, spool_segment_describe, spool_segment_face, spool_shard_drop_foreign, spool_shard_hold_foreign,
    spool_shard_open_foreign)
from angarium.spool.shard cimport Shard

from angarium.spool.shard import error_of


cdef void describe(const spool_segment *segment, spool_segment_face *out) noexcept:
    spool_segment_describe(segment, out)


@cython.final
cdef class ForeignShard(Shard):
    def __init__(self, int directory_fd, str name, int number):
        cdef spool_error error
        cdef bytes encoded = name.encode()
        cdef const char *c_name = encoded
        cdef int code
        if not 0 <= number <= 255:
            raise ValueError("a shard number has eight bits")
        code = spool_shard_open_foreign(directory_fd, c_name, <uint8_t>number, &self.c, &error)
        if code != 0:
            raise error_of(code, (<bytes>error.text).decode("utf-8", "replace"))
        self.number = number
        self.name = name
        self.loop = None

    cdef spool_segment *hold(self, const spool_segment_face *face) noexcept:
        return spool_shard_hold_foreign(self.c, face) if self.c != NULL else NULL

    cdef void drop(self, spool_segment *segment) noexcept:
        if self.c != NULL:
            spool_shard_drop_foreign(self.c, segment)
