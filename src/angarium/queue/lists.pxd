# Circular lists of wheel nodes: a node is in the wheel or in one list, never in both.
from angarium.queue.wheel cimport wheel_node


cdef inline void list_init(wheel_node *head) noexcept nogil:
    head.next = head
    head.previous = head


cdef inline void list_append(wheel_node *head, wheel_node *node) noexcept nogil:
    node.next = head
    node.previous = head.previous
    head.previous.next = node
    head.previous = node


cdef inline void list_prepend(wheel_node *head, wheel_node *node) noexcept nogil:
    node.previous = head
    node.next = head.next
    head.next.previous = node
    head.next = node


cdef inline void list_remove(wheel_node *node) noexcept nogil:
    node.previous.next = node.next
    node.next.previous = node.previous
    node.next = NULL
    node.previous = NULL
