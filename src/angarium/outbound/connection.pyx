# One outbound connection under uvloop: a ClientSession's octets to and from a socket, and the transactions in hand.
# Not here: when to connect and where to (pool.pyx, dialer.py), what failures mean (trouble.py), SMTP (client_session).
#
# The fast path of a message is one write and one read: behind the 354 for this message go its body, "." and MAIL,
# RCPT, DATA of the next one in a single sendmsg(2), straight from the buffers that hold them. What the socket does
# not take at once goes through the transport.
#
# Ownership: a hand holds references to its envelope and body; the recipients array belongs to the hand. While the
# reader thread owns stream.op, or a fetch is under way, the connection stays alive and settles nothing of it: the
# segments it reads from are pinned by the message in hand.
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, EBADMSG, EINTR, EIO, ENOMEM, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from angarium.metrics.counters cimport Counter
from angarium.model.clock cimport mono_ms
from angarium.model.octets cimport octets, octets_ref, octets_unref
from angarium.queue.message cimport PLACE_IN_HAND, body_place, chunk_count_of, message, recipient, transaction
from angarium.queue.ledger cimport shard_of
from angarium.queue.ready cimport ReadyQueue
from angarium.queue.scheduler cimport Scheduler
from angarium.queue.wheel cimport wheel_node
from angarium.smtp.client_session cimport (
    BODY_BY_BDAT_LATER, BODY_BY_BDAT_NOW, BODY_BY_DATA, CLIENT_CLOSED, CLIENT_QUIT, CLIENT_READY,
    CLIENT_RECIPIENTS_MAX, CLIENT_SLOTS, EVENT_BYE, EVENT_CLOSING, EVENT_DELIVERED, EVENT_HELLO_REFUSED, EVENT_LOOP,
    EVENT_MESSAGE_REFUSED, EVENT_NONE, EVENT_OVER, EVENT_READY, EVENT_RECIPIENT_DELIVERED, EVENT_RECIPIENT_REFUSED,
    EVENT_SEND_BODY, EXTENSION_8BITMIME, EXTENSION_CHUNKING, EXTENSION_DSN, EXTENSION_SMTPUTF8, PHASE_BODY,
    PHASE_FREE, RECIPIENT_ACCEPTED, RECIPIENT_TOLD, STAGE_DATA, STAGE_END, STAGE_IDLE, ClientSession, client_event,
    client_slot, mail_parameters)
from angarium.spool.cspool cimport (
    SPOOL_BODY, SPOOL_ENVELOPE_8BIT, SPOOL_ENVELOPE_BODY_8BITMIME, SPOOL_ENVELOPE_DOT_LINE, SPOOL_ENVELOPE_NO_FINAL_CRLF,
    SPOOL_ENVELOPE_RET_FULL, SPOOL_ENVELOPE_RET_HDRS, SPOOL_ENVELOPE_SMTPUTF8, spool_chunk, spool_envelope_chunk,
    spool_envelope_chunk_position, spool_envelope_next_recipient, spool_envelope_open, spool_read_op, spool_recipient,
    spool_span)

from angarium.metrics.counters import counter, gauge
from angarium.model.errors import RemoteProtocolError
from angarium.outbound import trouble

cdef extern from "sys/uio.h" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "sys/socket.h" nogil:
    enum:
        MSG_NOSIGNAL
        MSG_DONTWAIT
    cdef struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    ssize_t sendmsg(int fd, const msghdr *message, int flags)

cdef Counter connections_open = gauge("angarium_outbound_connections", "Outbound connections open now.")
cdef Counter transactions_ended = counter("angarium_outbound_transactions_total",
                                          "Outbound transactions that got their last reply.")
cdef Counter octets_sent = counter("angarium_outbound_octets_total", "Octets sent to other hosts.")
cdef Counter connections_lost = counter("angarium_outbound_connections_lost_total",
                                        "Outbound connections that ended out of order.")
cdef Counter bodies_read_back = counter("angarium_outbound_fetches_total",
                                        "Messages whose octets had to be read back from the spool.")

cdef enum:
    READ_OCTETS = 65536         # one buffer for all outbound connections: replies are parsed before the next read
    BDAT_NOW_OCTETS = 65536     # a larger body is not sent before its recipient is accepted

cdef object read_buffer = memoryview(bytearray(READ_OCTETS))
cdef uint8_t[::1] read_view = read_buffer
cdef const uint8_t *read_start = &read_view[0]


class HelloFailed(Exception):
    """A connection did not get as far as transactions. `judgement` says what that means."""

    def __init__(self, judgement):
        super().__init__(judgement.trouble.text)
        self.judgement = judgement


cdef class ConnectionOwner:
    cdef bint may_take(self, Connection connection) noexcept:
        return False

    cdef void idle(self, Connection connection) noexcept:
        pass

    cdef void leaving(self, Connection connection) noexcept:
        pass

    cdef void finished(self, Connection connection, uint64_t elapsed_ms) noexcept:
        pass

    cdef void closed(self, Connection connection, object judgement) noexcept:
        pass


ctypedef void (*read_done)(spool_read_op *, void *) noexcept nogil


cdef void chunk_arrived(spool_read_op *op, void *context) noexcept:
    cdef Connection self = <Connection>context
    self.stream_arrived()
    Py_DECREF(self)


@cython.final
cdef class Connection:

    def __cinit__(self, ConnectionOwner owner not None, ReadyQueue ready not None, int deadline_kind,
                  bytes hostname not None, *, bint is_lmtp, bint watches_for_loop, str remote not None, host_key):
        self.owner = owner
        self.ready = ready
        self.scheduler = <Scheduler?>ready.ledger
        self.session = ClientSession(hostname, is_lmtp, watches_for_loop)
        self.remote = remote
        self.remote_octets = remote.encode("utf-8", "replace")
        self.host_key = host_key
        self.hello = self.scheduler.loop.create_future()
        self.fd = -1
        self.deadline.node.kind = <uint8_t>deadline_kind
        self.deadline.connection = <void *>self

    def __dealloc__(self):
        cdef int i
        for i in range(CLIENT_SLOTS):
            octets_unref(self.hands[i].envelope_octets)
            octets_unref(self.hands[i].body)
            free(self.hands[i].t.recipients)
        octets_unref(self.next.envelope_octets)
        octets_unref(self.next.body)
        free(self.next.t.recipients)
        octets_unref(self.stream.chunk)

    # ---------------------------------------------------------------- what the transport calls

    def connection_made(self, transport):
        self.transport = transport
        self.fd = transport.get_extra_info("socket").fileno()
        transport.set_write_buffer_limits(high=0)       # resume_writing then says "all gone"
        connections_open.cell[0] += 1
        self.arm()

    def get_buffer(self, Py_ssize_t hint):
        return read_buffer

    def buffer_updated(self, Py_ssize_t length):
        try:
            self.is_busy_inside = True
            self.receive(<size_t>length)
        except RemoteProtocolError as error:
            self.end(trouble.of_protocol_error(self.stage_now(), self.remote, str(error)))
        except Exception as error:
            self.broken_inside(error)
        finally:
            self.is_busy_inside = False

    def eof_received(self):
        return False

    def connection_lost(self, error):
        self.end(trouble.of_loss(self.stage_now(), self.remote, "" if error is None else str(error),
                                 self.finished_count))

    def pause_writing(self):
        self.is_queued = True

    def resume_writing(self):
        self.is_queued = False
        if self.stream.chunk == NULL or self.is_closed:
            return
        try:
            self.stream_send()
            self.advance()
        except Exception as error:
            self.broken_inside(error)

    cdef int broken_inside(self, object error) except -1:
        # A bug of ours costs this connection, not the mail: what is in hand is deferred.
        self.scheduler.journal.log("error", where="outbound connection", remote=self.remote, reason=repr(error))
        self.end(trouble.of_protocol_error(self.stage_now(), self.remote, f"internal error: {error!r}"))
        return 0

    cdef object stage_now(self):
        if self.session.ring_count:
            return self.session.ring[self.session.ring_head].stage
        return STAGE_DATA if self.judged_slot() >= 0 else STAGE_IDLE

    # ---------------------------------------------------------------- what the pool calls

    cdef void start(self) noexcept:
        if self.is_closed or self.is_busy_inside:
            return
        try:
            self.is_busy_inside = True
            self.is_idle = False
            self.scheduler.wheel.disarm(&self.deadline.node)
            self.advance()
        except Exception as error:
            self.end(trouble.of_protocol_error(STAGE_IDLE, self.remote, f"internal error: {error!r}"))
        finally:
            self.is_busy_inside = False

    cdef void leave(self) noexcept:
        if not self.is_closed and self.is_idle:
            self.start()

    cdef void abort(self) noexcept:
        self.end(trouble.of_shutdown(self.stage_now(), self.remote))

    def close_now(self):
        """The dialer gives up on a hello."""
        self.abort()

    cdef void expired(self) noexcept:
        try:
            if self.is_idle:
                self.is_idle = False
                self.owner.leaving(self)
                self.session.quit()
                self.flush()
                self.arm()
            elif self.session.state == CLIENT_QUIT:
                self.end(None)
            else:
                self.end(trouble.of_loss(self.stage_now(), self.remote, "", self.finished_count, True))
        except Exception as error:
            self.end(trouble.of_protocol_error(STAGE_IDLE, self.remote, f"internal error: {error!r}"))

    # ---------------------------------------------------------------- replies

    cdef int receive(self, size_t length) except -1:
        cdef client_event event
        if self.is_closed:
            return 0
        self.session.feed(read_start, length)
        while self.session.next_event(&event) != EVENT_NONE:
            self.on_event(&event)
            if self.is_closed:
                return 0
        return self.advance()

    cdef int on_event(self, client_event *event) except -1:
        cdef client_slot *s = &self.session.slots[event.slot]
        cdef uint32_t i
        if event.kind == EVENT_DELIVERED:
            for i in range(s.count):
                if s.recipients[i] == RECIPIENT_ACCEPTED:
                    self.tell_delivered(event.slot, i)
        elif event.kind == EVENT_SEND_BODY:
            return self.send_body(event.slot)
        elif event.kind == EVENT_RECIPIENT_REFUSED:
            self.tell_refused(event.slot, event.index, self.judge_reply(event))
        elif event.kind == EVENT_RECIPIENT_DELIVERED:
            self.tell_delivered(event.slot, event.index)
        elif event.kind == EVENT_MESSAGE_REFUSED:
            self.tell_rest(&self.hands[event.slot], s.recipients, self.judge_reply(event))
        elif event.kind == EVENT_READY:
            self.hello.set_result(None)
        elif event.kind == EVENT_CLOSING or event.kind == EVENT_HELLO_REFUSED:
            if event.kind == EVENT_HELLO_REFUSED:
                self.flush()                    # QUIT; its reply interests nobody
            self.end(self.judge_reply(event))
        elif event.kind == EVENT_LOOP:
            self.flush()
            self.end(trouble.of_loop(self.remote, self.session.hostname.decode("ascii", "replace")))
        elif event.kind == EVENT_BYE:
            self.end(None)
        if event.is_over and not self.is_closed:
            self.finished_count += 1
            transactions_ended.cell[0] += 1
            self.owner.finished(self, mono_ms() - self.hands[event.slot].started_ms)
            self.settle(&self.hands[event.slot])
        return 0

    cdef object judge_reply(self, client_event *event):
        cdef ClientSession s = self.session
        cdef str text = s.reply.text[:s.reply.text_length].decode("utf-8", "replace")
        return trouble.of_reply(event.stage, s.reply.code,
                                (s.reply.status_class, s.reply.status_subject, s.reply.status_detail), text,
                                self.remote, accepted_count=s.slots[event.slot].accepted,
                                finished_count=self.finished_count)

    # ---------------------------------------------------------------- work

    cdef int advance(self) except -1:
        """Begins whatever may begin, sends what is due, sets the deadline."""
        cdef int slot
        while (not self.stream.is_active and self.next.state != HAND_FETCHING
               and self.session.free_slot() >= 0 and self.is_in_pool):
            if self.next.state == HAND_EMPTY:
                if not self.owner.may_take(self):
                    break
                if not self.ready.take(&self.next.t, CLIENT_RECIPIENTS_MAX):
                    break
                self.taken_count += 1
                self.prepare()
            if self.next.state == HAND_READY:
                self.transmit()
        if (self.is_in_pool and self.next.state == HAND_EMPTY and self.session.state == CLIENT_READY
                and self.session.slots[0].phase == PHASE_FREE and self.session.slots[1].phase == PHASE_FREE):
            if self.owner.may_take(self):
                if not self.is_idle:
                    self.is_idle = True
                    self.flush()
                    self.owner.idle(self)
                return 0
            self.owner.leaving(self)
            self.session.quit()
        self.flush()
        return self.arm()

    cdef int prepare(self) except -1:
        """Sees to it that envelope and body of `next` are there: HAND_READY, HAND_FETCHING, or settled and empty."""
        cdef hand *h = &self.next
        cdef message *m = h.t.message
        cdef uint32_t i, k
        cdef recipient *r
        cdef object judgement = None
        h.untried_count = 0
        if not self.scheduler.has_envelope_and_body(m):
            h.state = HAND_FETCHING
            bodies_read_back.cell[0] += 1
            return self.scheduler.fetch(m, self.fetched)
        h.envelope_octets = octets_ref(m.envelope)
        h.body = octets_ref(m.body) if m.body != NULL else NULL
        # In the order of the envelope, so that one walk over it meets all of them.
        for i in range(1, h.t.count):
            r = h.t.recipients[i]
            k = i
            while k > 0 and h.t.recipients[k - 1].index > r.index:
                h.t.recipients[k] = h.t.recipients[k - 1]
                k -= 1
            h.t.recipients[k] = r
        if spool_envelope_open(h.envelope_octets.data, h.envelope_octets.length, &h.envelope) != 0:
            judgement = trouble.of_spool(EBADMSG)
        elif h.body != NULL and h.body.length != h.envelope.message_octets:
            judgement = trouble.of_spool(EBADMSG)
        if judgement is not None:
            self.tell_rest(h, NULL, judgement)
            return self.settle(h)
        h.state = HAND_READY
        return self.check(h)

    def fetched(self, int error):
        """The scheduler has read envelope and body back, or could not."""
        cdef hand *h = &self.next
        cdef message *m = h.t.message
        if self.is_closed:
            self.conclude()
            return
        h.state = HAND_EMPTY
        try:
            if error == 0 and not self.scheduler.has_envelope_and_body(m):
                error = EIO
            if error:
                self.tell_rest(h, NULL, trouble.of_spool(error))
                self.settle(h)
            else:
                self.prepare()
            self.advance()
        except Exception as problem:
            self.broken_inside(problem)

    cdef int check(self, hand *h) except -1:
        """What the peer does not offer and the message cannot do without (see trouble.py) ends here, before MAIL."""
        cdef ClientSession s = self.session
        cdef uint32_t flags = h.envelope.flags
        cdef const uint8_t *cursor
        cdef spool_recipient r
        cdef uint32_t i = 0, index = 0, kept = 0
        cdef object judgement = None
        cdef transaction refused
        if s.size_limit and h.envelope.message_octets > s.size_limit:
            judgement = trouble.too_large(s.size_limit, h.envelope.message_octets, self.remote)
        elif (flags & SPOOL_ENVELOPE_BODY_8BITMIME and flags & SPOOL_ENVELOPE_8BIT
                and not s.extensions & EXTENSION_8BITMIME):
            judgement = trouble.needs_8bitmime(self.remote)
        elif flags & SPOOL_ENVELOPE_SMTPUTF8 and not s.extensions & EXTENSION_SMTPUTF8:
            if not is_ascii(h.envelope.reverse_path):
                judgement = trouble.needs_smtputf8(self.remote)
            else:
                cursor = h.envelope.recipients
                while i < h.t.count and spool_envelope_next_recipient(&h.envelope, &cursor, &r):
                    if index == h.t.recipients[i].index:
                        if not is_ascii(r.forward_path):
                            self.scheduler.failed(self.ready, &h.t, i, trouble.needs_smtputf8(self.remote).trouble, 0)
                        else:
                            h.t.recipients[kept] = h.t.recipients[i]
                            kept += 1
                        i += 1
                    index += 1
                if kept < h.t.count:            # those told already leave the transaction
                    refused.message = h.t.message
                    refused.count = h.t.count - kept
                    h.t.count = kept
                    if kept == 0:
                        h.t.count = refused.count
                        return self.settle(h)
                    self.scheduler.settle(&refused)
        if judgement is not None:
            self.tell_rest(h, NULL, judgement)
            return self.settle(h)
        return 0

    cdef int transmit(self) except -1:
        """MAIL, RCPT ... of `next`, and its body where nothing has to be waited for."""
        cdef ClientSession s = self.session
        cdef hand *h
        cdef hand swapped
        cdef mail_parameters p
        cdef const uint8_t *cursor
        cdef spool_recipient r
        cdef uint32_t flags, i = 0, index = 0
        cdef int slot, by = BODY_BY_DATA
        flags = self.next.envelope.flags
        p.message_octets = self.next.envelope.message_octets
        p.is_8bit = flags & (SPOOL_ENVELOPE_8BIT | SPOOL_ENVELOPE_BODY_8BITMIME) != 0
        p.is_smtputf8 = flags & SPOOL_ENVELOPE_SMTPUTF8 != 0
        p.ret = c'F' if flags & SPOOL_ENVELOPE_RET_FULL else c'H' if flags & SPOOL_ENVELOPE_RET_HDRS else 0
        p.envid = self.next.envelope.envid.data
        p.envid_length = self.next.envelope.envid.length
        slot = s.mail(self.next.envelope.reverse_path.data, self.next.envelope.reverse_path.length, &p)
        h = &self.hands[slot]
        swapped = h[0]
        h[0] = self.next
        self.next = swapped
        h.state = HAND_OPEN
        h.started_ms = mono_ms()
        cursor = h.envelope.recipients
        while i < h.t.count and spool_envelope_next_recipient(&h.envelope, &cursor, &r):
            if index == h.t.recipients[i].index:
                s.rcpt(slot, r.forward_path.data, r.forward_path.length, r.notify, r.orcpt.data, r.orcpt.length)
                i += 1
            index += 1
        if s.extensions & EXTENSION_CHUNKING:
            # One round trip instead of two. A larger body, or one that some recipient may still cost, waits for the
            # replies to RCPT, and then BDAT is worth it only where DATA would have to look at every octet.
            if h.t.count == 1 and h.body != NULL and h.body.length <= BDAT_NOW_OCTETS:
                by = BODY_BY_BDAT_NOW
            elif flags & (SPOOL_ENVELOPE_DOT_LINE | SPOOL_ENVELOPE_NO_FINAL_CRLF):
                by = BODY_BY_BDAT_LATER
        s.recipients_done(slot, by)
        if s.slots[slot].by == BODY_BY_BDAT_NOW:
            self.send_body(slot)
        return 0

    cdef int send_body(self, int slot) except -1:
        cdef ClientSession s = self.session
        cdef hand *h = &self.hands[slot]
        s.body_begin(slot, h.envelope.message_octets)
        if h.body == NULL:
            self.stream.is_active = True
            self.stream.slot = <uint8_t>slot
            self.stream.index = 0
            self.stream.count = h.envelope.chunk_count
            self.stream.octets_left = h.envelope.message_octets
            return self.stream_read()
        if s.slots[slot].by == BODY_BY_DATA and h.envelope.flags & SPOOL_ENVELOPE_DOT_LINE:
            s.body_stuffed(h.body.data, h.body.length)
        else:
            if self.piece_length:
                self.flush()
            self.piece = h.body.data
            self.piece_length = h.body.length
            self.piece_at = s.out.length
        return s.body_end(slot, not h.envelope.flags & SPOOL_ENVELOPE_NO_FINAL_CRLF)

    # ---------------------------------------------------------------- bodies in chunks

    # At most two chunks are held: one in the transport's buffer, one read ahead.

    cdef int stream_read(self) except -1:
        cdef hand *h = &self.hands[self.stream.slot]
        cdef message *m = h.t.message
        cdef spool_chunk chunk
        cdef spool_read_op *op = &self.stream.op
        if self.stream.index >= self.stream.count:
            return self.stream_failed(EBADMSG)
        memset(op, 0, sizeof(spool_read_op))
        chunk = spool_envelope_chunk(&h.envelope, self.stream.index)
        if self.stream.index < chunk_count_of(m):
            op.place.segment = m.where.chunks.segments[self.stream.index]
            op.place.offset = chunk.offset
            op.place.length = chunk.length
        else:
            op.place = body_place(m)
        op.wanted.kind = SPOOL_BODY
        op.wanted.id = m.id
        op.wanted.run_offset = spool_envelope_chunk_position(&h.envelope, self.stream.index)
        if op.place.segment == NULL:
            return self.stream_failed(EIO)
        op.done = <read_done><void *>chunk_arrived     # called by reap(), with the GIL
        op.context = <void *>self
        Py_INCREF(self)
        self.stream.is_reading = True
        shard_of(self.scheduler, m).read(op)
        return 0

    cdef void stream_arrived(self) noexcept:
        cdef int error = self.stream.op.error
        self.stream.is_reading = False
        self.stream.chunk = self.stream.op.out
        try:
            if self.is_closed:
                self.conclude()
                return
            if error:
                self.stream_failed(error)
                return
            self.stream.index += 1
            if not self.is_queued:
                self.stream_send()
                self.advance()
        except Exception as problem:
            try:
                self.broken_inside(problem)
            except Exception:
                pass                    # the journal itself failed: nobody is left to tell

    cdef int stream_send(self) except -1:
        cdef ClientSession s = self.session
        cdef int slot = self.stream.slot
        cdef hand *h = &self.hands[slot]
        cdef octets *chunk = self.stream.chunk
        self.stream.chunk = NULL
        try:
            if chunk.length > self.stream.octets_left:
                return self.stream_failed(EBADMSG)
            self.stream.octets_left -= chunk.length
            if s.slots[slot].by == BODY_BY_DATA and h.envelope.flags & SPOOL_ENVELOPE_DOT_LINE:
                s.body_stuffed(chunk.data, chunk.length)
            else:
                self.piece = chunk.data
                self.piece_length = chunk.length
                self.piece_at = s.out.length
            if self.stream.octets_left == 0:
                s.body_end(slot, not h.envelope.flags & SPOOL_ENVELOPE_NO_FINAL_CRLF)
                self.stream.is_active = False
            self.flush()
        finally:
            octets_unref(chunk)
        self.armed_reply_count -= 1     # progress: the deadline of the next block begins
        if self.stream.is_active:
            self.stream_read()
        return 0

    cdef int stream_failed(self, int error) except -1:
        # Part of the message is out and the rest is not to be had: without "." nobody takes it for the whole.
        self.stream.has_failed = not self.is_closed
        self.end(trouble.of_spool(error))
        return 0

    # ---------------------------------------------------------------- octets out

    cdef int flush(self) except -1:
        cdef ClientSession s = self.session
        cdef iovec parts[3]
        cdef msghdr header
        cdef size_t total = s.out.length + self.piece_length
        cdef size_t before = self.piece_at if self.piece_length else s.out.length
        cdef ssize_t sent = 0
        cdef size_t skip, i
        cdef bytes rest
        cdef char *to
        if total == 0:
            return 0
        parts[0].iov_base = s.out.data
        parts[0].iov_len = before
        parts[1].iov_base = <void *>self.piece
        parts[1].iov_len = self.piece_length
        parts[2].iov_base = s.out.data + before
        parts[2].iov_len = s.out.length - before
        if self.fd >= 0:
            if not self.is_queued:
                memset(&header, 0, sizeof(header))
                header.msg_iov = parts
                header.msg_iovlen = 3
                sent = sendmsg(self.fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT)
                if sent < 0:
                    # A broken connection is told by the read side, behind what the peer still had to say.
                    sent = 0 if errno == EAGAIN or errno == EINTR else <ssize_t>total
            if <size_t>sent < total:
                rest = PyBytes_FromStringAndSize(NULL, total - sent)
                to = PyBytes_AS_STRING(rest)
                skip = <size_t>sent
                for i in range(3):
                    if skip >= parts[i].iov_len:
                        skip -= parts[i].iov_len
                        continue
                    memcpy(to, <char *>parts[i].iov_base + skip, parts[i].iov_len - skip)
                    to += parts[i].iov_len - skip
                    skip = 0
                self.is_queued = True
                self.transport.write(rest)
                if self.transport.get_write_buffer_size() == 0:
                    self.is_queued = False
            octets_sent.cell[0] += <long long>total
        s.out_sent()
        self.piece = NULL
        self.piece_length = 0
        return 0

    cdef int arm(self) noexcept:
        # A deadline runs from the moment its reply became the next one due; a part of a reply does not move it.
        cdef uint64_t delay_ms
        if self.deadline.node.next != NULL and self.armed_reply_count == self.session.reply_count:
            return 0
        self.armed_reply_count = self.session.reply_count
        delay_ms = self.session.deadline_ms()
        if delay_ms:
            self.scheduler.wheel.arm(&self.deadline.node, delay_ms)
        else:
            self.scheduler.wheel.disarm(&self.deadline.node)
        return 0

    # ---------------------------------------------------------------- outcomes

    cdef int tell_delivered(self, int slot, uint32_t i) noexcept:
        cdef ClientSession s = self.session
        cdef hand *h = &self.hands[slot]
        s.slots[slot].recipients[i] = RECIPIENT_TOLD
        self.scheduler.delivered(self.ready, &h.t, i, s.reply.code, s.reply.text, s.reply.text_length,
                                 <const uint8_t *><const char *>self.remote_octets, len(self.remote_octets),
                                 mono_ms() - h.started_ms, s.extensions & EXTENSION_DSN != 0)
        return 0

    cdef int tell_refused(self, int slot, uint32_t i, object judgement) except -1:
        cdef hand *h = &self.hands[slot]
        if judgement.is_untried:
            if h.untried_count == 0:
                memset(h.is_untried, 0, sizeof(h.is_untried))
            h.is_untried[i] = True
            h.untried_count += 1
        elif judgement.is_permanent:
            self.scheduler.failed(self.ready, &h.t, i, judgement.trouble, mono_ms() - h.started_ms)
        else:
            self.scheduler.deferred(self.ready, &h.t, i, judgement.trouble, mono_ms() - h.started_ms)
        return 0

    cdef int tell_rest(self, hand *h, const uint8_t *states, object judgement) except -1:
        """All recipients without an outcome get this one. `states`: the session's, NULL when it never saw them."""
        cdef uint32_t i
        cdef uint64_t elapsed_ms = mono_ms() - h.started_ms if states != NULL else 0
        for i in range(h.t.count):
            if states != NULL:
                if states[i] == RECIPIENT_TOLD:
                    continue
                (<uint8_t *>states)[i] = RECIPIENT_TOLD
            if judgement.is_permanent:
                self.scheduler.failed(self.ready, &h.t, i, judgement.trouble, elapsed_ms)
            else:
                self.scheduler.deferred(self.ready, &h.t, i, judgement.trouble, elapsed_ms)
        return 0

    cdef int settle(self, hand *h) except -1:
        """The transaction is over: every recipient has its outcome or was told "too many" and goes back."""
        cdef transaction told
        cdef uint32_t i, kept = 0
        if h.untried_count:
            for i in range(h.t.count):
                if h.is_untried[i]:
                    h.t.recipients[kept] = h.t.recipients[i]
                    kept += 1
            told.message = h.t.message
            told.count = h.t.count - kept
            h.t.count = kept
            self.ready.give_back(&h.t)          # first: the message must not be over before its rest is back
            self.scheduler.settle(&told)
        else:
            self.scheduler.settle(&h.t)
        return forget(h)

    cdef int give_back(self, hand *h) except -1:
        self.ready.give_back(&h.t)
        return forget(h)

    cdef int judged_slot(self) noexcept:
        """The slot that the failure of the connection befell, -1 when none."""
        cdef ClientSession s = self.session
        cdef int i
        if self.stream.has_failed:      # whatever reply is due now, perhaps for the message before
            return self.stream.slot
        if s.ring_count and s.slots[s.ring[s.ring_head].slot].phase != PHASE_FREE:
            return s.ring[s.ring_head].slot
        for i in range(CLIENT_SLOTS):
            if s.slots[i].phase == PHASE_BODY:
                return i
        return -1

    cdef void end(self, object judgement) noexcept:
        """The connection is over; `judgement` None: in good order, with nothing in hand."""
        if self.is_closed:
            return
        self.is_closed = True
        self.loss = judgement
        self.scheduler.wheel.disarm(&self.deadline.node)
        self.fd = -1
        self.piece_length = 0
        if judgement is not None:
            connections_lost.cell[0] += 1
        try:
            if self.transport is not None:
                connections_open.cell[0] -= 1
                if judgement is None or not self.is_in_pool:
                    self.transport.close()      # what was flushed (QUIT) still goes out
                else:
                    self.transport.abort()
                self.transport = None
            if not self.hello.done():
                self.hello.set_exception(HelloFailed(judgement))
        except Exception as error:
            self.scheduler.journal.log("error", where="closing", remote=self.remote, reason=repr(error))
        if not self.stream.is_reading and self.next.state != HAND_FETCHING:
            self.conclude()

    cdef void conclude(self) noexcept:
        """Outcomes of what was in hand when the connection ended, once nobody reads for it any more."""
        cdef int i, struck
        cdef hand *h
        if self.stream.is_reading:
            return
        octets_unref(self.stream.chunk)
        self.stream.chunk = NULL
        try:
            struck = self.judged_slot()
            if struck >= 0 and self.hands[struck].state == HAND_OPEN:
                h = &self.hands[struck]
                if self.loss is None or self.loss.is_untried:
                    self.give_back_untold(struck)
                else:
                    self.tell_rest(h, self.session.slots[struck].recipients, self.loss)
                    self.settle(h)
            for i in range(CLIENT_SLOTS):
                if self.hands[i].state == HAND_OPEN:
                    self.give_back_untold(i)
            if self.next.state != HAND_EMPTY:
                self.next.state = HAND_EMPTY
                self.give_back(&self.next)
        except Exception as error:
            self.scheduler.journal.log("error", where="closing", remote=self.remote, reason=repr(error))
        self.owner.closed(self, self.loss)

    cdef int give_back_untold(self, int slot) except -1:
        """Recipients of `slot` that have no outcome yet go back to the queue untried."""
        cdef hand *h = &self.hands[slot]
        cdef uint32_t i
        if h.untried_count == 0:
            memset(h.is_untried, 0, sizeof(h.is_untried))
        for i in range(h.t.count):
            if self.session.slots[slot].recipients[i] != RECIPIENT_TOLD and not h.is_untried[i]:
                h.is_untried[i] = True
                h.untried_count += 1
        return self.settle(h)


cdef int forget(hand *h) noexcept:
    octets_unref(h.envelope_octets)
    octets_unref(h.body)
    h.envelope_octets = NULL
    h.body = NULL
    h.state = HAND_EMPTY
    h.untried_count = 0
    return 0


cdef bint is_ascii(spool_span span) noexcept:
    cdef uint32_t i
    for i in range(span.length):
        if span.data[i] > 127:
            return False
    return True
