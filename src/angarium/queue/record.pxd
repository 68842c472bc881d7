from libc.stdint cimport uint64_t
from angarium.model.octets cimport octets
from angarium.queue.message cimport message
from angarium.queue.troubles cimport Troubles
from angarium.queue.wheel cimport Wheel

# The payload of an OUTCOME record: what every recipient of m stands at now. One reference for the caller.
cdef octets *state_record(message *m, Wheel wheel, uint64_t now_utc_s) except NULL

# Puts what a record says into m (just made from its envelope). due_utc_s[i] becomes recipient i's next attempt (0: at once).
cdef int apply_state(message *m, const octets *record, uint64_t *due_utc_s, Troubles troubles) except -1
