# One outbound connection: a ClientSession's octets to and from a socket, and the transactions in hand.
# Not here: when to connect and where to (pool.pyx, dialer.py), the socket itself (wire.pyx), what failures mean (trouble.py),
# SMTP (client_session).
#
# Under TLS what is read is opened into a second buffer that all connections share, and what is to be written is sealed in
# one run and leaves by the same system call. In clear that costs one comparison a read and one a write.
#
# The fast path of a message is one write and one read: behind the 354 for this message go its body, "." and MAIL,
# RCPT, DATA of the next one in a single sendmsg(2), straight from the buffers that hold them.
cimport cython
from libc.errno cimport EIO
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from posix.unistd cimport close

from angarium.metrics.counters cimport Counter
from angarium.model.clock cimport mono_ms
from angarium.model.octets cimport octets, octets_unref
from angarium.outbound.body_stream cimport stream_send
from angarium.outbound.carrier cimport (
    HAND_EMPTY, HAND_FETCHING, HAND_OPEN, HAND_READY, Carrier, hand)
from angarium.outbound.login cimport login_accepted, login_begin, login_challenged, login_refused
from angarium.outbound.transaction cimport is_out_of_domains, prepare, send_body, take, transmit
from angarium.outbound.wire cimport iovec, wire_abort, wire_close, wire_open, wire_send
from angarium.queue.message cimport message
from angarium.queue.ready cimport ReadyQueue
from angarium.queue.scheduler cimport Scheduler
from angarium.smtp.client_dialogue cimport (
    CLIENT_HANDSHAKE, CLIENT_QUIT, CLIENT_READY, EVENT_AUTH_CHALLENGE, EVENT_AUTH_REFUSED, EVENT_AUTHENTICATED, EVENT_BYE, EVENT_CLOSING, EVENT_DELIVERED,
    EVENT_HELLO_REFUSED, EVENT_LOOP, EVENT_MESSAGE_REFUSED, EVENT_NONE, EVENT_READY, EVENT_RECIPIENT_DELIVERED,
    EVENT_RECIPIENT_REFUSED, EVENT_SEND_BODY, EVENT_STARTTLS, EVENT_STARTTLS_REFUSED, EXTENSION_PIPELINING, EXTENSION_REQUIRETLS, STAGE_IDLE,
    STAGE_QUIT, STAGE_STARTTLS, client_event)
from angarium.smtp.client_hello cimport hello_under_tls
from angarium.smtp.client_session cimport (
    CLIENT_SLOTS, PHASE_FREE, RECIPIENT_ACCEPTED, ClientSession, PhaseTimeouts, client_slot)
from angarium.smtp.witness cimport Witness
from angarium.tls.client cimport ClientTls
from angarium.tls.ctls cimport TLS_PLAIN_SLACK, TLS_RECEIVE_CLOSED, TLS_RECEIVE_FAILED, tls_receive_result

import functools
import hashlib
import os
import socket

from angarium.metrics.counters import counter, gauge
from angarium.model.errors import RemoteProtocolError
from angarium.outbound import trouble
from angarium.outbound.tls_policy import is_local

cdef Counter connections_open = gauge("angarium_outbound_connections", "Outbound connections open now.")
cdef Counter transactions_ended = counter("angarium_outbound_transactions_total",
                                          "Outbound transactions that got their last reply.")
cdef Counter octets_sent = counter("angarium_outbound_octets_total", "Octets sent to other hosts.")
cdef Counter connections_lost = counter("angarium_outbound_connections_lost_total",
                                        "Outbound connections that ended out of order.")

cdef Counter handshakes = counter("angarium_outbound_tls_handshakes_total", "TLS handshakes completed with other hosts.")
cdef Counter resumed = counter("angarium_outbound_tls_resumed_total", "Of those handshakes: of a session kept from before.")
cdef Counter verified = counter("angarium_outbound_tls_verified_total",
                                "Of those handshakes: with a certificate verified for the host's name.")
cdef Counter verified_by_tlsa = counter("angarium_outbound_tls_verified_by_tlsa_total",
                                        "Of those verified: by TLSA records (DANE).")
cdef Counter tls_failures = counter("angarium_outbound_tls_failures_total",
                                    "TLS connections to other hosts that failed, in the handshake or later.")

cdef enum:
    PLAIN_OCTETS = 65536        # wire.pyx reads no more at once
    GATHER_OCTETS = 16384       # of TLS: as much as one record takes; less is put together for one
    LEVEL_CLEAR = 0             # tls_policy.Level
    LEVEL_ENCRYPTED = 1
    LEVEL_VERIFIED = 2

cdef uint8_t plain[PLAIN_OCTETS + TLS_PLAIN_SLACK]     # what was read, opened
cdef uint8_t gathered[GATHER_OCTETS]


@functools.lru_cache(4096)
def octets_of(str text):
    """One for all connections that say the same."""
    return text.encode("utf-8", "replace")


def digest_of(tlsa, more_names):
    """Of what a certificate was verified by: a session is only resumed where that is the same."""
    parts = [tlsa.base, *more_names]
    parts += [f"{each.usage} {each.selector} {each.matching} {each.data.hex()}" for each in tlsa.records]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


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


@cython.final
cdef class Connection(Carrier):

    def __cinit__(self, ConnectionOwner owner not None, ReadyQueue ready not None, int deadline_kind,
                  bytes hostname not None, *, bint is_lmtp, attempt not None, PhaseTimeouts timeouts=None):
        self.owner = owner
        self.ready = ready
        self.scheduler = <Scheduler?>ready.ledger
        self.attempt = attempt
        self.site = ready.site
        wants_tls = attempt.tls is not None
        self.session = ClientSession(hostname, is_lmtp, attempt.watches_for_loop, wants_tls,
                                     wants_tls and attempt.begins_with_tls, timeouts)
        self.remote = attempt.remote
        self.policy_name = octets_of(attempt.policy.name)
        self.policy_origin = octets_of(attempt.policy.origin)
        self.remote_octets = octets_of(attempt.remote)
        self.host_key = attempt.host_key
        self.hello = self.scheduler.loop.create_future()
        self.wire.fd = -1
        self.deadline.node.kind = <uint8_t>deadline_kind
        self.deadline.connection = <void *>self

    # ---------------------------------------------------------------- the socket

    def attach(self, sock not None):
        """The dialer has connected it."""
        cdef int fd = sock.detach()
        if self.is_closed:
            close(fd)                           # given up meanwhile
            return
        wire_open(self, fd)
        connections_open.cell[0] += 1
        if self.session.state == CLIENT_HANDSHAKE:
            self.begin_handshake()
        self.arm()

    cdef void received(self, const uint8_t *data, size_t length) noexcept:
        try:
            self.is_busy_inside = True
            if self.tls is None:
                self.receive(data, length)
            else:
                self.receive_encrypted(data, length)
        except RemoteProtocolError as error:
            if self.is_setting_up_tls():
                self.end(trouble.of_handshake(self.remote, str(error)))
            else:
                self.end(trouble.of_protocol_error(self.stage_now(), self.remote, str(error)))
        except Exception as error:
            self.broken(error)
        finally:
            self.is_busy_inside = False

    cdef void lost(self, int error) noexcept:
        self.end(self.loss_of(str(OSError(error, os.strerror(error))) if error else "", False))

    cdef void drained(self) noexcept:
        if self.stream.chunk == NULL or self.is_closed:
            return
        try:
            stream_send(self)
            self.advance()
        except Exception as error:
            self.broken(error)

    cdef void broken(self, object error) noexcept:
        try:
            self.broken_inside(error)
        except Exception:
            self.abort()

    cdef int broken_inside(self, object error) except -1:
        # A bug of ours costs this connection, not the mail: what is in hand is deferred.
        self.scheduler.journal.log("error", where="outbound connection", remote=self.remote, reason=repr(error))
        self.end(trouble.of_protocol_error(self.stage_now(), self.remote, f"internal error: {error!r}"))
        return 0

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

    @property
    def has_asked_for_tls(self):
        return self.session.wants_tls

    @property
    def tls_distrust(self):
        return "" if self.tls is None else self.tls.distrust

    @property
    def local_address(self):
        if self.wire.fd < 0:
            return ""
        sock = socket.socket(fileno=self.wire.fd)
        try:
            found = sock.getsockname()
        except OSError:
            return ""
        finally:
            sock.detach()
        return found[0] if isinstance(found, tuple) else ""

    # ---------------------------------------------------------------- who looks on (outbound/tracing.py)

    @property
    def observer(self):
        return self.session.witness.observer if self.session.witness is not None else None

    def watch(self, Witness witness):
        """None: nobody does any more."""
        self.session.witness = witness
        self.session.told_at = self.session.out.length

    @property
    def site_name(self):
        return self.ready.site.name

    def tls_text(self):
        """What TLS came to, for people; "" in clear or before it is up."""
        if self.tls is None or not self.tls.is_up():
            return ""
        known = "verified" if self.tls_level == LEVEL_VERIFIED else "not verified"
        by = f", as {self.attempt.policy.name} ({self.attempt.policy.origin}) asks"
        return f"{self.tls.version} {self.tls.cipher}, certificate {known}{by}{', resumed' if self.tls.is_resumed else ''}"

    cdef int tell_observer(self, str event, object text) except -1:
        try:
            self.session.witness.observer.note(event, text)
        except Exception:
            pass                                # it misses what it failed at
        return 0

    def close_now(self):
        """The dialer gives up on a hello."""
        self.abort()

    cdef void expired(self) noexcept:
        if self.is_closed:
            wire_abort(self)                    # who does not read QUIT has been told
            return
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
                self.end(self.loss_of("", True))
        except Exception as error:
            self.end(trouble.of_protocol_error(STAGE_IDLE, self.remote, f"internal error: {error!r}"))

    # ---------------------------------------------------------------- replies

    cdef int receive(self, const uint8_t *data, size_t length) except -1:
        cdef client_event event
        if self.is_closed:
            return 0
        self.session.feed(data, length)
        while self.session.next_event(&event) != EVENT_NONE:
            self.on_event(&event)
            if self.is_closed:
                return 0
        return self.advance()

    cdef int on_event(self, client_event *event) except -1:
        cdef client_slot *s = &self.session.slots[event.slot]
        cdef uint32_t i
        cdef object judgement
        if event.kind == EVENT_DELIVERED:
            for i in range(s.count):
                if s.recipients[i] == RECIPIENT_ACCEPTED:
                    self.tell_delivered(event.slot, i)
        elif event.kind == EVENT_SEND_BODY:
            send_body(self, event.slot)
            if self.session.input_length:       # what is said behind it may end the transaction, and its body with it
                self.flush()
            return 0
        elif event.kind == EVENT_RECIPIENT_REFUSED:
            self.tell_refused(event.slot, event.index, self.judge_reply(event))
        elif event.kind == EVENT_RECIPIENT_DELIVERED:
            self.tell_delivered(event.slot, event.index)
        elif event.kind == EVENT_MESSAGE_REFUSED:
            judgement = self.judge_reply(event)
            if judgement.is_untried:
                self.is_worn_out = True
                self.keep_untried(event.slot)
            else:
                self.tell_rest(&self.hands[event.slot], s.recipients, judgement)
        elif event.kind == EVENT_READY or event.kind == EVENT_STARTTLS_REFUSED:
            return self.hello_over(event)
        elif event.kind == EVENT_STARTTLS:
            return self.begin_handshake()
        elif event.kind == EVENT_AUTH_CHALLENGE:
            return login_challenged(self)
        elif event.kind == EVENT_AUTHENTICATED:
            return login_accepted(self)
        elif event.kind == EVENT_AUTH_REFUSED:
            return login_refused(self)
        elif event.kind == EVENT_CLOSING or event.kind == EVENT_HELLO_REFUSED:
            if event.kind == EVENT_HELLO_REFUSED:
                self.flush()                    # QUIT; its reply interests nobody
            if event.stage == STAGE_STARTTLS:
                self.end(self.loss_of(self.judge_reply(event).trouble.text, False))     # 421: it may do in clear
            else:
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

    cdef int hello_over(self, client_event *event) except -1:
        """The dialogue may go on to transactions: may these messages?"""
        cdef object judgement = None
        policy = self.attempt.policy
        if self.tls_level < policy.floor and event.kind == EVENT_STARTTLS_REFUSED:
            text = self.session.reply.text[:self.session.reply.text_length].decode("utf-8", "replace")
            judgement = trouble.no_starttls(self.remote, is_requiretls=policy.needs_requiretls,
                                            refusal=f"{self.session.reply.code} {text}",
                                            is_temporary=self.session.reply.code < 500)
        elif self.tls_level < policy.floor:
            judgement = trouble.no_starttls(self.remote, is_requiretls=policy.needs_requiretls)
        elif policy.needs_requiretls and not self.session.extensions & EXTENSION_REQUIRETLS:
            judgement = trouble.no_requiretls(self.remote)
        if judgement is None:
            if self.ready.avoids_pipelining:
                self.session.extensions &= ~<uint32_t>EXTENSION_PIPELINING
            self.takes_requiretls = policy.needs_requiretls or is_local(self.ready.site)
            if self.attempt.login is not None:
                return login_begin(self)
            if self.hello is not None and not self.hello.done():
                self.hello.set_result(None)
            return 0
        self.session.quit()
        self.flush()                            # QUIT; its reply interests nobody
        self.end(judgement)
        return 0

    # ---------------------------------------------------------------- TLS

    cdef int begin_handshake(self) except -1:
        name, key = self.attempt.tls_name, self.attempt.host_key
        try:
            # By name and port: the machines of a cluster take each other's tickets, and who does not costs nothing. And by
            # source: a ticket tells the host that two addresses are one sender.
            key_text = f"{self.ready.source.name}:{name}:{key[2]}"
            if self.attempt.policy.tlsa is None:
                self.tls = ClientTls(self.attempt.tls, name, key_text)
            else:
                tlsa, more_names = self.attempt.policy.tlsa, self.attempt.policy.more_names
                self.tls = ClientTls(self.attempt.tls, tlsa.base, f"{key_text}:{digest_of(tlsa, more_names)}",
                                     tlsa.records, more_names)
        except ValueError as error:
            self.end(trouble.of_handshake(self.remote, str(error), is_requiretls=self.attempt.policy.needs_requiretls,
                                          is_certain=True))
            return 0
        return self.send_sealed()

    cdef int receive_encrypted(self, const uint8_t *data, size_t length) except -1:
        cdef size_t plain_length = 0
        cdef bint was_up = self.tls.is_up()
        cdef tls_receive_result result
        if self.is_closed:
            return 0
        result = self.tls.receive(data, length, plain, sizeof(plain), &plain_length)
        self.send_sealed()                      # of the handshake, or an alert
        if result == TLS_RECEIVE_FAILED:
            reason = self.tls.failure
            if self.is_in_pool and plain_length:    # records in front of the bad one are authentic: a 250 is not asked for twice
                self.is_worn_out = True             # nothing new is begun
                self.receive(plain, plain_length)
                if self.is_closed:
                    return 0
            if self.is_in_pool or self.exchange is not None:
                tls_failures.cell[0] += 1
                self.end(trouble.of_protocol_error(self.stage_now(), self.remote, f"TLS failed: {reason}"))
            else:
                self.end(trouble.of_handshake(self.remote, reason, is_requiretls=self.attempt.policy.needs_requiretls,
                                              is_certain=reason.startswith("certificate")))
            return 0
        if not was_up and self.tls.is_up():
            self.handshake_over()
        if plain_length:
            self.receive(plain, plain_length)
        elif not self.is_closed:
            self.advance()
        if result == TLS_RECEIVE_CLOSED and not self.is_closed:
            self.end(self.loss_of("", False))
        return 0

    cdef int handshake_over(self) except -1:
        handshakes.cell[0] += 1
        self.tls_level = LEVEL_ENCRYPTED
        if self.tls.is_resumed:
            resumed.cell[0] += 1
        if self.tls.is_verified:
            self.tls_level = LEVEL_VERIFIED
            verified.cell[0] += 1
            if self.attempt.policy.tlsa is not None:
                verified_by_tlsa.cell[0] += 1
        self.tls_version = self.tls.version_text()
        self.tls_cipher = self.tls.cipher_text()
        if self.session.witness is not None:
            self.tell_observer("tls", self.tls_text())
        hello_under_tls(self.session)
        self.armed_reply_count -= 1             # the deadline of EHLO begins
        return 0

    cdef bint is_setting_up_tls(self) noexcept:
        """What fails then may do in clear; what fails in AUTH must not: it would be said there again."""
        return (not self.is_in_pool and self.exchange is None
                and (self.tls is not None or self.session.had_starttls))

    cdef object loss_of(self, str reason, bint is_timeout):
        if self.is_setting_up_tls():
            return trouble.of_handshake(self.remote, reason or ("timed out" if is_timeout else "connection lost"))
        return trouble.of_loss(self.stage_now(), self.remote, reason, self.finished_count, is_timeout)

    # ---------------------------------------------------------------- work

    cdef int advance(self) except -1:
        """Begins whatever may begin, sends what is due, sets the deadline."""
        if self.is_closed:
            return 0
        while (not self.stream.is_active and self.next.state != HAND_FETCHING
               and self.session.free_slot() >= 0 and self.is_in_pool and not self.is_closed):
            if self.next.state == HAND_EMPTY:
                if is_out_of_domains(self) or not self.owner.may_take(self):
                    break
                if not take(self):
                    break
                self.taken_count += 1
                prepare(self)
            if self.next.state == HAND_READY:
                transmit(self)
        if self.is_closed:              # by what was sent on the way
            return 0
        if (self.is_in_pool and self.next.state == HAND_EMPTY and self.session.state == CLIENT_READY
                and self.session.slots[0].phase == PHASE_FREE and self.session.slots[1].phase == PHASE_FREE):
            if not is_out_of_domains(self) and self.owner.may_take(self):
                if not self.is_idle:
                    self.is_idle = True
                    self.flush()
                    self.owner.idle(self)
                return 0
            self.owner.leaving(self)
            self.session.quit()
        self.flush()
        return self.arm()

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
                prepare(self)
            self.advance()
        except Exception as problem:
            self.broken_inside(problem)

    # ---------------------------------------------------------------- octets out

    cdef int flush(self) except -1:
        cdef ClientSession s = self.session
        cdef iovec parts[3]
        cdef size_t total = s.out.length + self.piece_length
        cdef size_t before = self.piece_at if self.piece_length else s.out.length
        if total == 0:
            return 0
        if self.tls is not None:
            return self.flush_sealed()
        parts[0].iov_base = s.out.data
        parts[0].iov_len = before
        parts[1].iov_base = <void *>self.piece
        parts[1].iov_len = self.piece_length
        parts[2].iov_base = s.out.data + before
        parts[2].iov_len = s.out.length - before
        if self.wire.fd >= 0:
            wire_send(self, parts, 3)
            octets_sent.cell[0] += <long long>total
        s.out_sent()
        self.piece = NULL
        self.piece_length = 0
        return 0

    cdef int flush_sealed(self) except -1:
        cdef ClientSession s = self.session
        cdef size_t total = s.out.length + self.piece_length
        cdef size_t before = self.piece_at if self.piece_length else s.out.length
        cdef int failed = 0
        if total <= GATHER_OCTETS:
            # One record instead of three: commands, body and the next commands.
            memcpy(gathered, s.out.data, before)
            memcpy(gathered + before, self.piece, self.piece_length)
            memcpy(gathered + before + self.piece_length, s.out.data + before, s.out.length - before)
            failed = self.tls.send(gathered, total)
        else:
            if before:
                failed = self.tls.send(s.out.data, before)
            if not failed and self.piece_length:
                failed = self.tls.send(self.piece, self.piece_length)
            if not failed and s.out.length > before:
                failed = self.tls.send(s.out.data + before, s.out.length - before)
        octets_sent.cell[0] += <long long>total
        s.out_sent()
        self.piece = NULL
        self.piece_length = 0
        if failed and not self.is_closed:
            self.end(trouble.of_protocol_error(self.stage_now(), self.remote, f"TLS failed: {self.tls.failure}"))
            return 0
        return self.send_sealed()

    cdef int send_sealed(self) except -1:
        """Sends what TLS has to say."""
        cdef octets *output = self.tls.take_output()
        cdef iovec part
        if output == NULL:
            return 0
        part.iov_base = output.data
        part.iov_len = output.length
        try:
            wire_send(self, &part, 1)
        finally:
            octets_unref(output)
        return 0

    cdef int arm(self) noexcept:
        # A deadline runs from the moment its reply became the next one due; a part of a reply does not move it.
        cdef uint64_t delay_ms
        if self.is_closed:                      # flush() may have ended it: nobody would take the node out of the wheel again
            return 0
        if self.deadline.node.next != NULL and self.armed_reply_count == self.session.reply_count:
            return 0
        self.armed_reply_count = self.session.reply_count
        delay_ms = self.session.deadline_ms()
        if delay_ms:
            self.scheduler.wheel.arm(&self.deadline.node, delay_ms)
        else:
            self.scheduler.wheel.disarm(&self.deadline.node)
        return 0

    # ---------------------------------------------------------------- the end

    cdef void end(self, object judgement) noexcept:
        """The connection is over; `judgement` None: in good order, with nothing in hand."""
        cdef bint is_in_order
        if self.is_closed:
            return
        # QUIT is said with nothing in hand: whatever comes of it then is nobody's trouble, and no sign of a site in trouble.
        is_in_order = judgement is None or self.is_in_pool and self.stage_now() == STAGE_QUIT
        self.is_closed = True
        self.loss = None if is_in_order else judgement
        if self.session.witness is not None:
            self.tell_observer("closed", "" if judgement is None else judgement.trouble.text)
        self.scheduler.wheel.disarm(&self.deadline.node)
        if judgement is not None and judgement.is_tls:
            tls_failures.cell[0] += 1
        if self.tls is not None and judgement is None:
            try:
                self.tls.close()                # close_notify (RFC 8446 §6.1)
                self.send_sealed()
            except Exception:
                pass                            # as good as it gets
        self.piece_length = 0
        if not is_in_order:
            connections_lost.cell[0] += 1
        try:
            if self.wire.fd >= 0:
                connections_open.cell[0] -= 1
                if judgement is None or not self.is_in_pool:
                    wire_close(self)            # what was flushed (QUIT) still goes out
                else:
                    wire_abort(self)
            if self.hello is not None and not self.hello.done():
                self.hello.set_exception(HelloFailed(judgement))
                self.hello.exception()          # at a stop nobody may be left who waits for it: no reason for a complaint
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
