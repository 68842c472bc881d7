# Between a ready queue and its fair order in C: who is one flow, and the short cut for a queue in which there is only one.
#
# While one domain's mail of one tenant and campaign waits, a list is all there is; the tree of shares is made when somebody else
# comes, and used until nobody waits. A queue that keeps up with its mail never comes to that.
cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from angarium.queue.fair cimport (
    FAIR_USUAL, fair_add, fair_adopt, fair_charge, fair_flow, fair_foremost, fair_highest, fair_is_again, fair_level_in_turn, fair_link,
    fair_lists_empty, fair_lists_init, fair_next, fair_pass, fair_remove, fair_tidy, fair_tree, fair_tree_free,
    fair_tree_new)
from angarium.queue.flows cimport Flows
from angarium.queue.lists cimport list_append, list_prepend
from angarium.queue.message cimport PLACE_READY, flow_of, message, message_of, recipient
from angarium.queue.wheel cimport wheel_node

cdef enum:
    # Of a message's recipients, looked at for others that could travel along. Judged: all of any usual message.
    LOOKED_AT_ONCE = 1024


cdef inline unsigned level_of(message *m) noexcept:
    return FAIR_USUAL + m.priority


cdef inline uint64_t domain_key(recipient *r) noexcept:
    # Only a tag that outlives its domain could be taken for a later one's at the same place; it is worth one message.
    return <uint64_t><size_t>r.domain


@cython.final
cdef class Order:
    def __cinit__(self, Flows flows, uint8_t place=PLACE_READY):
        self.flows = flows
        self.place = place
        self.tree = NULL
        self.aside = NULL
        fair_lists_init(&self.lone)

    def __dealloc__(self):
        cdef fair_tree *tree = self.aside
        while tree != NULL:
            self.aside = tree.next
            fair_tree_free(tree)
            tree = self.aside
        fair_tree_free(self.tree)

    cdef void add(self, recipient *r, bint at_front) noexcept:
        cdef message *m = message_of(r)
        if self.tree == NULL or self.tree.waiting == 0:
            if self.join_lone(r, at_front):
                return
            if self.tree == NULL:
                self.tree = fair_tree_new()
            if self.tree == NULL or not self.adopt_lone():
                self.append_lone(r, at_front)
                return
        fair_tidy(self.tree)
        if fair_add(self.tree, level_of(m), self.flows.value_of(flow_of(m)), domain_key(r), <fair_link *>&r.link,
                    r.link.tally != 0, at_front) != 0:
            self.append_lone(r, at_front)       # out of memory: it goes before its turn

    cdef bint join_lone(self, recipient *r, bint at_front) noexcept:
        """False: r is of another domain or flow than who lies there."""
        cdef message *m = message_of(r)
        cdef const fair_flow *flow
        cdef uint32_t number
        if m.priority != 0:
            return False
        number = flow_of(m)
        if fair_lists_empty(&self.lone):
            self.lone_domain = r.domain
            self.lone_tenant = self.lone_campaign = 0
            if number:
                flow = self.flows.value_of(number)
                self.lone_tenant = flow.tenant
                self.lone_campaign = flow.campaign
        elif r.domain != self.lone_domain:
            return False
        elif number or self.lone_tenant or self.lone_campaign:
            flow = self.flows.value_of(number)
            if flow.tenant != self.lone_tenant or flow.campaign != self.lone_campaign:
                return False
        self.append_lone(r, at_front)
        if self.tree != NULL and self.tree.idle_count:
            fair_tidy(self.tree)
        return True

    cdef void append_lone(self, recipient *r, bint at_front) noexcept:
        cdef wheel_node *head = <wheel_node *>(&self.lone.again if r.link.tally else &self.lone.first)
        if at_front:
            list_prepend(head, &r.link)
        else:
            list_append(head, &r.link)

    cdef bint adopt_lone(self) noexcept:
        """Into the tree with who lies there; False: out of memory."""
        cdef recipient *r
        if fair_lists_empty(&self.lone):
            return True
        r = <recipient *>fair_next(&self.lone)
        return fair_adopt(self.tree, FAIR_USUAL, self.flows.value_of(flow_of(message_of(r))), domain_key(r), &self.lone) == 0

    cdef void remove(self, recipient *r) noexcept:
        fair_remove(<fair_link *>&r.link, r.link.tally != 0)

    cdef fair_tree *tree_in_turn(self) noexcept:
        """NULL: nobody waits in any."""
        cdef fair_tree *tree = self.aside
        if self.tree != NULL and self.tree.waiting:
            return self.tree
        while tree != NULL and tree.waiting == 0:
            tree = tree.next
        return tree

    cdef recipient *foremost(self) noexcept:
        cdef fair_tree *tree
        if not fair_lists_empty(&self.lone):
            return <recipient *>fair_next(&self.lone)
        tree = self.tree_in_turn()
        if tree == NULL:
            return NULL
        return <recipient *>fair_next(fair_foremost(tree, fair_highest(tree)))

    cdef recipient *begin(self, order_walk *walk, bint is_turn) noexcept:
        cdef fair_tree *tree
        cdef recipient *r
        if not fair_lists_empty(&self.lone):
            walk.lists = &self.lone
        else:
            tree = self.tree_in_turn()
            if tree == NULL:
                return NULL
            walk.lists = fair_foremost(tree, fair_level_in_turn(tree) if is_turn else fair_highest(tree))
        walk.is_again = fair_is_again(walk.lists)
        r = <recipient *>fair_next(walk.lists)
        walk.head = &walk.lists.again if walk.is_again else &walk.lists.first
        walk.following = <fair_link *>r.link.next
        walk.message = message_of(r)
        walk.index = r.index
        walk.looked = 0
        return r

    cdef void went(self, order_walk *walk) noexcept:
        fair_pass(walk.lists, walk.is_again)
        if walk.lists != &self.lone:
            fair_charge(walk.lists, walk.message.message_octets)
            if self.tree != NULL:
                fair_tidy(self.tree)        # nobody has been removed yet: what the walk looks at is not idle

    cdef recipient *another(self, order_walk *walk) noexcept:
        cdef message *m = walk.message
        cdef recipient *r
        if m.recipient_count == 1:
            return NULL
        if walk.following != walk.head:
            r = <recipient *>walk.following
            if message_of(r) == m:
                walk.following = <fair_link *>r.link.next
                return r
            walk.following = walk.head
        if walk.lists == &self.lone:
            return NULL                 # there is nobody else
        while walk.looked < m.recipient_count and walk.looked < LOOKED_AT_ONCE:
            walk.looked += 1
            walk.index += 1
            if walk.index >= m.recipient_count:
                walk.index = 0
            r = &m.recipients[walk.index]
            if r.link.where == self.place and r.link.due == self.number:
                return r
        return NULL

    cdef void set_aside(self) noexcept:
        cdef fair_tree *tree = self.tree
        cdef fair_tree **last = &self.aside
        if not fair_lists_empty(&self.lone):
            if tree == NULL:
                tree = self.tree = fair_tree_new()
            if tree == NULL or not self.adopt_lone():
                return                  # out of memory: who waits goes where it lies
        if tree == NULL or tree.waiting == 0:
            return
        self.tree = NULL
        tree.is_aside = True
        while last[0] != NULL:
            last = &last[0].next
        last[0] = tree

    cdef recipient *next_aside(self) noexcept:
        cdef fair_tree *tree = self.aside
        while tree != NULL:
            if tree.waiting:
                fair_tidy(tree)
                return <recipient *>fair_next(fair_foremost(tree, fair_highest(tree)))
            self.aside = tree.next
            fair_tree_free(tree)
            tree = self.aside
        return NULL
