# Memory for very many things of one size.
cimport cython
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cdef enum:
    PAGE_OCTETS = 64 << 10


@cython.final
cdef class Slab:
    """Owns its pages: everything taken is gone with it."""

    def __cinit__(self, size_t piece_octets):
        self.piece_octets = (piece_octets + 7) & ~<size_t>7
        self.pages = []

    def __dealloc__(self):
        for page in self.pages:
            free(<void *><size_t>page)

    cdef void *take(self) noexcept:
        cdef void *piece = self.free_pieces
        if piece != NULL:
            self.free_pieces = (<void **>piece)[0]
        else:
            if self.page_left < self.piece_octets:
                self.page = <unsigned char *>malloc(PAGE_OCTETS)
                if self.page == NULL:
                    self.page_left = 0
                    return NULL
                self.page_left = PAGE_OCTETS
                self.pages.append(<size_t>self.page)
            piece = self.page
            self.page += self.piece_octets
            self.page_left -= self.piece_octets
        memset(piece, 0, self.piece_octets)
        self.taken += 1
        return piece

    cdef void give(self, void *piece) noexcept:
        (<void **>piece)[0] = self.free_pieces
        self.free_pieces = piece
        self.taken -= 1
