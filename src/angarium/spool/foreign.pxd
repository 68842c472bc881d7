# Another worker's shard, as who delivers for that worker reads it.
from angarium.spool.cspool cimport spool_segment, spool_segment_face
from angarium.spool.shard cimport Shard


cdef class ForeignShard(Shard):
    """read() is all that is asked of it besides these two."""
    # Held until drop(); NULL: no memory. Owned by the shard.
    cdef spool_segment *hold(self, const spool_segment_face *face) noexcept
    cdef void drop(self, spool_segment *segment) noexcept


# What another process needs to read from a segment of a shard of ours.
cdef void describe(const spool_segment *segment, spool_segment_face *out) noexcept
