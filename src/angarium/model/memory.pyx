# What the C library's allocator is told. glibc only; elsewhere both do nothing.
cdef extern from *:
    """
    #ifdef __GLIBC__
    #include <malloc.h>
    static void one_arena(void) { mallopt(M_ARENA_MAX, 1); }
    static void give_back(void) { malloc_trim(0); }
    #else
    static void one_arena(void) { }
    static void give_back(void) { }
    #endif
    """
    void one_arena() nogil
    void give_back() nogil


def share_one_arena():
    """All threads allocate from one heap. To be called before a shard starts its threads: what the reader thread allocates and
    the loop frees (a backlog at start, bodies read back) would stay resident in the reader's own arena for ever, because
    malloc_trim returns the end of the main one only."""
    with nogil:
        one_arena()


def return_free_memory():
    """Gives what is free back to the system. After a backlog was read: half as much as the queue itself."""
    with nogil:
        give_back()
