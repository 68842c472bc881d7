from libc.stdint cimport uint32_t, uint64_t

cdef extern from "queue/shares.h" nogil:
    ctypedef struct shares_table:
        pass

    ctypedef enum shares_result:
        SHARES_TAKEN
        SHARES_NONE
        SHARES_STALE

    enum:
        SHARES_WORKERS_MAX

    uint64_t SHARES_RATE_STALE
    size_t shares_table_octets(uint32_t slots)
    void shares_table_init(shares_table *self, uint32_t slots)
    uint32_t shares_find(shares_table *self, uint64_t key, uint64_t now_ns)
    uint32_t shares_seek(const shares_table *self, uint64_t key)
    shares_result shares_connection_take(shares_table *self, uint32_t slot, uint64_t key, unsigned worker,
                                         uint32_t limit, uint64_t now_ns)
    void shares_connection_give(shares_table *self, uint32_t slot, unsigned worker)
    bint shares_is_wanted(const shares_table *self, uint32_t slot, unsigned worker, uint64_t now_ns)
    uint32_t shares_wanted_count(const shares_table *self, uint32_t slot, unsigned worker, uint64_t now_ns)
    bint shares_connection_leave(shares_table *self, uint32_t slot, uint32_t limit)
    void shares_connection_left(shares_table *self, uint32_t slot)
    void shares_unwant(shares_table *self, uint32_t slot, unsigned worker)
    uint64_t shares_rate_take(shares_table *self, uint32_t slot, uint64_t key, uint64_t interval_ns,
                              uint32_t burst, uint64_t now_ns)
    void shares_rate_give(shares_table *self, uint32_t slot, uint64_t key, uint64_t interval_ns)
    uint32_t shares_rate_next(const shares_table *self, uint32_t slot, uint64_t now_ns, uint64_t *key, uint64_t *arrival_ns)
    bint shares_rate_restore(shares_table *self, uint64_t key, uint64_t arrival_ns, uint64_t now_ns)
    uint64_t shares_rate_wait(const shares_table *self, uint32_t slot, uint64_t key, uint64_t interval_ns,
                              uint32_t burst, uint64_t now_ns)
    uint32_t shares_connection_count(const shares_table *self, uint32_t slot)
    void shares_forget_worker(shares_table *self, unsigned worker)
    uint64_t shares_living(const shares_table *self)
    void shares_set_living(shares_table *self, unsigned worker, bint is_living)


cdef class Shares:
    """The table, mapped once before the fork and inherited; one per daemon."""
    cdef shares_table *table
    cdef size_t octets
    cdef readonly bytes secret
    cdef readonly unsigned worker
    cdef readonly unsigned worker_count

    cdef Share share_of(self, str name)
    cdef uint64_t living_now(self) noexcept


cdef struct pace:                       # GCRA (csrc/queue/shares.h)
    uint64_t interval_ns                # 0: no limit
    uint32_t burst


cdef int pace_of(object rate, pace *out) except -1          # of a model.units.Rate or None

# Half the burst gathers while somebody waits: the bucket never runs over, so the rate is reached all the same, with few timers.
cdef inline uint64_t wait_of(uint64_t wait_ns, const pace *of) noexcept:
    return wait_ns + of.burst // 2 * of.interval_ns


cdef class Share:
    """One entry as one worker sees it: of a site, or of that part of its mail which a table of [shaping] counts apart
    (shaping.py). All its ready queues that are counted there have the same object."""
    cdef Shares shares
    cdef readonly str name
    cdef uint64_t key
    cdef uint32_t slot
    cdef readonly uint32_t own          # connections of this worker
    cdef uint64_t own_arrival_ns        # GCRA when the table has no room for the site
    cdef uint32_t leaving               # of them: are to end, for there are too many
    cdef uint32_t queue_count           # ready queues that have it; twice, if for connections and messages
    cdef uint32_t wanted_by             # number of the ready queue that asked in vain last; 0: none
    cdef uint64_t wanted_ns             # when
    cdef bint is_wanted_first           # it has no connection at all

    cdef bint take_connection(self, uint32_t limit) noexcept
    cdef void give_connection(self) noexcept
    cdef uint32_t count(self) noexcept                              # of all workers
    # Where all workers have more than `limit`: one of ours is to end, and leaves from now on. False: enough of them leave already.
    cdef bint leave(self, uint32_t limit) noexcept
    cdef void left(self) noexcept                                  # it has ended: given back, and leaves no more
    cdef bint is_over(self, uint32_t limit) noexcept
    cdef bint is_wanted(self) noexcept
    cdef bint is_wanted_by_less(self) noexcept                     # by a worker that is left with fewer even if it gets one
    cdef bint is_wanted_beside(self, uint32_t number) noexcept     # by another ready queue of this worker, just now
    cdef void want(self, uint32_t number, bint has_none) noexcept  # a ready queue of this worker asked in vain
    cdef void unwant(self, uint32_t number) noexcept               # it needs none any more
    cdef uint64_t take_message(self, uint64_t interval_ns, uint32_t burst) noexcept    # 0, or ns to wait
    cdef uint64_t counted_wait(self, uint64_t interval_ns, uint32_t burst) noexcept
    cdef uint64_t message_wait(self, uint64_t interval_ns, uint32_t burst) noexcept    # the same without taking
    cdef void give_message(self, uint64_t interval_ns) noexcept                        # what was taken last, unused
