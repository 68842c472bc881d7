# The timer wheel: SMTP deadlines and retry times. Four levels of 256 slots of circular lists of embedded nodes;
# a node moves down a level each time the hand of the level above passes its slot (Varghese and Lauck 1987).
# It is not a clock: times are rounded up to the next 100 ms tick, never early.
cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from angarium.model.clock cimport mono_ms

import traceback


cdef enum:
    BUDGET = 2000                   # nodes in one turn of the loop: a few milliseconds


cdef inline void unlink(wheel_node *node) noexcept nogil:
    node.previous.next = node.next
    node.next.previous = node.previous
    node.next = NULL
    node.previous = NULL


@cython.final
cdef class Wheel:
    """Owns slots, borrows nodes. Armed nodes must be disarmed before their memory goes."""

    def __cinit__(self, object loop=None):
        cdef int level, slot
        cdef wheel_node *head
        for level in range(4):
            for slot in range(256):
                head = &self.levels[level][slot]
                head.next = head
                head.previous = head
        self.cascading.next = &self.cascading
        self.cascading.previous = &self.cascading
        self.now = 0
        self.count = 0
        self.kinds = 0
        self.alarm_kind = -1
        self.origin_ms = mono_ms()
        self.loop = loop
        self.handle = None
        self.is_closed = False

    cdef int register(self, wheel_fire fire, void *context) except -1:
        if self.kinds == WHEEL_KINDS:
            raise RuntimeError("all kinds of wheel nodes are taken: raise WHEEL_KINDS")
        self.fire[self.kinds] = fire
        self.context[self.kinds] = context
        self.kinds += 1
        return self.kinds - 1

    cdef uint32_t tick(self) noexcept:
        return <uint32_t>((mono_ms() - self.origin_ms) // WHEEL_TICK_MS)

    cdef void place(self, wheel_node *node) noexcept:
        cdef uint32_t ahead = node.due - self.now
        cdef wheel_node *head
        if ahead < 256:
            head = &self.levels[0][node.due & 255]
        elif ahead < 1 << 16:
            head = &self.levels[1][node.due >> 8 & 255]
        elif ahead < 1 << 24:
            head = &self.levels[2][node.due >> 16 & 255]
        else:
            head = &self.levels[3][node.due >> 24 & 255]
        node.next = head
        node.previous = head.previous
        head.previous.next = node
        head.previous = node

    cdef void arm(self, wheel_node *node, uint64_t delay_ms) noexcept:
        cdef uint32_t tick = self.tick()
        cdef uint64_t ticks = (delay_ms + WHEEL_TICK_MS - 1) // WHEEL_TICK_MS + 1
        if node.next != NULL:
            unlink(node)
            self.count -= 1
        if self.count == 0 and tick > self.now:
            self.now = tick             # nothing is armed: no slot can be missed by jumping
        if ticks > 0x7fffffff:
            ticks = 0x7fffffff          # seven years
        node.due = tick + <uint32_t>ticks
        self.place(node)
        self.count += 1
        if self.handle is None and self.loop is not None and not self.is_closed:
            self.schedule()

    cdef void disarm(self, wheel_node *node) noexcept:
        if node.next != NULL:
            unlink(node)
            self.count -= 1

    cdef uint64_t remaining_ms(self, wheel_node *node) noexcept:
        cdef uint32_t tick = self.tick()
        if node.next == NULL or node.due <= tick:
            return 0
        return <uint64_t>(node.due - tick) * WHEEL_TICK_MS

    cdef bint advance(self, uint32_t tick, uint64_t budget) noexcept:
        """A backlog has millions due within a minute: no more than `budget` nodes are touched, and time stands still for the
        rest until the next call."""
        cdef wheel_node *node
        while True:
            while self.cascading.next != &self.cascading:
                if budget == 0:
                    return False
                budget -= 1
                node = self.cascading.next
                node.previous.next = node.next
                node.next.previous = node.previous
                self.place(node)
            if not self.fire_due(&budget):
                return False
            if self.now >= tick or self.count == 0:
                break
            self.now += 1
            if self.now & 0xff == 0:
                self.cascade(1, self.now >> 8 & 255)
                if self.now & 0xffff == 0:
                    self.cascade(2, self.now >> 16 & 255)
                    if self.now & 0xffffff == 0:
                        self.cascade(3, self.now >> 24 & 255)
        if self.now < tick:
            self.now = tick
        return True

    cdef bint fire_due(self, uint64_t *budget) noexcept:
        cdef wheel_node *head = &self.levels[0][self.now & 255]
        cdef wheel_node *node
        # A callback may arm and disarm anything; what it arms is due after `now`, so never lands here.
        while head.next != head:
            if budget[0] == 0:
                return False
            budget[0] -= 1
            node = head.next
            unlink(node)
            self.count -= 1
            self.fire[node.kind](node, self.context[node.kind])
        return True

    cdef void cascade(self, int level, int slot) noexcept:
        """All of the slot, in one step, behind those that wait to be placed."""
        cdef wheel_node *head = &self.levels[level][slot]
        if head.next == head:
            return
        head.next.previous = self.cascading.previous
        self.cascading.previous.next = head.next
        head.previous.next = &self.cascading
        self.cascading.previous = head.previous
        head.next = head
        head.previous = head

    cdef void schedule(self) noexcept:
        try:
            self.handle = self.loop.call_later(WHEEL_TICK_MS / 1000.0, self.turn)
        except Exception:       # the loop is closing: no deadline matters any more
            self.handle = None

    def turn(self):
        """The loop's callback; reschedules itself while anything is armed."""
        cdef bint is_done
        self.handle = None
        is_done = self.advance(self.tick(), BUDGET)
        if self.count and self.handle is None and not self.is_closed:
            if is_done:
                self.schedule()
            else:
                self.handle = self.loop.call_soon(self.turn)

    def close(self):
        """Fires nothing any more."""
        self.is_closed = True
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None

    def pass_ms(self, uint64_t milliseconds):
        """Moves time for tests; what is due is found by the next turn."""
        self.origin_ms -= milliseconds

    def advance_by_ms(self, uint64_t milliseconds):
        """Moves time for tests: as if that much had passed."""
        self.origin_ms -= milliseconds
        while not self.advance(self.tick(), BUDGET):
            pass


cdef void alarm_due(wheel_node *node, void *context) noexcept:
    cdef Alarm alarm = <Alarm>(<PyObject *>(<size_t>node - alarm_offset))
    try:
        alarm.callback()
    except Exception:
        traceback.print_exc()       # a callback's bug must not stop everybody else's timers


cdef size_t alarm_offset = 0


# Not cleared by the collector: an armed alarm that is garbage still takes itself from its wheel.
@cython.final
@cython.no_gc_clear
cdef class Alarm:
    """A node with a Python callback. Holds its wheel; the wheel does not hold it: keep it while it is armed."""

    def __cinit__(self, Wheel wheel, callback):
        global alarm_offset
        alarm_offset = <size_t>&self.node - <size_t><PyObject *>self
        self.wheel = wheel
        self.callback = callback
        self.node.next = NULL
        if wheel.alarm_kind < 0:
            wheel.alarm_kind = wheel.register(alarm_due, NULL)
        self.node.kind = <uint8_t>wheel.alarm_kind

    def __dealloc__(self):
        if self.node.next != NULL:
            unlink(&self.node)
            self.wheel.count -= 1

    def arm(self, double seconds):
        self.wheel.arm(&self.node, <uint64_t>(max(seconds, 0.0) * 1000))

    def disarm(self):
        self.wheel.disarm(&self.node)

    @property
    def remaining_s(self):
        return self.wheel.remaining_ms(&self.node) / 1000.0
