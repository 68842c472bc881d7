from libc.stdint cimport uint64_t


cdef class Slab:
    """Pieces of memory of one size, without a header each. What is given back is used again, never returned to the system."""
    cdef size_t piece_octets
    cdef void *free_pieces              # list through their first word
    cdef unsigned char *page
    cdef size_t page_left
    cdef void *pages                    # list through their first word
    cdef readonly uint64_t taken

    cdef void *take(self) noexcept      # zeroed; NULL when memory is out
    cdef void give(self, void *piece) noexcept
