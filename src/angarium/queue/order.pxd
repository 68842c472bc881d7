"""The order of a ready queue: see csrc/queue/fair.h."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from angarium.queue.fair cimport fair_link, fair_lists, fair_tree
from angarium.queue.flows cimport Flows
from angarium.queue.message cimport message, recipient


cdef struct order_walk:                 # over recipients of one message that may go together
    message *message
    fair_lists *lists                   # where the first one lies; valid until the next add()
    fair_link *head                     # its list there
    fair_link *following                # behind the last one given
    bint is_again
    uint32_t index                      # of the recipient of the message looked at last
    uint32_t looked                     # how many were


cdef class Order:
    """Who waits in a ready queue, and who goes next. Borrows recipients: their links lie in its lists."""
    cdef Flows flows
    cdef uint32_t number                # of the ready queue: recipient.link.due of who is in it
    cdef uint8_t place                  # recipient_place of who is in it
    # As long as all who wait have one domain and flow and priority 0, they lie here, and there is nothing to share.
    cdef fair_lists lone
    cdef void *lone_domain
    cdef uint64_t lone_tenant, lone_campaign
    cdef fair_tree *tree                # NULL until others come
    cdef fair_tree *aside               # a chain, the one to be emptied first in front

    cdef void add(self, recipient *r, bint at_front) noexcept
    cdef bint join_lone(self, recipient *r, bint at_front) noexcept
    cdef void append_lone(self, recipient *r, bint at_front) noexcept
    cdef bint adopt_lone(self) noexcept
    cdef void remove(self, recipient *r) noexcept
    cdef fair_tree *tree_in_turn(self) noexcept
    cdef recipient *foremost(self) noexcept         # who goes next unless a turn falls to another; NULL: nobody waits

    # begin() gives the first recipient of the message that goes now (NULL: nobody waits), another() the next one of the same
    # message, or NULL: those of its domain first. Who is given may be removed. went() counts the message against its flow, before
    # anybody is removed. is_turn: now and then somebody's who would wait for ever otherwise.
    cdef recipient *begin(self, order_walk *walk, bint is_turn) noexcept
    cdef recipient *another(self, order_walk *walk) noexcept
    cdef void went(self, order_walk *walk) noexcept

    # All who wait now, one after the other, while others come and go: each of them once, unless it goes meanwhile. NULL: no more.
    cdef void set_aside(self) noexcept
    cdef recipient *next_aside(self) noexcept
