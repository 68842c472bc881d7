from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "admission/tallies.h" nogil:
    ctypedef struct tally_table:
        pass

    ctypedef enum tally_kind:
        TALLY_CONNECTIONS
        TALLY_MESSAGES
        TALLY_RECIPIENTS
        TALLY_HANDSHAKES
        TALLY_ERRORS
        TALLY_AUTH_ATTEMPTS
        TALLY_KINDS

    ctypedef enum tally_result:
        TALLY_TAKEN
        TALLY_FULL
        TALLY_CROWDED

    ctypedef struct tally_rate:
        uint64_t interval_ns
        uint32_t burst

    enum:
        TALLY_WORKERS_MAX
        TALLY_NOWHERE

    size_t tally_table_octets(uint32_t slots)
    void tally_table_init(tally_table *self, uint32_t slots, const uint64_t *secret)
    bint tally_session_take(tally_table *self, unsigned worker, uint32_t limit)
    void tally_session_give(tally_table *self, unsigned worker)
    uint32_t tally_sessions(const tally_table *self)
    uint64_t tally_key(const tally_table *self, const uint8_t *address, unsigned bits, unsigned rule)
    tally_result tally_enter(tally_table *self, uint64_t key, unsigned worker, uint32_t limit, uint64_t now_ns,
                             uint32_t *slot)
    void tally_leave(tally_table *self, uint32_t slot, unsigned worker)
    bint tally_take(tally_table *self, uint32_t slot, tally_kind kind, tally_rate rate, uint64_t now_ns)
    bint tally_may_take(const tally_table *self, uint32_t slot, tally_kind kind, tally_rate rate, uint64_t now_ns)
    uint32_t tally_connections(const tally_table *self, uint32_t slot)
    void tally_forget_worker(tally_table *self, unsigned worker)


cdef enum:
    RULES_MAX = 4               # a connection keeps a slot for each


cdef enum:
    # Over which limit somebody went: `kind`, or one of these two.
    OVER_NONE = -1
    OVER_OPEN = TALLY_KINDS     # connections open at once


ctypedef struct rule:
    unsigned ipv4_bits          # of the mapped address: 96 and more
    unsigned ipv6_bits
    uint32_t connections        # open at once; 0: no limit
    bint has_own_clients        # also for clients that may relay
    tally_rate rates[TALLY_KINDS]


cdef class Tallies:
    """The table, mapped once before the fork and inherited; one per daemon."""
    cdef tally_table *table
    cdef size_t octets
    cdef readonly unsigned worker


cdef class Visit:
    """One connection in the tallies. Owns its places; they are given back when it goes."""
    cdef Rules rules
    cdef uint32_t slots[RULES_MAX]

    cdef int take(self, tally_kind kind) noexcept       # OVER_NONE, or the kind
    cdef int may_take(self, tally_kind kind) noexcept   # likewise, and nothing is taken
    cdef void give_places(self, bint keeps_own) noexcept
    cdef void keep_own(self) noexcept                   # its client may relay, as turns out: the places of other rules go back


cdef class Rules:
    """[[admission.limit]], compiled. Replaced by a reload; visits under way keep the one they began with."""
    cdef readonly Tallies tallies
    cdef rule rules[RULES_MAX]
    cdef unsigned count

    cdef int enter(self, Visit visit, const uint8_t *address, bint is_ipv4, bint is_own) noexcept
