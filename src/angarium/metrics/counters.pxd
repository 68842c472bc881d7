from libc.stdint cimport int64_t


cdef class Counter:
    """One number per process, in memory shared by all processes of the daemon.

    Hot code does `received.cell[0] += 1`: no lock, no atomic, because each process has its own row. `cell` is
    never NULL. Gauges are counters that also go down.
    """
    cdef int64_t *cell
    cdef readonly int index
    cdef readonly str name
    cdef readonly str help
    cdef readonly str kind          # "counter" | "gauge"
    cdef readonly dict labels       # {} for most; one column for each set of labels
