from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

# One tick is 100 ms: retry times and SMTP deadlines need no more.
cdef enum:
    WHEEL_TICK_MS = 100
    WHEEL_KINDS = 8

cdef struct wheel_node:
    wheel_node *next        # NULL when not linked anywhere
    wheel_node *previous
    uint32_t due            # tick; meaningful only while in the wheel
    uint8_t kind            # who is told when it is due; see Wheel.register
    uint8_t where           # owner's own use (which list holds the node)
    uint16_t tally          # owner's own use

ctypedef void (*wheel_fire)(wheel_node *node, void *context) noexcept


cdef class Wheel:
    """A hierarchical timer wheel of embedded nodes: arming and disarming never allocate.

    Nodes belong to their owners, who must disarm them before freeing. Single-threaded: the loop's.
    """
    cdef wheel_node levels[4][256]
    cdef wheel_node cascading           # taken out of a slot of a higher level, not yet placed anew
    cdef readonly uint32_t now          # ticks since the wheel was made
    cdef readonly uint64_t count
    cdef uint64_t origin_ms
    cdef wheel_fire fire[WHEEL_KINDS]
    cdef void *context[WHEEL_KINDS]
    cdef int kinds
    cdef int alarm_kind                 # of Alarm nodes; -1 before the first
    cdef object loop
    cdef object handle
    cdef bint is_closed

    cdef int register(self, wheel_fire fire, void *context) except -1      # returns the kind for nodes
    cdef void arm(self, wheel_node *node, uint64_t delay_ms) noexcept       # rearms when already armed
    cdef void disarm(self, wheel_node *node) noexcept                       # harmless when not armed
    cdef uint64_t remaining_ms(self, wheel_node *node) noexcept
    cdef bint advance(self, uint32_t tick, uint64_t budget) noexcept        # False: the budget was used up first

    cdef uint32_t tick(self) noexcept
    cdef void place(self, wheel_node *node) noexcept
    cdef void cascade(self, int level, int slot) noexcept
    cdef bint fire_due(self, uint64_t *budget) noexcept
    cdef void schedule(self) noexcept


cdef class Alarm:
    """A timer for Python callers; per-message and per-connection code embeds a wheel_node instead."""
    cdef wheel_node node
    cdef Wheel wheel
    cdef object callback
