from libc.stdint cimport uint64_t
from angarium.events.journal cimport Journal
from angarium.model.octets cimport octets
from angarium.queue.flows cimport Flows
from angarium.queue.message cimport message, recipient, transaction
from angarium.queue.shares cimport Share, Shares
from angarium.queue.wheel cimport Wheel
from angarium.spool.shard cimport Shard


cdef class Ledger:
    """Who keeps messages, as ready queues and readers see it. The Scheduler is the only one; this class is what lets them
    live in files of their own."""
    cdef readonly Wheel wheel
    cdef readonly Journal journal
    cdef readonly Shares shares
    cdef readonly Flows flows           # whose mail it is
    cdef readonly object loop
    cdef readonly object shaping        # shaping.Shaping
    cdef readonly object adjustments    # adjustments.Adjustments, or None: automation changes nothing now
    cdef dict shares_held               # name -> Share, while a ready queue is counted there
    cdef list shards                    # by their number; None: not met yet. Kept as long as the Ledger.
    cdef int resume_kind
    cdef object passing_on              # ReadyQueue in which who is routed now had a place, or has waited for one; or None

    cdef Share hold_share(self, str name)
    cdef void drop_share(self, Share share) noexcept

    # A transaction ends: every recipient in it has an outcome or has been given back.
    cdef void settle(self, transaction *t) noexcept
    # A hold keeps a message's memory while somebody outside the queue looks at it; release() may finish it.
    cdef void hold(self, message *m) noexcept
    cdef void release(self, message *m) noexcept
    # All recipients of a guest are over or go back, and nobody has it in hand.
    cdef void release_guest(self, message *m) noexcept
    # Keeps envelope and body (either may be NULL) in memory.
    cdef void heat(self, message *m, octets *envelope, octets *body) noexcept
    # One attempt of r (in no list) has ended without delivery; `ready` is the ReadyQueue it was in, or None. Its envelope is
    # read back first when it is not in memory.
    cdef void conclude_later(self, recipient *r, object ready, object trouble, bint is_permanent) noexcept
    # The Gate with the name under which it counts, for as long as ready queues hold it.
    cdef object hold_gate(self, str scope)
    cdef void drop_gate(self, object gate) noexcept
    # The Ration of a ready queue's source towards its provider, or None. When it is spent: ration_spent() moves who waits.
    cdef object ration_of(self, object ready)
    cdef void ration_spent(self, object ready) noexcept
    # r, in no list, has waited behind the ReadyQueue `ready`, which has a place for it.
    cdef void take_in(self, object ready, recipient *r) noexcept
    # More envelopes are being read back for that than need to be: whoever goes through many recipients waits with later().
    cdef bint is_behind(self) noexcept
    cdef int later(self, callback, trouble, bint is_permanent, uint64_t remaining) except -1


cdef inline Shard shard_of(Ledger ledger, message *m):
    return <Shard>ledger.shards[m.shard_number]
