# [admission]'s limits, compiled for one worker. Who asks, and what is said then, is in limits.pyx.
cimport cython
from angarium.admission.tallies cimport Tallies
from angarium.inbound.networks cimport NetworkList

from angarium.admission.tallies import Rules


@cython.final
cdef class Gate:
    def __cinit__(self, Tallies tallies not None, options):
        self.tallies = tallies
        self.rules = Rules(tallies, options.limit) if options.limit else None
        self.max_sessions = options.max_sessions
        self.tarpit_errors = options.tarpit_errors
        self.tarpit_ms = round(options.tarpit_delay * 1000)
        self.exempt = NetworkList(options.exempt_networks)

    @property
    def counts(self):
        return self.rules is not None or self.max_sessions != 0 or self.tarpit_errors != 0
