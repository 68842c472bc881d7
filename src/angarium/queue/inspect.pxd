from angarium.queue.message cimport recipient

# "ready", "deferred" ...; "held": it waits for its time, and was never tried.
cdef str place_of(recipient *r)
