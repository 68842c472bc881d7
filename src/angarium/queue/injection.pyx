# Messages of our own (reports), put into spool and queue the way received ones are: on stable storage first.
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from angarium.model.clock cimport utc_ms
from angarium.model.octets cimport octets, octets_copy, octets_new, octets_unref
from angarium.queue.scheduler cimport Scheduler
from angarium.spool.cspool cimport (SPOOL_ENVELOPE, spool_envelope_add_attribute, spool_envelope_add_recipient,
                                    spool_envelope_begin, spool_envelope_finish, spool_op, spool_span)
from angarium.spool.shard cimport Shard

from angarium.model.errors import SpoolError


cdef struct inject_op:
    spool_op op
    PyObject *scheduler
    PyObject *shard
    PyObject *done


cdef void injected(spool_op *op, void *context) noexcept:
    cdef inject_op *inject = <inject_op *>op
    cdef Scheduler scheduler = <Scheduler>inject.scheduler
    cdef object done = <object>inject.done
    try:
        if op.error == 0:
            scheduler.admit(<Shard>inject.shard, op)
        done(op.error, op.id)
    except Exception as error:
        (<Shard>inject.shard).has_strangers = True      # on disk, and perhaps not in the queue
        scheduler.journal.log("error", where="inject", reason=repr(error))
    octets_unref(op.payload)
    octets_unref(op.body)
    Py_XDECREF(inject.done)
    Py_XDECREF(inject.shard)
    Py_XDECREF(inject.scheduler)
    free(inject)


def inject(Scheduler scheduler not None, Shard shard not None, bytes reverse_path, list recipients, bytes body, uint32_t flags, done,
           uint64_t id=0, *, uint8_t notify=0, dict attributes=None):
    """Puts a message of our own into the spool and the queue.

    recipients  forward-paths (mailboxes without brackets). body: CRLF lines. flags: SPOOL_ENVELOPE_*.
    notify      SMTP_NOTIFY_* of all recipients. attributes: SPOOL_ATTRIBUTE_* to text.
    id          of Shard.new_id() when it is known already; 0: a new one.
    done(error, id) is called on the loop when the message is on stable storage (error 0) or is not (errno).
    """
    cdef inject_op *op
    cdef octets *envelope = octets_new(512)
    cdef spool_span empty, path
    cdef bytes forward_path, text
    cdef int error
    empty.data = NULL
    empty.length = 0
    path.data = <const uint8_t *>(<const char *>reverse_path)
    path.length = <uint32_t>len(reverse_path)
    if id == 0:
        id = shard.next_id()
    if envelope == NULL:
        raise MemoryError()
    error = spool_envelope_begin(&envelope, path, empty, empty, empty, empty)
    for forward_path in recipients:
        path.data = <const uint8_t *>(<const char *>forward_path)
        path.length = <uint32_t>len(forward_path)
        if error == 0:
            error = spool_envelope_add_recipient(&envelope, path, <uint32_t>(forward_path.rfind(b"@") + 1), empty,
                                                 notify)
    for key, text in (attributes or {}).items():
        path.data = <const uint8_t *>(<const char *>text)
        path.length = <uint32_t>len(text)
        if error == 0:
            error = spool_envelope_add_attribute(&envelope, key, path)
    if error == 0:
        error = spool_envelope_finish(&envelope, id, utc_ms(), flags, <uint64_t>len(body), NULL, 0)
    op = <inject_op *>calloc(1, sizeof(inject_op)) if error == 0 else NULL
    if op != NULL:
        op.op.body = octets_copy(<const uint8_t *>(<const char *>body), len(body))
    if op == NULL or op.op.body == NULL:
        octets_unref(envelope)
        free(op)
        raise SpoolError(f"a message to {recipients!r} cannot be put into the spool: error {-error}")
    op.op.kind = SPOOL_ENVELOPE
    op.op.id = id
    op.op.payload = envelope
    op.op.done = injected
    Py_INCREF(scheduler)
    op.scheduler = <PyObject *>scheduler
    Py_INCREF(shard)
    op.shard = <PyObject *>shard
    Py_INCREF(done)
    op.done = <PyObject *>done
    shard.submit(&op.op)
