"""Mail of other workers in a ready queue of ours: this worker is the home of its site (handover/)."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from angarium.queue.message cimport domain_budget, message, transaction
from angarium.spool.cspool cimport spool_segment


cdef struct guest:                      # a reference: recipients of one message that its owner handed over together
    guest *next                         # in its lodger's list while recipients wait
    guest *previous
    void *lodger                        # Lodger, a counted reference
    void *shard                         # spool.foreign.ForeignShard, likewise
    spool_segment **segments            # held there; owned, segment_count of them
    uint32_t segment_count
    uint32_t slot                       # the owner's name for it
    uint32_t generation
    uint32_t waiting                    # recipients that wait
    uint32_t first                      # none before it does
    uint32_t recall_count               # the lodger's when it came
    # Its recipients are those handed over alone: `index` is of the envelope and not their place, so that message_of() must not
    # be asked of them. They stand in no list of the queue's, and have counted references to their domains.
    message m


cdef class Answers:
    """Who tells the owner of a guest what became of it. None of these may raise."""
    # `place` is the recipient's among those handed over.
    cdef void delivered(self, guest *g, uint32_t place, bint is_traced, uint16_t code, const uint8_t *text, size_t text_length,
                        const uint8_t *remote, size_t remote_length, uint64_t elapsed_ms, bint peer_has_dsn,
                        const char *tls_version, const char *tls_cipher, const char *tls_policy,
                        const char *tls_policy_from) noexcept
    cdef void refused(self, guest *g, uint32_t place, object trouble, bint is_permanent, uint64_t elapsed_ms) noexcept
    cdef void over(self, guest *g) noexcept                 # who was not told of goes back to the owner's queue
    # is_down: not for today alone, and not for this site alone: nothing of the source can be used.
    cdef void source_down(self, Lodger lodger, object trouble, bint is_down) noexcept
    cdef void not_here(self, Lodger lodger) noexcept        # another worker is to be asked


cdef class Lodger:
    """One worker's mail in one ready queue."""
    cdef Answers answers                # None: that worker has gone, or wants no answer
    cdef object ready                   # ReadyQueue
    cdef uint32_t channel               # the owner's name for it
    cdef guest *first                   # with recipients that wait
    cdef guest *last
    cdef uint32_t guest_count           # those whose recipients are all begun too
    cdef uint32_t recall_count          # how often all was sent back
    cdef uint64_t tag
    cdef dict domains                   # name -> DomainQueue of nobody's table: only compared

    cdef void lodge(self, guest *g) noexcept                # takes it over
    cdef object domain_of(self, bytes name)
    cdef void settle_in(self, object ready) noexcept        # its mail waits there from now on
    cdef void send_back(self) noexcept                      # all that has not begun
    cdef void leave(self) noexcept                          # nobody waits for answers; what has not begun is dropped


cdef class Guests:
    """All lodgers of a ready queue, and whose turn it is: by octets served, each worker's mail alike."""
    cdef list lodgers
    cdef readonly uint64_t waiting      # recipients; ReadyQueue.count has them too
    cdef uint64_t tag                   # of who was served last: who begins to wait begins there
    cdef uint64_t own_tag
    cdef bint has_own                   # mail of our own waited at the last look
    cdef uint32_t generation            # of the configuration (Planner's) whose limits the ready queue is known to have

    # A guest's recipients: 1. 0: it is the turn of our own mail. -1: none may go within the domains.
    cdef int take(self, transaction *into, uint32_t limit, domain_budget *domains, uint64_t own_count, bint own_may_go) noexcept
    cdef void charge_own(self, uint64_t octets_count) noexcept
    cdef uint32_t give_back(self, transaction *from_) noexcept      # how many wait again
    # Nobody's next is of this domain, or they are far ahead of the others. own_is_of_it: the next of our own mail is.
    cdef bint is_turn_of_another(self, void *domain, bint own_is_of_it, uint64_t own_count) noexcept
    cdef bytes domain_in_front(self)
    cdef void refuse_all(self, object trouble, bint is_permanent) noexcept     # who waits: one failed attempt each
    # Who waits. trouble: of the source (is_down: see Answers.source_down), or None: another worker is the home.
    cdef void send_back(self, object trouble, bint is_down) noexcept


cdef guest *guest_new(uint32_t recipient_count) except NULL     # its shard, segments and places are the caller's to fill in
cdef void guest_free(guest *g) noexcept                         # one that was never lodged, too
cdef void guest_delivered(transaction *t, uint32_t i, uint16_t code, const uint8_t *text, size_t text_length,
                          const uint8_t *remote, size_t remote_length, uint64_t elapsed_ms, bint peer_has_dsn,
                          const char *tls_version, const char *tls_cipher, const char *tls_policy,
                          const char *tls_policy_from) noexcept
cdef void guest_refused(transaction *t, uint32_t i, object trouble, bint is_permanent, uint64_t elapsed_ms) noexcept
cdef void guest_over(message *m) noexcept                       # all its recipients are over or go back; frees it
cdef uint32_t settle_guest(transaction *from_) noexcept         # its worker has gone: nobody waits for these any more; 0
