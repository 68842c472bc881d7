# Compaction, the queue's half: empties the segment that the spool names by moving on what still matters in it. What that is and
# why it is safe stands in docs/spool-format.md ("Compaction"); the spool's half is csrc/spool/compact.c.
#
# The segment's own index leads: for each record in it the message is looked up by its id, so that nothing here grows with the
# queue. A message that somebody is busy with is left where it is, and the segment is tried again later. What is moved does not wait
# for a commit to ride on as outcomes do: a message is held while it moves, and what becomes of it meanwhile waits for that.
#
# Order of one move, each step after the one before is durable: copy (chunks, then envelope), newest outcome, and then the old
# copy is freed. Until then the old one is what the queue knows and what a crash would find, or the copy, never neither.
# What is busy, or may not be moved into the segment that is being written (may_move), keeps the victim; it comes again later.
cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EBADMSG, EIO, ENOMEM
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from angarium.metrics.counters cimport Counter
from angarium.model.clock cimport mono_ms, utc_ms
from angarium.model.octets cimport octets, octets_unref
from angarium.queue.message cimport MESSAGE_IS_MOVING, body_place, chunk_count_of, chunk_octets, message, record_octets
from angarium.queue.record cimport state_record
from angarium.queue.scheduler cimport Scheduler
from angarium.spool.cspool cimport (
    SPOOL_BODY, SPOOL_ENVELOPE, SPOOL_ENVELOPE_INLINE, SPOOL_FREED, SPOOL_OUTCOME, spool_chunk, spool_envelope, spool_envelope_chunk, spool_envelope_chunk_position,
    spool_envelope_mark_copy, spool_envelope_open, spool_envelope_set_chunk, spool_op, spool_place, spool_read_op,
    spool_segment, spool_segment_serial)
from angarium.spool.shard cimport Shard

import asyncio

from angarium.metrics.counters import counter

cdef Counter moved_messages = counter("angarium_compaction_messages_total", "Messages copied on by compaction.")
cdef Counter moved_octets = counter("angarium_compaction_octets_total", "Octets copied on by compaction.")
cdef Counter emptied = counter("angarium_compaction_segments_total", "Segments emptied by compaction.")
cdef Counter postponed = counter("angarium_compaction_postponed_total", "Segments left for later: in use, or damaged.")

cdef enum:
    MOVES = 64                      # messages on their way at once; four times as many in haste
    MOVES_OCTETS = 4 << 20          # and about so much of them in memory
    SLICE = 1000                    # records of the index looked at in one turn of the loop
    INDEX_FIXED_OCTETS = 16         # csrc/spool/format.h
    INDEX_ENTRY_OCTETS = 20
    FREED_ENTRY_OCTETS = 12
    BUSY_AGAIN_MS = 5000
    DAMAGED_AGAIN_MS = 3600000
    # The pace, so that commits lose little: so much time for each move and octet, from the beginning of one victim to the next, is
    # five hundred moves or 8 MB a second. Not from move to move: a trickle of copies would leave some in every segment that new mail
    # fills, and none of those could be used again without a move of its own. While it rests from moving, segments that hold nothing
    # but freed entries are emptied all the same: the copies of each victim pin a chain of those (csrc/spool/compact.c).
    # The pace follows what the disk takes beyond its bound (haste, csrc/spool/compact.c): a few segments beyond are left to it, and
    # commits lose next to nothing; with each one more it grows by a multiple. So it settles where as many segments are emptied as
    # mail leaves behind, however fast that comes.
    MOVE_US = 2000
    OCTETS_PER_US = 8

cdef double LOOK_S = 0.5            # between looks for a victim
cdef double RESTING_LOOK_S = 0.02
cdef double SETTLE_S = 0.02         # between looks whether what was moved is durable


cdef inline uint32_t load32(const uint8_t *at) noexcept nogil:
    return at[0] | <uint32_t>at[1] << 8 | <uint32_t>at[2] << 16 | <uint32_t>at[3] << 24


cdef inline uint64_t load64(const uint8_t *at) noexcept nogil:
    return load32(at) | <uint64_t>load32(at + 4) << 32


# One message on its way. The message is held, so it neither ends nor is freed; whether somebody took it meanwhile is seen by
# the number of holds at the end. A counted reference to the Compactor.
cdef struct move:
    spool_op op
    spool_read_op read
    message *message
    void *compactor
    octets *envelope                # of the copy
    octets *piece                   # the body, or the chunk under way
    spool_place home                # of the copy, once it is durable
    spool_place body
    spool_segment *state            # of the newest outcome, written again
    bint has_outcome                # the message had one when the copy was made
    spool_place *chunks             # of the copy; chunk_count of them
    uint32_t chunk_count
    uint32_t chunk                  # chunks copied
    uint64_t octets_count


# A freed record of the victim that is being read.
cdef struct freed_read:
    spool_read_op read
    void *compactor


cdef void index_read(spool_read_op *op, void *context) noexcept:
    cdef Compactor self = <Compactor>context
    self.index_arrived(op)
    Py_DECREF(self)


cdef void freed_arrived(spool_read_op *op, void *context) noexcept:
    cdef freed_read *reading = <freed_read *>context
    cdef Compactor self = <Compactor>reading.compactor
    self.repeat_freed(op)
    octets_unref(op.out)
    free(reading)
    self.one_less()
    Py_DECREF(self)


cdef void envelope_read(spool_read_op *op, void *context) noexcept:
    cdef move *self = <move *>context
    cdef Compactor compactor = <Compactor>self.compactor
    cdef spool_envelope view
    cdef spool_place place
    if op.error != 0 or spool_envelope_open(op.out.data, op.out.length, &view) != 0:
        octets_unref(op.out)
        compactor.give_up(self, op.error or EBADMSG)
        return
    self.envelope = op.out
    self.has_outcome = self.message.state_segment != NULL
    spool_envelope_mark_copy(self.envelope.data, self.has_outcome)
    if self.message.flags & SPOOL_ENVELOPE_INLINE:
        place = body_place(self.message)
        compactor.read(self, SPOOL_BODY, 0, place.segment, place.offset, place.length, body_read)
    elif view.chunk_count != self.chunk_count:
        compactor.give_up(self, EBADMSG)
    else:
        compactor.next_chunk(self)


cdef void body_read(spool_read_op *op, void *context) noexcept:
    cdef move *self = <move *>context
    cdef Compactor compactor = <Compactor>self.compactor
    if op.error != 0:
        compactor.give_up(self, op.error)
        return
    self.piece = op.out
    compactor.write_envelope(self, op.out)


cdef void chunk_read(spool_read_op *op, void *context) noexcept:
    cdef move *self = <move *>context
    cdef Compactor compactor = <Compactor>self.compactor
    if op.error != 0:
        compactor.give_up(self, op.error)
        return
    self.piece = op.out
    compactor.write_chunk(self)


cdef void chunk_written(spool_op *op, void *context) noexcept:
    cdef move *self = <move *>context
    cdef Compactor compactor = <Compactor>self.compactor
    cdef spool_chunk chunk
    octets_unref(self.piece)
    self.piece = NULL
    if op.error != 0:
        compactor.give_up(self, op.error)
        return
    self.chunks[self.chunk] = op.place
    chunk.segment_serial = spool_segment_serial(op.place.segment)
    chunk.offset = op.place.offset
    chunk.length = op.place.length
    spool_envelope_set_chunk(self.envelope.data, self.chunk, chunk)
    self.chunk += 1
    compactor.next_chunk(self)


cdef void envelope_written(spool_op *op, void *context) noexcept:
    cdef move *self = <move *>context
    cdef Compactor compactor = <Compactor>self.compactor
    if op.error != 0:
        compactor.give_up(self, op.error)
        return
    self.home = op.place
    self.body = op.body_place
    compactor.write_outcome(self)


cdef void outcome_written(spool_op *op, void *context) noexcept:
    cdef move *self = <move *>context
    cdef Compactor compactor = <Compactor>self.compactor
    cdef int error = op.error
    self.message.state_in_flight = False
    compactor.scheduler.states_in_flight -= 1
    octets_unref(op.payload)
    if error != 0:
        compactor.give_up(self, error)
        return
    self.state = op.place.segment
    compactor.conclude(self)


@cython.final
cdef class Compactor:
    """One for each shard of a worker. Begins with start(), once the shard's backlog has been taken over; stop() ends it.

    Attributes: `is_busy`, whether a segment is being emptied.
    """
    cdef readonly Scheduler scheduler
    cdef readonly Shard shard
    cdef object loop
    cdef object bound_look, bound_step, bound_settle
    cdef object timer
    cdef spool_segment *victim
    cdef octets *index
    cdef uint32_t count, cursor
    cdef uint32_t under_way, moves          # moves and reads; and as many may be
    cdef uint64_t octets_under_way
    cdef uint64_t rest_from_us, debt_us     # since when a rest is owed, and how long a one at the bound; 0: none yet
    cdef bint is_stopping, is_damaged, is_left_over, step_is_due
    cdef bint is_settling                   # the whole index was gone through
    cdef bint has_no_mail                   # of the victim: only outcomes and freed entries matter
    # Copies given up: message id -> serial of the copy's home. Freed records name no more than that, so no later copy of the message
    # may lie there. Forgotten once the segment is sealed.
    cdef dict given_up

    def __cinit__(self, Scheduler scheduler not None, Shard shard not None):
        self.scheduler = scheduler
        self.shard = shard
        self.loop = scheduler.loop
        self.given_up = {}
        self.bound_look, self.bound_step, self.bound_settle = self._look, self._step, self._settle

    def __dealloc__(self):
        octets_unref(self.index)

    @property
    def is_busy(self):
        return self.victim != NULL

    def start(self):
        self.look_later(LOOK_S)

    async def stop(self):
        """Begins nothing more; returns when nothing is under way. The segment in hand stays as it is."""
        self.is_stopping = True
        if self.timer is not None:
            self.timer.cancel()
        while self.under_way:
            await asyncio.sleep(0.01)
        if self.victim != NULL:
            self.end(False)

    # ---- a victim ----

    @property
    def owed_s(self):
        return self.debt_us / 1000000.0

    @property
    def rest_s(self):
        return self.rest()

    cdef double rest(self) noexcept:
        """How long until the next victim from which something is moved. A full disk cannot wait."""
        cdef uint64_t until_us = self.rest_ends_us(), now_us = mono_ms() * 1000
        return (until_us - now_us) / 1000000.0 if until_us > now_us and self.shard.has_room() else 0.0

    cdef uint64_t rest_ends_us(self) noexcept:
        return self.rest_from_us + self.debt_us / self.shard.haste()

    def _look(self):
        cdef spool_read_op *op
        cdef double rest_s = self.rest()
        self.timer = None
        if self.is_stopping:
            return
        if self.given_up:
            self.given_up = {message_id: home for message_id, home in self.given_up.items() if not self.shard.is_sealed(home)}
        self.victim = self.shard.victim(rest_s > 0)
        if self.victim == NULL:
            self.look_later(min(rest_s, RESTING_LOOK_S) if rest_s > 0 else LOOK_S)
            return
        self.is_damaged = self.is_left_over = self.is_settling = False
        self.has_no_mail = not self.shard.has_live(self.victim)      # it is sealed: it will have none
        op = <spool_read_op *>calloc(1, sizeof(spool_read_op))
        if op == NULL:
            self.end(False)
            return
        op.place.segment = self.victim
        op.wants_index = True
        op.done = index_read
        op.context = <void *>self
        Py_INCREF(self)
        self.under_way += 1
        self.shard.read(op)

    cdef int index_arrived(self, spool_read_op *op) noexcept:
        cdef octets *index = op.out
        cdef int error = op.error
        free(op)
        self.under_way -= 1
        if error != 0:
            octets_unref(index)
            self.is_damaged = error == EBADMSG or error == EIO      # else there were no descriptors, or no memory, for a moment
            self.end(False)
            return 0
        self.index = index
        self.count = load32(index.data)
        self.cursor = 0
        self.schedule_step()
        return 0

    cdef int end(self, bint is_moved) noexcept:
        if is_moved and not self.is_left_over:
            emptied.cell[0] += 1
        else:
            postponed.cell[0] += 1
        self.shard.victim_done(self.victim, is_moved, mono_ms() + (DAMAGED_AGAIN_MS if self.is_damaged else BUSY_AGAIN_MS))
        self.victim = NULL
        octets_unref(self.index)
        self.index = NULL
        if not self.is_stopping:
            self.look_later(0.001 if is_moved else LOOK_S)
        return 0

    cdef int look_later(self, double delay_s) noexcept:
        try:
            self.timer = self.loop.call_later(delay_s, self.bound_look)
        except Exception:                   # the loop is closed
            pass
        return 0

    cdef int schedule_step(self) noexcept:
        if self.step_is_due:
            return 0
        self.step_is_due = True
        try:
            self.loop.call_soon(self.bound_step)
        except Exception:
            pass
        return 0

    cdef void pace(self, uint64_t octets_count) noexcept:
        cdef uint64_t now_us = mono_ms() * 1000
        if self.rest_ends_us() <= now_us:
            self.rest_from_us = now_us
            self.debt_us = 0
        self.debt_us += MOVE_US + octets_count / OCTETS_PER_US

    cdef int one_less(self) noexcept:
        self.under_way -= 1
        if self.victim != NULL and self.under_way <= self.moves / 2:
            self.schedule_step()
        return 0

    # ---- its records ----

    cdef bint may_move(self, message *m) noexcept:
        # A copy must lie where no copy of this message has lain: freed records name a message and a home, and would mean both.
        if not self.shard.is_sealed(spool_segment_serial(m.home)):
            return False
        return not self.given_up or m.id not in self.given_up or self.shard.is_sealed(self.given_up[m.id])

    cdef bint has_chunk_here(self, message *m) noexcept:
        cdef uint32_t i
        for i in range(chunk_count_of(m)):
            if m.where.chunks.segments[i] == self.victim:
                return True
        return False

    def _step(self):
        cdef const uint8_t *entry
        cdef uint32_t kind, looked = 0
        cdef message *m
        self.step_is_due = False
        self.moves = MOVES * min(self.shard.haste(), <uint32_t>4)
        if self.victim == NULL or self.index == NULL or self.is_stopping or self.is_settling:
            return
        while self.cursor < self.count:
            if self.under_way >= self.moves or self.octets_under_way >= MOVES_OCTETS:
                return                              # one_less() goes on
            looked += 1
            if looked > SLICE:
                self.schedule_step()
                return
            entry = self.index.data + INDEX_FIXED_OCTETS + <size_t>self.cursor * INDEX_ENTRY_OCTETS
            self.cursor += 1
            kind = load32(entry + 16)
            if kind == SPOOL_FREED:
                if self.shard.frees_others(self.victim, load32(entry)):
                    self.read_freed(load32(entry), load32(entry + 4))
                continue
            if self.has_no_mail and kind != SPOOL_OUTCOME:
                continue
            m = self.scheduler.index.find(load64(entry + 8))
            if m == NULL or m.hand_count or m.state_in_flight:
                continue
            if kind == SPOOL_ENVELOPE and m.home == self.victim or kind == SPOOL_BODY and self.has_chunk_here(m):
                if self.may_move(m):
                    self.begin_move(m)
            elif kind == SPOOL_OUTCOME and m.state_segment == self.victim and m.home != self.victim:
                m.is_dirty = True
                self.pace(0)
                self.scheduler.settle_message(m)
        if self.under_way == 0:
            self.is_settling = True
            self.timer = self.loop.call_later(SETTLE_S, self.bound_settle)

    cdef int read_freed(self, uint32_t offset, uint32_t length) noexcept:
        cdef freed_read *reading = <freed_read *>calloc(1, sizeof(freed_read))
        if reading == NULL:
            self.is_damaged = True
            return 0
        reading.compactor = <void *>self
        reading.read.place.segment = self.victim
        reading.read.place.offset = offset
        reading.read.place.length = length
        reading.read.wanted.kind = SPOOL_FREED
        reading.read.done = freed_arrived
        reading.read.context = reading
        Py_INCREF(self)
        self.under_way += 1
        self.shard.read(&reading.read)
        return 0

    cdef int repeat_freed(self, spool_read_op *op) noexcept:
        cdef size_t at = 0
        if op.error != 0:
            self.is_damaged = True
            return 0
        while at + FREED_ENTRY_OCTETS <= op.out.length:
            self.shard.free_again(load64(op.out.data + at), load32(op.out.data + at + 8), self.victim)
            at += FREED_ENTRY_OCTETS
        return 0

    # ---- is everything out of it? ----

    def _settle(self):
        """What was moved must be durable, and no newest outcome may be left here."""
        cdef int64_t repeats
        self.timer = None
        if self.victim == NULL or self.is_stopping:
            return
        repeats = self.shard.repeats_under_way(self.victim)
        if self.is_damaged or repeats < 0:
            self.end(False)
        elif repeats > 0:
            self.timer = self.loop.call_later(SETTLE_S, self.bound_settle)
        else:
            self.cursor = 0
            self._check()

    def _check(self):
        cdef const uint8_t *entry
        cdef message *m
        cdef uint32_t kind, looked = 0
        if self.victim == NULL or self.is_stopping:
            return
        while self.cursor < self.count:
            looked += 1
            if looked > SLICE:
                self.loop.call_soon(self._check)
                return
            entry = self.index.data + INDEX_FIXED_OCTETS + <size_t>self.cursor * INDEX_ENTRY_OCTETS
            kind = load32(entry + 16)
            m = NULL
            if kind == SPOOL_OUTCOME or kind != SPOOL_FREED and not self.has_no_mail:
                m = self.scheduler.index.find(load64(entry + 8))
            if m != NULL:
                if m.state_segment == self.victim:
                    if m.state_in_flight:           # it is being written again: look once more
                        self.timer = self.loop.call_later(SETTLE_S, self.bound_settle)
                    else:
                        self.end(False)
                    return
                if m.home == self.victim or kind == SPOOL_BODY and self.has_chunk_here(m):
                    self.is_left_over = True        # somebody was busy with it; the rest need not come again for it
            self.cursor += 1
        self.end(True)

    # ---- one message ----

    cdef int begin_move(self, message *m) noexcept:
        cdef move *one = <move *>calloc(1, sizeof(move))
        if one == NULL:
            return 0
        one.chunk_count = chunk_count_of(m)
        if one.chunk_count:
            one.chunks = <spool_place *>calloc(one.chunk_count, sizeof(spool_place))
            if one.chunks == NULL:
                free(one)
                return 0
        one.message = m
        one.octets_count = record_octets(m)
        if one.chunk_count:
            one.octets_count += chunk_octets(m)
        one.compactor = <void *>self
        Py_INCREF(self)
        self.under_way += 1
        self.octets_under_way += one.octets_count
        self.pace(one.octets_count)
        self.scheduler.hold(m)
        m.flags |= MESSAGE_IS_MOVING
        self.read(one, SPOOL_ENVELOPE, 0, m.home, m.envelope_offset, m.envelope_length, envelope_read)
        return 0

    cdef int read(self, move *one, uint8_t kind, uint32_t run_offset, spool_segment *segment, uint32_t offset, uint32_t length,
                  void (*done)(spool_read_op *, void *) noexcept) noexcept:
        memset(&one.read, 0, sizeof(spool_read_op))
        if segment == NULL:
            self.give_up(one, EIO)
            return 0
        one.read.place.segment = segment
        one.read.place.offset = offset
        one.read.place.length = length
        one.read.wanted.kind = kind
        one.read.wanted.id = one.message.id
        one.read.wanted.run_offset = run_offset
        one.read.done = done
        one.read.context = one
        self.shard.read(&one.read)
        return 0

    cdef int submit(self, move *one, uint8_t kind, octets *payload, octets *body,
                    void (*done)(spool_op *, void *) noexcept) noexcept:
        memset(&one.op, 0, sizeof(spool_op))
        one.op.kind = kind
        one.op.id = one.message.id
        one.op.is_copy = True
        one.op.payload = payload
        one.op.body = body
        one.op.done = done
        one.op.context = one
        if kind == SPOOL_OUTCOME:
            one.op.about = one.home.segment
        self.shard.submit(&one.op)
        return 0

    cdef int next_chunk(self, move *one) noexcept:
        cdef spool_envelope view
        cdef spool_chunk chunk
        if self.is_stopping:
            self.discard(one)
            return 0
        if one.chunk == one.chunk_count:
            self.write_envelope(one, NULL)
            return 0
        spool_envelope_open(one.envelope.data, one.envelope.length, &view)
        chunk = spool_envelope_chunk(&view, one.chunk)
        self.read(one, SPOOL_BODY, spool_envelope_chunk_position(&view, one.chunk), one.message.where.chunks.segments[one.chunk],
                  chunk.offset, chunk.length, chunk_read)
        return 0

    cdef int write_chunk(self, move *one) noexcept:
        cdef uint64_t before = 0
        cdef uint32_t i
        for i in range(one.chunk):
            before += one.chunks[i].length
        moved_octets.cell[0] += <long long>one.piece.length
        self.submit(one, SPOOL_BODY, one.piece, NULL, chunk_written)
        one.op.aux = before
        return 0

    cdef int write_envelope(self, move *one, octets *body) noexcept:
        moved_octets.cell[0] += <long long>(one.envelope.length + (body.length if body != NULL else 0))
        self.submit(one, SPOOL_ENVELOPE, one.envelope, body, envelope_written)
        return 0

    cdef int write_outcome(self, move *one) noexcept:
        cdef message *m = one.message
        cdef octets *record
        if m.state_segment == NULL:
            self.conclude(one)
            return 0
        if m.hand_count != 1 or m.state_in_flight or not one.has_outcome:
            self.discard(one)
            return 0
        try:
            record = state_record(m, self.scheduler.wheel, utc_ms() // 1000)
        except Exception:
            self.give_up(one, ENOMEM)
            return 0
        m.state_in_flight = True            # nobody else writes one meanwhile
        self.scheduler.states_in_flight += 1
        self.submit(one, SPOOL_OUTCOME, record, NULL, outcome_written)
        return 0

    cdef int conclude(self, move *one) noexcept:
        """The copy is durable, with its outcome. It becomes the message, if nobody has begun anything with the old one."""
        cdef message *m = one.message
        cdef uint32_t i
        if m.hand_count != 1 or m.state_in_flight or m.live_count == 0 and m.report_count == 0:
            self.discard(one)
            return 0
        self.shard.free(m.id, m.home, m.state_segment, record_octets(m))
        for i in range(one.chunk_count):
            if m.where.chunks.segments[i] != NULL:
                self.shard.release(m.where.chunks.segments[i], chunk_octets(m))
            m.where.chunks.segments[i] = one.chunks[i].segment
        m.home = one.home.segment
        m.envelope_offset = one.home.offset
        if m.flags & SPOOL_ENVELOPE_INLINE:
            m.where.offset = one.body.offset
        elif one.chunk_count:
            m.where.chunks.offset = one.chunks[0].offset
        m.state_segment = one.state
        if m.is_hot:
            self.scheduler.cool(m)          # an envelope in memory names the old chunks
        moved_messages.cell[0] += 1
        self.over(one)
        return 0

    cdef int discard(self, move *one) noexcept:
        """The old copy stays the message: the new one is over."""
        cdef message *m = one.message
        cdef uint32_t i
        if one.home.segment != NULL:
            try:
                self.given_up[m.id] = spool_segment_serial(one.home.segment)
            except Exception:
                self.is_stopping = True     # what cannot be remembered must not be moved again
            self.shard.free(m.id, one.home.segment, one.state, one.home.length + one.body.length)
            if one.state != NULL:
                m.is_dirty = True           # the newest outcome is about to be given up with the copy
        for i in range(one.chunk):
            self.shard.release(one.chunks[i].segment, one.chunks[i].length)
        self.over(one)
        return 0

    cdef int give_up(self, move *one, int error) noexcept:
        if error == EBADMSG or error == EIO:
            self.is_damaged = True          # of this segment there is nothing to be gained soon
        self.discard(one)
        return 0

    cdef int over(self, move *one) noexcept:
        cdef message *m = one.message
        self.octets_under_way -= one.octets_count
        octets_unref(one.envelope)
        octets_unref(one.piece)
        free(one.chunks)
        free(one)
        m.flags &= <uint16_t>~MESSAGE_IS_MOVING
        self.scheduler.release(m)
        self.one_less()
        Py_DECREF(self)
        return 0
