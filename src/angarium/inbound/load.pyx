# How much sessions take of the machine, looked at a few times a second: above a bound new ones are turned away, near one
# deadlines become short. Connections see two flags and four figures of the Intake, nothing else.
#
# A look walks over all sessions of the worker, half a millisecond for twenty thousand, and says what it found where other
# workers see it (csrc/admission/bounds.h): what is judged is the sum of what all found last.
cimport cython
from libc.stdint cimport uint64_t
from angarium.admission.tallies cimport tally_sessions
from angarium.inbound.connection cimport InboundConnection
from angarium.inbound.context cimport InboundContext, Intake
from angarium.metrics.counters cimport Counter

from angarium.metrics.counters import gauge
from angarium.model.memory_limit import machine_octets

cdef Counter memory = gauge("angarium_in_session_memory_octets", "Held by inbound sessions, about.")
cdef Counter tight = gauge("angarium_in_tight", "1 in a worker whose load is high: deadlines are short.")

LOOK_S = 0.25
# Sessions may take an eighth of the machine's memory where nothing else is said, and never less than this.
LEAST_OCTETS = 1 << 30


@cython.final
cdef class LoadWatch:
    cdef Intake intake
    cdef object contexts
    cdef object options
    cdef object handle
    cdef uint64_t max_memory        # of all workers' sessions; 0: no limit

    def __init__(self, Intake intake not None, contexts):
        self.intake = intake
        self.contexts = contexts

    def apply(self, options):
        cdef Intake intake = self.intake
        self.options = options
        self.max_memory = (max(machine_octets() // 8, LEAST_OCTETS) if options.max_session_memory is None
                           else options.max_session_memory)
        intake.tight_command_ms = round(options.tight.command_timeout * 1000)
        intake.tight_data_ms = round(options.tight.data_timeout * 1000)
        intake.tight_message_ms = round(options.tight.message_time * 1000)
        intake.tight_octets_per_s = options.tight.data_octets_per_s
        self.look()

    def start(self):
        self.look()
        self.handle = self.intake.loop.call_later(LOOK_S, self.start)

    def stop(self):
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None

    def look(self):
        cdef Intake intake = self.intake
        cdef InboundConnection connection
        cdef uint64_t held = intake.unsynced_octets
        cdef int most = 0, bound = self.options.tight.from_percent
        cdef uint64_t max_memory = self.max_memory
        for connection in intake.clients:
            held += connection.memory_octets()
            if connection.backlog != NULL:
                held += connection.backlog.capacity
        memory.cell[0] = held
        held = intake.bounds.memory(held)
        intake.is_memory_full = max_memory != 0 and held >= max_memory
        if max_memory:
            most = 100 if held >= max_memory else <int>(held * 100 // max_memory)
        if intake.gate is not None and intake.gate.max_sessions:
            most = max(most, min(100, tally_sessions(intake.gate.tallies.table) * 100 // intake.gate.max_sessions))
        for context in self.contexts():
            most = max(most, (<InboundContext>context).places.settle())
        if intake.is_tight:
            bound = bound * 3 // 4
        self.set_tight(bound != 0 and most >= bound, most)

    cdef set_tight(self, bint is_tight, int percent):
        cdef Intake intake = self.intake
        cdef InboundConnection connection
        if is_tight == intake.is_tight:
            return
        intake.is_tight = is_tight
        tight.cell[0] = is_tight
        intake.journal.log("load-high" if is_tight else "load-normal", percent=percent, sessions=len(intake.clients))
        if is_tight:
            for connection in intake.clients:
                connection.tighten()
