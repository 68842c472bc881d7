"""csrc/queue/fair.h"""
from libc.stdint cimport uint32_t, uint64_t


cdef extern from "queue/fair.h" nogil:
    enum:
        FAIR_LEVELS
        FAIR_USUAL
        FAIR_MESSAGES_A_TURN

    ctypedef struct fair_link:
        fair_link *next
        fair_link *previous

    ctypedef struct fair_lists:
        fair_link first
        fair_link again

    ctypedef struct fair_flow:
        uint64_t tenant
        uint64_t campaign
        uint32_t weight

    ctypedef struct fair_tree:
        uint32_t waiting
        bint is_aside
        uint32_t node_count
        uint32_t idle_count
        fair_tree *next

    void fair_lists_init(fair_lists *self)
    bint fair_lists_empty(const fair_lists *self)
    fair_tree *fair_tree_new()
    void fair_tree_free(fair_tree *self)
    int fair_add(fair_tree *self, unsigned level, const fair_flow *flow, uint64_t domain, fair_link *link, bint is_again,
                 bint at_front)
    int fair_adopt(fair_tree *self, unsigned level, const fair_flow *flow, uint64_t domain, fair_lists *lists)
    void fair_remove(fair_link *link, bint is_again)
    unsigned fair_highest(const fair_tree *self)
    unsigned fair_level_in_turn(fair_tree *self)
    fair_lists *fair_foremost(const fair_tree *self, unsigned level)
    bint fair_is_again(const fair_lists *self)
    fair_link *fair_next(const fair_lists *self)
    void fair_pass(fair_lists *self, bint is_again)
    void fair_charge(fair_lists *self, uint64_t octets)
    void fair_tidy(fair_tree *self)
