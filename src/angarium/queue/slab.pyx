# Memory for very many things of one size.
cimport cython
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cdef enum:
    PAGE_OCTETS = 64 << 10
    LINK_OCTETS = 16                # at a page's beginning: the page before it


@cython.final
cdef class Slab:
    """Owns its pages: everything taken is gone with it."""

    def __cinit__(self, size_t piece_octets):
        self.piece_octets = (piece_octets + 7) & ~<size_t>7

    def __dealloc__(self):
        cdef void *page
        while self.pages != NULL:
            page = self.pages
            self.pages = (<void **>page)[0]
            free(page)

    cdef void *take(self) noexcept:
        cdef void *piece = self.free_pieces
        cdef void *page
        if piece != NULL:
            self.free_pieces = (<void **>piece)[0]
        else:
            if self.page_left < self.piece_octets:
                page = malloc(PAGE_OCTETS)
                if page == NULL:
                    return NULL
                (<void **>page)[0] = self.pages
                self.pages = page
                self.page = <unsigned char *>page + LINK_OCTETS
                self.page_left = PAGE_OCTETS - LINK_OCTETS
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
