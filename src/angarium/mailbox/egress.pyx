# The Egress of Maildirs: recipients from a ready queue into files, in a few worker threads. Files and names are
# maildir.py's; here is who waits for whom. A message's octets are copied out for the thread, so that nothing of the
# queue's memory is touched outside the loop.
cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EBADMSG, EIO
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from angarium.metrics.counters cimport Counter
from angarium.model.clock cimport mono_ms
from angarium.model.octets cimport octets_unref
from angarium.queue.message cimport PLACE_IN_HAND, body_place, chunk_count_of, message, recipient
from angarium.queue.ledger cimport shard_of
from angarium.queue.fetch cimport count_unreadable
from angarium.queue.ready cimport Egress, ReadyQueue
from angarium.queue.scheduler cimport Scheduler
from angarium.spool.cspool cimport (SPOOL_ENVELOPE_BINARYMIME, 
    SPOOL_BODY, spool_chunk, spool_envelope_chunk, spool_envelope_chunk_position, spool_envelope_next_recipient,
    spool_envelope_open, spool_read_op, spool_recipient)

import asyncio
from concurrent.futures import ThreadPoolExecutor

from angarium.mailbox import maildir
from angarium.metrics.counters import counter
from angarium.model.outcome import Trouble
from angarium.spool.unreadable import trouble_of_spool

cdef Counter files_written = counter("angarium_maildir_deliveries_total", "Messages written into Maildirs.")
cdef Counter files_failed = counter("angarium_maildir_failures_total", "Messages that could not be written into a Maildir.")

cdef enum:
    MESSAGES_AT_ONCE = 16       # judged: enough to share a disk's flushes, few enough to hold a chunk of each
    THREADS = 4

ctypedef void (*read_done)(spool_read_op *, void *) noexcept nogil


@cython.final
cdef class MaildirEgress(Egress):

    def __init__(self, Scheduler scheduler not None):
        self.scheduler = scheduler
        self.loop = scheduler.loop
        self.executor = ThreadPoolExecutor(THREADS, thread_name_prefix="maildir")
        self.due = {}

    cdef void wake(self, ReadyQueue ready) noexcept:
        if ready in self.due and self.is_due:
            return
        try:
            self.due[ready] = True
            if not self.is_due:
                self.loop.call_soon(self.distribute)
                self.is_due = True
        except Exception:
            pass                # the loop is closing: mail stays in the spool

    cdef bint forget(self, ReadyQueue ready) noexcept:
        self.due.pop(ready, None)
        return True

    def distribute(self):
        self.is_due = False
        self.hand_out()

    cdef void hand_out(self) noexcept:
        cdef ReadyQueue ready
        cdef MessageDelivery delivery
        while self.due and not self.is_draining:
            ready = next(iter(self.due))
            while self.in_hand < MESSAGES_AT_ONCE:
                delivery = MessageDelivery(self, ready)
                if not ready.take(&delivery.t, ready.recipient_limit, NULL):
                    break
                self.in_hand += 1
                try:
                    delivery.begin()
                except Exception as error:
                    delivery.broken(error)
            if self.in_hand >= MESSAGES_AT_ONCE:
                return          # ended() goes on
            self.due.pop(ready, None)

    cdef void ended(self, MessageDelivery delivery) noexcept:
        self.in_hand -= 1
        if self.is_draining:
            if self.in_hand == 0 and self.drained is not None and not self.drained.done():
                self.drained.set_result(None)
        elif self.due and not self.is_due:
            try:
                self.loop.call_soon(self.distribute)
                self.is_due = True
            except Exception:
                pass            # the loop is closing

    async def drain(self, deadline_s):
        self.is_draining = True
        try:
            if self.in_hand:
                self.drained = self.loop.create_future()
                async with asyncio.timeout(deadline_s):
                    await asyncio.shield(self.drained)
            return True
        except TimeoutError:
            return False
        finally:
            self.executor.shutdown(wait=False, cancel_futures=True)


cdef void chunk_read(spool_read_op *op, void *context) noexcept:
    cdef MessageDelivery self = <MessageDelivery>context
    self.chunk_arrived()
    Py_DECREF(self)


@cython.final
cdef class MessageDelivery:
    """One message's recipients of one ready queue, from take() to settle()."""

    def __cinit__(self, MaildirEgress egress, ReadyQueue ready):
        self.egress = egress
        self.ready = ready
        self.scheduler = egress.scheduler

    def __dealloc__(self):
        free(self.t.recipients)

    cdef int begin(self) except -1:
        cdef message *m = self.t.message
        cdef const uint8_t *cursor
        cdef spool_recipient r
        cdef uint32_t i, index = 0
        cdef bytes reverse_path, forward_path
        self.started_ms = mono_ms()
        if not self.scheduler.has_envelope_and_body(m):
            return self.scheduler.fetch(m, self.fetched)
        if spool_envelope_open(m.envelope.data, m.envelope.length, &self.envelope) != 0:
            return self.fail_rest(trouble_of_spool(EBADMSG))
        if m.body != NULL and m.body.length != self.envelope.message_octets:
            return self.fail_rest(trouble_of_spool(EBADMSG))
        wanted = {self.t.recipients[i].index: i for i in range(self.t.count)}
        self.recipients = []
        self.forward_paths = []
        self.deliveries = []
        reverse_path = self.envelope.reverse_path.data[:self.envelope.reverse_path.length]
        cursor = self.envelope.recipients
        while spool_envelope_next_recipient(&self.envelope, &cursor, &r):
            if index in wanted:
                forward_path = r.forward_path.data[:r.forward_path.length]
                self.recipients.append(wanted[index])
                self.forward_paths.append(forward_path)
                directory = maildir.mailbox_directory(self.ready.site.path, forward_path)
                self.deliveries.append(maildir.MaildirDelivery(
                    directory, reverse_path, forward_path, is_binary=bool(m.flags & SPOOL_ENVELOPE_BINARYMIME)))
            index += 1
        if m.body == NULL:
            self.chunk = 0
            self.octets_left = self.envelope.message_octets
            self.results = [None] * len(self.deliveries)
            return self.read_chunk()
        body = m.body.data[:m.body.length]
        self.drop_loops(body)
        return self.work(self.written, maildir.deliver, (self.deliveries, body))

    def fetched(self, int error):
        cdef message *m = self.t.message
        try:
            if error == 0 and not self.scheduler.has_envelope_and_body(m):
                error = EIO
            if error:
                self.fail_rest(trouble_of_spool(error))
            else:
                self.begin()
        except Exception as problem:
            self.broken(problem)

    cdef int drop_loops(self, bytes message_start) except -1:
        """Recipients that the message was delivered to before are failed and leave the work."""
        cdef Py_ssize_t i
        for i in range(len(self.deliveries) - 1, -1, -1):
            if maildir.was_delivered_before(self.forward_paths[i], message_start):
                files_failed.cell[0] += 1
                self.scheduler.failed(self.ready, &self.t, self.recipients[i],
                                      maildir.loop_trouble(self.forward_paths[i]), mono_ms() - self.started_ms)
                del self.recipients[i], self.forward_paths[i], self.deliveries[i]
        if self.results is not None:
            self.results = [None] * len(self.deliveries)
        return 0

    cdef int work(self, object then, object function, tuple arguments) except -1:
        self.egress.loop.run_in_executor(self.egress.executor, function, *arguments).add_done_callback(then)
        return 0

    def written(self, future):
        """All deliveries have ended, one way or the other."""
        try:
            self.told(future.result())
        except Exception as error:
            self.broken(error)

    cdef int told(self, list results) except -1:
        cdef uint32_t i
        cdef uint64_t elapsed_ms = mono_ms() - self.started_ms
        cdef bytes text
        for i, result in zip(self.recipients, results, strict=True):
            if isinstance(result, Trouble):
                files_failed.cell[0] += 1
                self.scheduler.deferred(self.ready, &self.t, i, result, elapsed_ms)
            else:
                files_written.cell[0] += 1
                text = result.encode("utf-8", "surrogateescape")
                self.scheduler.delivered(self.ready, &self.t, i, 250, text, len(text), b"", 0, elapsed_ms, False,
                                         NULL, NULL, NULL, NULL)
        return self.over()

    cdef int over(self) except -1:
        self.scheduler.settle(&self.t)
        self.egress.ended(self)
        return 0

    cdef int fail_rest(self, object trouble) except -1:
        cdef uint32_t i
        for i in range(self.t.count):
            if self.t.recipients[i].link.where == PLACE_IN_HAND:
                files_failed.cell[0] += 1
                self.scheduler.deferred(self.ready, &self.t, i, trouble, mono_ms() - self.started_ms)
        return self.over()

    def broken(self, error):
        """A bug of ours must not cost the message: it is deferred, and the log says why."""
        self.scheduler.journal.log("error", where="maildir", site=self.ready.site.name, reason=repr(error))
        if self.t.message != NULL:
            if self.deliveries:
                maildir.abandon_all(self.deliveries)
            self.fail_rest(Trouble(0, (4, 3, 0), f"internal error: {error!r}"))

    # ---- a message in several chunks: read one, write it, and so on ----

    cdef int read_chunk(self) except -1:
        cdef message *m = self.t.message
        cdef spool_chunk chunk
        if self.octets_left == 0:
            return self.work(self.written, maildir.commit_all, (self.deliveries, self.results))
        if self.chunk >= self.envelope.chunk_count:
            return self.damaged(EBADMSG)
        memset(&self.op, 0, sizeof(self.op))
        chunk = spool_envelope_chunk(&self.envelope, self.chunk)
        if self.chunk < chunk_count_of(m):
            self.op.place.segment = m.where.chunks.segments[self.chunk]
            self.op.place.offset = chunk.offset
            self.op.place.length = chunk.length
        else:
            self.op.place = body_place(m)
        self.op.wanted.kind = SPOOL_BODY
        self.op.wanted.id = m.id
        self.op.wanted.run_offset = spool_envelope_chunk_position(&self.envelope, self.chunk)
        if self.op.place.segment == NULL:
            return self.damaged(EIO)
        self.op.done = <read_done><void *>chunk_read        # called by reap(), with the GIL
        self.op.context = <void *>self
        Py_INCREF(self)
        shard_of(self.scheduler, m).read(&self.op)
        return 0

    cdef void chunk_arrived(self) noexcept:
        cdef bytes chunk
        try:
            if self.op.error or self.op.out == NULL or self.op.out.length > self.octets_left:
                octets_unref(self.op.out)
                self.damaged(self.op.error if self.op.error else EBADMSG)
                return
            chunk = self.op.out.data[:self.op.out.length]
            octets_unref(self.op.out)
            if self.chunk == 0:
                self.drop_loops(chunk)
            self.chunk += 1
            self.octets_left -= len(chunk)
            self.work(self.chunk_written, maildir.write_chunk, (self.deliveries, self.results, chunk))
        except Exception as error:
            self.broken(error)

    def chunk_written(self, future):
        try:
            future.result()
            self.read_chunk()
        except Exception as error:
            self.broken(error)

    cdef int damaged(self, int error) except -1:
        count_unreadable()
        maildir.abandon_all(self.deliveries)
        return self.fail_rest(trouble_of_spool(error))


