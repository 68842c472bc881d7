# Reading a message back from the spool: its envelope, and its body when that lies in one chunk of at most 1 MiB (a larger one is
# streamed by who sends it, never held whole). The spool's reader thread does the waiting.
cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdlib cimport calloc, free

from angarium.metrics.counters cimport Counter
from angarium.model.octets cimport octets_unref
from angarium.queue.ledger cimport Ledger, shard_of
from angarium.queue.message cimport body_place, message
from angarium.spool.cspool cimport SPOOL_BODY, SPOOL_ENVELOPE, spool_read_op

from angarium.metrics.counters import counter

cdef Counter damaged = counter("angarium_messages_damaged_total",
                               "Attempts given up because the message could not be read back whole.")

cdef enum:
    FETCH_BODY_MAX = 1 << 20


cdef struct fetch_op:
    spool_read_op envelope
    spool_read_op body
    message *message
    PyObject *ledger
    PyObject *done
    int error


cdef void count_unreadable() noexcept:
    damaged.cell[0] += 1


cdef void fetch_ended(fetch_op *fetch) noexcept:
    cdef Ledger ledger = <Ledger>fetch.ledger
    cdef object done = <object>fetch.done
    cdef message *m = fetch.message
    if fetch.error == 0:
        ledger.heat(m, fetch.envelope.out, fetch.body.out)
    else:
        count_unreadable()
        ledger.heat(m, fetch.envelope.out, NULL)     # a report can be made from the envelope alone
    octets_unref(fetch.envelope.out)
    octets_unref(fetch.body.out)
    try:
        done(fetch.error)
    except Exception as error:      # a callback's bug must not cost the message: it stays in the spool
        ledger.journal.log("error", where="fetch", reason=repr(error))
    Py_XDECREF(fetch.done)
    Py_XDECREF(fetch.ledger)
    free(fetch)
    ledger.release(m)


cdef void body_read(spool_read_op *op, void *context) noexcept:
    cdef fetch_op *fetch = <fetch_op *>context
    fetch.error = op.error
    fetch_ended(fetch)


cdef void envelope_read(spool_read_op *op, void *context) noexcept:
    cdef fetch_op *fetch = <fetch_op *>context
    fetch.error = op.error
    if op.error == 0 and wants_body(fetch.message):
        start_body(fetch)
    else:
        fetch_ended(fetch)


cdef bint wants_body(message *m) noexcept:
    return m.body == NULL and body_place(m).segment != NULL and m.message_octets <= FETCH_BODY_MAX


cdef void envelope_only_read(spool_read_op *op, void *context) noexcept:
    cdef fetch_op *fetch = <fetch_op *>context
    fetch.error = op.error
    fetch_ended(fetch)


cdef void start_body(fetch_op *fetch) noexcept:
    cdef message *m = fetch.message
    fetch.body.place = body_place(m)
    fetch.body.wanted.kind = SPOOL_BODY
    fetch.body.wanted.id = m.id
    fetch.body.done = body_read
    fetch.body.context = fetch
    shard_of(<Ledger>fetch.ledger, m).read(&fetch.body)


cdef fetch_op *new_fetch(Ledger ledger, message *m, object done) except NULL:
    cdef fetch_op *fetch = <fetch_op *>calloc(1, sizeof(fetch_op))
    if fetch == NULL:
        raise MemoryError()
    fetch.message = m
    Py_INCREF(ledger)
    fetch.ledger = <PyObject *>ledger
    Py_INCREF(done)
    fetch.done = <PyObject *>done
    ledger.hold(m)
    return fetch


cdef void start_envelope(fetch_op *fetch) noexcept:
    cdef message *m = fetch.message
    fetch.envelope.place.segment = m.home
    fetch.envelope.place.offset = m.envelope_offset
    fetch.envelope.place.length = m.envelope_length
    fetch.envelope.wanted.kind = SPOOL_ENVELOPE
    fetch.envelope.wanted.id = m.id
    fetch.envelope.context = fetch
    shard_of(<Ledger>fetch.ledger, m).read(&fetch.envelope)


cdef int fetch_message(Ledger ledger, message *m, object done) except -1:
    cdef fetch_op *fetch = new_fetch(ledger, m, done)
    if m.envelope == NULL:
        fetch.envelope.done = envelope_read
        start_envelope(fetch)
    elif wants_body(m):
        start_body(fetch)
    else:
        ledger.loop.call_soon(had_all, <size_t>fetch)
    return 0


def had_all(size_t pointer):
    """Nothing had to be read; the callback still comes in a later turn of the loop, as always."""
    fetch_ended(<fetch_op *>pointer)


cdef int fetch_envelope(Ledger ledger, message *m, object done) except -1:
    cdef fetch_op *fetch = new_fetch(ledger, m, done)
    fetch.envelope.done = envelope_only_read
    start_envelope(fetch)
    return 0
