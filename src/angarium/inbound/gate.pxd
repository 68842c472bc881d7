from libc.stdint cimport uint32_t
from angarium.admission.tallies cimport Rules, Tallies
from angarium.inbound.networks cimport NetworkList


cdef class Gate:
    cdef readonly Tallies tallies
    cdef readonly Rules rules               # None: no [[admission.limit]]
    cdef readonly uint32_t max_sessions     # of the machine; 0: no limit
    cdef readonly uint32_t tarpit_errors    # refused in a session: its replies come late from then on; 0: never
    cdef readonly uint32_t tarpit_ms
    cdef NetworkList exempt
