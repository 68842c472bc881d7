# The spool shard as a Python object: ties csrc/spool to an event loop, and a slow API of bytes and futures beside the fast one.
# The fast one is the cdef methods: C structures in, C callbacks out, no Python object per message.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport EBADMSG, EBUSY, EDQUOT, EFBIG, ENOMEM, ENOSPC, EPROTO, ESHUTDOWN
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free as c_free
from libc.string cimport memset
from angarium.model.clock cimport TURN_NS, mono_ms, mono_ns, utc_ms
from angarium.model.octets cimport octets, octets_copy, octets_new, octets_unref
from angarium.spool.cspool cimport (
    SPOOL_BODY, SPOOL_ENVELOPE, SPOOL_ENVELOPE_INLINE, SPOOL_OUTCOME, spool_chunk, spool_envelope,
    spool_envelope_add_recipient, spool_envelope_begin, spool_envelope_finish, spool_envelope_open, spool_error, spool_notice, spool_op, spool_options, spool_read_op, spool_recovered,
    spool_segment, spool_segment_release, spool_segment_serial, spool_shard_close, spool_shard_event_fd,
    spool_shard_expect, spool_shard_free, spool_shard_free_again, spool_shard_has_room, spool_shard_hurry, spool_shard_kick, spool_shard_kick_due_ms,
    spool_shard_next_id, spool_shard_next_notice, spool_shard_open, spool_shard_read, spool_shard_reap,
    spool_shard_recover_next, spool_shard_segment, spool_shard_statistics, spool_shard_stop, spool_shard_submit,
    spool_segment_frees_others, spool_segment_has_live, spool_segment_is_sealed, spool_shard_haste, spool_shard_repeats_under_way, spool_shard_victim, spool_shard_victim_done, spool_span, spool_statistics,
)

import os

from angarium.model.errors import SpoolBusy, SpoolCorrupt, SpoolError, SpoolFull, SpoolVersion
from angarium.spool.notice import Notice, NoticeKind

Place = tuple[int, int, int]

# Callbacks in one turn of the loop: bounds how long sockets wait behind a large batch. By judgement; a callback is some 5 us.
cdef enum:
    REAP_LIMIT = 128            # between looks at the clock

# Of the duplicate window this much is left for the loop's lateness and for the write and sync themselves. By judgement: a
# sync takes some 1 ms on flash and 10 ms on a disk. What waits for a commit to ride on waits for the rest.
cdef enum:
    SYNC_MS = 15


def error_of(number: int, text: str) -> SpoolError:
    """The exception for an errno of the spool."""
    if number in (ENOSPC, EDQUOT):
        return SpoolFull(text)
    if number == EBADMSG:
        return SpoolCorrupt(text)
    if number == EBUSY:
        return SpoolBusy(text)
    if number == EPROTO:
        return SpoolVersion(text)
    return SpoolError(text)


cdef spool_span span_of(bytes text) noexcept:
    cdef spool_span span
    span.data = <const uint8_t *>PyBytes_AS_STRING(text)
    span.length = <uint32_t>PyBytes_GET_SIZE(text)
    return span


cdef octets *octets_of(bytes data) except NULL:
    cdef octets *copy = octets_copy(<const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    if copy == NULL:
        raise MemoryError()
    return copy


cdef bytes bytes_of(octets *data):
    return PyBytes_FromStringAndSize(<char *>data.data, data.length) if data != NULL else None


# One op of the slow API. Owns its payload references and one reference to the future; freed when the future is told.
cdef struct waiting_op:
    spool_op op
    PyObject *future

cdef struct waiting_read:
    spool_read_op op
    PyObject *future


cdef void resolve(PyObject *pointer, int error, object result, str doing) noexcept:
    future = <object>pointer
    Py_DECREF(future)
    try:
        if not future.done():
            if error == 0:
                future.set_result(result)
            else:
                future.set_exception(error_of(error, f"{doing}: {os.strerror(error)}"))
    except BaseException as problem:            # the loop is closed: nobody waits any more
        if not isinstance(problem, RuntimeError):
            raise


cdef object place_of(spool_segment *segment, uint32_t offset, uint32_t length):
    return (spool_segment_serial(segment), offset, length) if segment != NULL else None


cdef void op_done(spool_op *op, void *context) noexcept:
    cdef waiting_op *self = <waiting_op *>context
    result = None
    if op.error == 0:
        result = Stored(op.id, place_of(op.place.segment, op.place.offset, op.place.length),
                        place_of(op.body_place.segment, op.body_place.offset, op.body_place.length))
    octets_unref(op.payload)
    octets_unref(op.body)
    resolve(self.future, op.error, result, "spool write")
    c_free(self)


cdef void read_done(spool_read_op *op, void *context) noexcept:
    cdef waiting_read *self = <waiting_read *>context
    result = bytes_of(op.out)
    octets_unref(op.out)
    resolve(self.future, op.error, result, "spool read")
    c_free(self)


class Stored:
    __slots__ = ("body_place", "id", "place")

    def __init__(self, id, place, body_place):
        self.id = id
        self.place = place
        self.body_place = body_place


class Recovered:
    __slots__ = ("envelope", "id", "place", "state", "state_serial")

    def __init__(self, id, envelope, state, place, state_serial):
        self.id = id
        self.envelope = envelope
        self.state = state
        self.place = place
        self.state_serial = state_serial


cdef class Shard:
    """One shard directory, its commit thread and its reader thread. Owns the C shard from __init__ to close().

    Loop thread only. Open it in the process that uses it: threads do not survive a fork.
    """

    def __cinit__(self):
        self.c = NULL

    def __init__(self, int directory_fd, str name, int number, *, uint64_t segment_octets=64 << 20,
                 uint32_t spare_segments=4, uint32_t window_us=1000, uint32_t last_incarnation=0, uint32_t duplicate_window_ms=100):
        cdef spool_options options
        cdef spool_error error
        cdef bytes encoded = name.encode()
        cdef const char *c_name = encoded
        cdef int code
        cdef uint8_t c_number
        if not 0 <= number <= 255:
            raise ValueError("a shard number has eight bits")
        c_number = <uint8_t>number
        if self.c != NULL:
            raise SpoolError(f"spool shard {name} is open already")
        options.segment_octets = segment_octets
        options.spare_segments = spare_segments
        options.window_us = window_us
        options.last_incarnation = last_incarnation
        options.lazy_ms = duplicate_window_ms - SYNC_MS if duplicate_window_ms > SYNC_MS else 0
        with nogil:
            code = spool_shard_open(directory_fd, c_name, c_number, &options, &self.c, &error)
        if code != 0:
            raise error_of(code, (<bytes>error.text).decode("utf-8", "replace"))
        self.number = number
        self.name = name
        self.loop = None

    def __dealloc__(self):
        if self.c != NULL:              # close() was forgotten
            with nogil:
                spool_shard_close(self.c)

    # --- the fast API ---

    cdef uint64_t next_id(self) noexcept:
        return spool_shard_next_id(self.c) if self.c != NULL else 0

    cdef void submit(self, spool_op *op) noexcept:
        if self.c == NULL:
            op.error = ESHUTDOWN
            op.done(op, op.context)
            return
        spool_shard_submit(self.c, op)
        if not self.kick_is_due:
            self.schedule_kick()

    cdef void free(self, uint64_t message_id, spool_segment *home, spool_segment *state, uint64_t octets_count) noexcept:
        if self.c == NULL:
            return
        spool_shard_free(self.c, message_id, home, state, octets_count)
        if not self.kick_is_due:
            self.schedule_kick()

    cdef void read(self, spool_read_op *op) noexcept:
        if self.c == NULL:
            op.out = NULL
            op.error = ESHUTDOWN
            op.done(op, op.context)
            return
        spool_shard_read(self.c, op)

    cdef void release(self, spool_segment *segment, uint64_t octets_count) noexcept:
        if self.c == NULL:
            return
        spool_segment_release(self.c, segment, octets_count)
        if not self.kick_is_due:
            self.schedule_kick()

    cdef void expect(self, uint32_t active_transactions) noexcept:
        if self.c != NULL:
            spool_shard_expect(self.c, active_transactions)

    cdef bint has_room(self) noexcept:
        return self.c != NULL and spool_shard_has_room(self.c)

    cdef spool_segment *segment(self, uint32_t serial) noexcept:
        return spool_shard_segment(self.c, serial) if self.c != NULL else NULL

    cdef int recover_next(self, spool_recovered *out) noexcept:
        return spool_shard_recover_next(self.c, out) if self.c != NULL else -1

    cdef bint is_sealed(self, uint32_t serial) noexcept:
        cdef spool_segment *segment = self.segment(serial)
        return segment == NULL or spool_segment_is_sealed(segment)

    cdef uint32_t haste(self) noexcept:
        """How many times as fast as usual segments should be emptied, by what there were beyond the bound at the last look."""
        return spool_shard_haste(self.c) if self.c != NULL else 1

    cdef spool_segment *victim(self, bint is_resting) noexcept:
        return spool_shard_victim(self.c, mono_ms(), is_resting) if self.c != NULL and not self.has_strangers else NULL

    cdef bint frees_others(self, const spool_segment *segment, uint32_t offset) noexcept:
        return spool_segment_frees_others(segment, offset)

    cdef bint has_live(self, const spool_segment *segment) noexcept:
        return spool_segment_has_live(segment)

    cdef void free_again(self, uint64_t message_id, uint32_t home_serial, spool_segment *victim) noexcept:
        if self.c == NULL:
            return
        spool_shard_free_again(self.c, message_id, home_serial, victim)
        if not self.kick_is_due:
            self.schedule_kick()

    cdef int64_t repeats_under_way(self, spool_segment *victim) noexcept:
        return spool_shard_repeats_under_way(victim)

    cdef void victim_done(self, spool_segment *victim, bint is_moved, uint64_t again_mono_ms) noexcept:
        if self.c != NULL:
            spool_shard_victim_done(self.c, victim, is_moved, again_mono_ms)

    # --- the loop ---

    cdef int schedule_kick(self) except -1:
        if self.loop is not None:
            self.kick_is_due = True
            if not self.is_reaping:
                self.loop.call_soon(self.bound_kick)
        return 0

    def attach(self, loop):
        self.check_open()
        self.loop = loop
        self.bound_kick, self.bound_tick, self.bound_reap = self._kick, self._tick, self._reap
        loop.add_reader(spool_shard_event_fd(self.c), self.bound_reap)
        self.schedule_kick()

    def _kick(self):
        cdef uint64_t now_ms, wait_ms
        self.kick_is_due = False
        if self.c == NULL:
            return
        now_ms = mono_ms()
        spool_shard_kick(self.c, now_ms)
        wait_ms = spool_shard_kick_due_ms(self.c, now_ms)
        if wait_ms == 0 or (self.timer_due_ms != 0 and self.timer_due_ms <= now_ms + wait_ms):
            return
        if self.timer_due_ms != 0:
            self.timer.cancel()
        self.timer_due_ms = now_ms + wait_ms
        self.timer = self.loop.call_later(wait_ms / 1000.0, self.bound_tick)

    def _tick(self):
        # What it was set for may have ridden on a commit, and what waits now came later: _kick() sets it anew for that.
        self.timer_due_ms = 0
        self._kick()

    def hurry(self):
        self.check_open()
        spool_shard_hurry(self.c)
        if not self.kick_is_due:
            self.schedule_kick()

    def _reap(self):
        cdef uint64_t end = mono_ns() + TURN_NS
        cdef bint was_due = self.kick_is_due
        cdef bint is_over = False
        self.is_reaping = True
        while not is_over and self.c != NULL and spool_shard_reap(self.c, REAP_LIMIT):
            is_over = mono_ns() > end
        self.is_reaping = False
        if is_over:
            self.loop.call_soon(self.bound_reap)
        if self.kick_is_due and not was_due:
            self._kick()

    def stop(self):
        cdef spool_shard *c = self.c
        if c == NULL or self.is_stopped:
            return
        self.is_stopped = True
        if self.loop is not None and not self.loop.is_closed():
            self.loop.remove_reader(spool_shard_event_fd(c))
        with nogil:
            spool_shard_stop(c)
        while spool_shard_reap(c, REAP_LIMIT):
            pass

    def close(self):
        cdef spool_shard *c = self.c
        if c == NULL:
            return
        self.stop()
        self.c = NULL
        with nogil:
            spool_shard_close(c)
        self.loop = None
        self.bound_kick = self.bound_tick = self.bound_reap = None

    # --- the slow API ---

    cdef int check_open(self) except -1:
        if self.c == NULL:
            raise SpoolError(f"spool shard {self.name} is closed")
        return 0

    cdef object submit_for_future(self, uint8_t kind, uint64_t message_id, uint64_t aux, octets *payload, octets *body,
                                  spool_segment *about, spool_segment *previous_state):
        cdef waiting_op *waiting
        self.check_open()
        if self.loop is None:
            raise SpoolError(f"spool shard {self.name} is not attached to a loop")
        future = self.loop.create_future()
        waiting = <waiting_op *>calloc(1, sizeof(waiting_op))
        if waiting == NULL:
            raise MemoryError()
        waiting.op.kind = kind
        waiting.op.id = message_id
        waiting.op.aux = aux
        waiting.op.payload = payload
        waiting.op.body = body
        waiting.op.about = about
        waiting.op.previous_state = previous_state
        waiting.op.done = op_done
        waiting.op.context = waiting
        waiting.future = <PyObject *>future
        Py_INCREF(future)
        self.submit(&waiting.op)
        return future

    def new_id(self):
        self.check_open()
        return self.next_id()

    def append(self, bytes reverse_path, recipients, body, *, chunks=None, uint64_t message_id=0, bytes envid=b"",
               bytes helo=b"", bytes client_address=b"", bytes listener=b"", uint32_t flags=0, received_utc_ms=None,
               bytes orcpt=b"", uint8_t notify=0, message_octets=None):
        cdef octets *envelope
        cdef octets *body_octets = NULL
        cdef spool_chunk *c_chunks = NULL
        cdef uint32_t count = 0
        cdef uint64_t received, length
        cdef int error
        self.check_open()
        if (body is None) == (chunks is None):
            raise ValueError("either a body or chunks")
        if message_id == 0:
            message_id = self.next_id()
        received = utc_ms() if received_utc_ms is None else received_utc_ms
        length = message_octets if message_octets is not None else \
            len(body) if chunks is None else sum(chunk[2] for chunk in chunks)
        envelope = octets_new(512)
        if envelope == NULL:
            raise MemoryError()
        try:
            error = spool_envelope_begin(&envelope, span_of(reverse_path), span_of(envid), span_of(helo),
                                         span_of(client_address), span_of(listener))
            for path in recipients:
                if error == 0:
                    error = spool_envelope_add_recipient(&envelope, span_of(path), path.rfind(b"@") + 1, span_of(orcpt), notify)
            if chunks is not None:
                c_chunks = <spool_chunk *>calloc(len(chunks) + 1, sizeof(spool_chunk))
                for serial, offset, octets_count in chunks:
                    c_chunks[count].segment_serial, c_chunks[count].offset, c_chunks[count].length = serial, offset, octets_count
                    count += 1
            if error == 0:
                error = spool_envelope_finish(&envelope, message_id, received, flags, length, c_chunks, count)
            if error != 0:
                raise ValueError(f"envelope refused: {os.strerror(-error)}")
            if body is not None:
                body_octets = octets_of(bytes(body))
            future = self.submit_for_future(SPOOL_ENVELOPE, message_id, 0, envelope, body_octets, NULL, NULL)
        except BaseException:
            octets_unref(envelope)
            octets_unref(body_octets)
            raise
        finally:
            c_free(c_chunks)
        return future

    def store(self, bytes envelope, body):
        cdef octets *payload
        cdef octets *body_octets = NULL
        cdef spool_envelope view
        self.check_open()
        if spool_envelope_open(<const uint8_t *>PyBytes_AS_STRING(envelope), PyBytes_GET_SIZE(envelope), &view) != 0:
            raise ValueError("these octets are no envelope")
        if (body is None) == (view.flags & SPOOL_ENVELOPE_INLINE != 0):
            raise ValueError("a body goes with Flag.INLINE, and only with it")
        payload = octets_of(envelope)
        try:
            if body is not None:
                body_octets = octets_of(bytes(body))
            return self.submit_for_future(SPOOL_ENVELOPE, view.id, 0, payload, body_octets, NULL, NULL)
        except BaseException:
            octets_unref(payload)
            octets_unref(body_octets)
            raise

    def append_body(self, uint64_t message_id, uint64_t offset, bytes data):
        cdef octets *payload = octets_of(data)
        try:
            return self.submit_for_future(SPOOL_BODY, message_id, offset, payload, NULL, NULL, NULL)
        except BaseException:
            octets_unref(payload)
            raise

    cdef spool_segment *known(self, uint32_t serial) except NULL:
        cdef spool_segment *segment
        self.check_open()
        segment = spool_shard_segment(self.c, serial)
        if segment == NULL:
            raise SpoolError(f"spool shard {self.name} has no segment {serial}")
        return segment

    def write_state(self, uint64_t message_id, uint32_t home_serial, bytes state, previous_serial=None):
        cdef spool_segment *home = self.known(home_serial)
        cdef spool_segment *previous = NULL if previous_serial is None else self.known(previous_serial)
        cdef octets *payload = octets_of(state)
        try:
            return self.submit_for_future(SPOOL_OUTCOME, message_id, 0, payload, NULL, home, previous)
        except BaseException:
            octets_unref(payload)
            raise

    def settle(self, uint64_t message_id, uint32_t home_serial, state_serial=None, chunk_serials=()):
        cdef spool_segment *home = self.known(home_serial)
        self.free(message_id, home, NULL if state_serial is None else self.known(state_serial), 0)
        for serial in chunk_serials:
            self.release(self.known(serial), 0)

    def fetch(self, uint32_t serial, uint32_t offset, uint32_t length, *, uint64_t body_of=0, uint32_t run_offset=0):
        cdef waiting_read *waiting
        cdef spool_segment *segment = self.known(serial)
        if self.loop is None:
            raise SpoolError(f"spool shard {self.name} is not attached to a loop")
        future = self.loop.create_future()
        waiting = <waiting_read *>calloc(1, sizeof(waiting_read))
        if waiting == NULL:
            raise MemoryError()
        waiting.op.place.segment = segment
        waiting.op.place.offset = offset
        waiting.op.place.length = length
        if body_of != 0:
            waiting.op.wanted.kind = SPOOL_BODY
            waiting.op.wanted.id = body_of
            waiting.op.wanted.run_offset = run_offset
        waiting.op.done = read_done
        waiting.op.context = waiting
        waiting.future = <PyObject *>future
        Py_INCREF(future)
        self.read(&waiting.op)
        return future

    def recover(self, int limit=500):
        cdef spool_recovered found
        cdef int result = 0
        self.check_open()
        messages = []
        while len(messages) < limit:
            result = self.recover_next(&found)
            if result != 1:
                break
            messages.append(Recovered(
                found.id, bytes_of(found.envelope), bytes_of(found.state),
                place_of(found.place.segment, found.place.offset, found.place.length),
                spool_segment_serial(found.state_segment) if found.state_segment != NULL else None))
            octets_unref(found.envelope)
            octets_unref(found.state)
        return None if result == -1 and not messages else messages

    def expect_transactions(self, uint32_t count):
        self.expect(count)

    @property
    def is_full(self):
        return not self.has_room()

    def statistics(self):
        cdef spool_statistics figures
        self.check_open()
        spool_shard_statistics(self.c, &figures)
        return dict(figures)

    def notices(self):
        cdef spool_notice notice
        self.check_open()
        found = []
        while spool_shard_next_notice(self.c, &notice):
            found.append(Notice(NoticeKind(notice.at.kind), notice.at.serial, notice.at.offset, notice.at.octets,
                                (<bytes>notice.text).decode("utf-8", "replace")))
        return found
