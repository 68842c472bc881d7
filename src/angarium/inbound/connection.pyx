# One inbound connection: octets between its socket (wire.pyx) and the session, deadlines, closing. What commands mean is in
# the files named after them; what is legal when is the session's.
#
# All connections of a worker read into one buffer (Intake): what a session does not consume at once it copies. Replies
# leave in one send(2) per batch of pipelined commands.
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memmove
from posix.unistd cimport close
from angarium.admission.tallies cimport TALLY_HANDSHAKES
from angarium.inbound.auth cimport auth_drop, proceed_auth
from angarium.inbound.claimed cimport proceed_etrn, proceed_xclient, proceed_xforward
from angarium.inbound.client cimport Client, sockaddr_storage
from angarium.inbound.commit cimport commit_drop
from angarium.inbound.context cimport InboundContext, Intake
from angarium.inbound.gate cimport Gate
from angarium.inbound.greeting cimport welcome
from angarium.inbound.inquiry cimport inquiry_drop
from angarium.inbound.data cimport proceed_body, proceed_data, proceed_message
from angarium.inbound.limits cimport limits_await, limits_enter, limits_leave, limits_refuse
from angarium.inbound.mail cimport proceed_mail
from angarium.inbound.rcpt cimport proceed_rcpt
from angarium.inbound.proxied cimport proxied_begin, proxied_expired, proxied_receive, proxied_time_ms
from angarium.inbound.starttls cimport proceed_starttls, tls_established, tls_failed, tls_layer
from angarium.inbound.wire cimport wire_abort, wire_close, wire_open, wire_send, wire_send_eof, wire_want
from angarium.metrics.counters cimport Counter
from angarium.model.octets cimport octets, octets_unref
from angarium.queue.wheel cimport WHEEL_TICK_MS, Wheel, wheel_node
from angarium.smtp.message_reader cimport reader_has_run
from angarium.smtp.server_dialogue cimport (
    EVENT_AUTH, EVENT_AUTH_RESPONSE, EVENT_BODY, EVENT_CLOSE, EVENT_DATA, EVENT_ETRN,
    EVENT_HELO, EVENT_MAIL, EVENT_MESSAGE, EVENT_NONE, EVENT_RCPT,
    EVENT_REFUSED, EVENT_STARTTLS, EVENT_WAIT, EVENT_XCLIENT,
    EVENT_XFORWARD, server_event,
)
from angarium.smtp.server_session cimport ServerSession
from angarium.smtp.server_state cimport SERVER_CONNECTED, SERVER_SKIP_CHUNK
from angarium.tls.ctls cimport TLS_RECEIVE_CLOSED, TLS_RECEIVE_FAILED, tls_receive_result
from angarium.tls.session cimport TlsSession

from angarium.inbound.ends import ends_of
from angarium.metrics.counters import counter, gauge
from angarium.smtp import replies

cdef bytes MEMORY_FULL = replies.MEMORY_FULL
cdef bytes NETWORK_ERRORS = replies.NETWORK_ERRORS

cdef enum:
    HELD_LIMIT = 64 << 10           # input kept back while an answer is due; past it the socket is not read
    OUTPUT_LIMIT = 64 << 10         # replies piled up in one batch before they are sent anyway
    LINGER_MS = 2000                # for the last reply to arrive while input is still coming
    CLOSE_MS = 30000                # for a peer that does not read its last reply
    # A message may take this long however slow; then it must keep the listener's rate. Five minutes is what a
    # client may wait for a reply anyway (RFC 5321 §4.5.3.2).
    DATA_GRACE_MS = 300000

cdef Counter connections_total = counter("angarium_in_connections_total", "Connections accepted.")
cdef Counter sessions = gauge("angarium_in_sessions", "Inbound connections open now.")
cdef Counter turned_away_total = counter("angarium_in_turned_away_total", "Connections answered 421: max_sessions.")
cdef Counter memory_full_total = counter(
    "angarium_in_memory_full_total", "Connections answered 421: admission.max_session_memory.")
cdef Counter held_back_total = counter("angarium_in_held_back_total", "Replies that were kept back: admission.tarpit_delay.")
cdef Counter timeouts_total = counter("angarium_in_timeouts_total", "Inbound sessions ended by a deadline.")


@cython.final
cdef class InboundConnection(Client):
    def __cinit__(self, InboundContext context not None):
        self.wire.fd = -1

    def __dealloc__(self):
        if self.wire.fd >= 0:                       # memory was out in the middle of accepted()
            close(self.wire.fd)
        octets_unref(self.backlog)

    cdef void accepted(self, int fd, const sockaddr_storage *peer) noexcept:
        cdef Intake intake = self.context.intake
        wire_open(self, fd)
        self.context.session_count += 1
        intake.clients.add(self)
        connections_total.cell[0] += 1
        sessions.cell[0] += 1
        if intake.deadline_kind < 0:
            intake.deadline_kind = intake.wheel.register(fire, NULL)
        self.deadline.kind = <uint8_t>intake.deadline_kind
        self.set_peer(peer)
        if self.context.proxy_from.count and self.context.proxy_from.has(self.binary_address):
            # For whom it is may take seconds to be said, or never be: a place it has meanwhile like everybody.
            if self.has_place() and limits_await(self):
                proxied_begin(self)
            else:
                self.session.lingers = True         # the header is on its way
                self.begin_session(NULL, 0)
        else:
            self.begin(NULL, 0)
        wire_want(self)

    cdef void begin(self, const uint8_t *early, size_t length) noexcept:
        """It is known who the client is: the greeting, or why there is none. `early`: what it has said before."""
        if not self.has_place():
            pass
        elif self.context.gate is not None and (reply := limits_enter(self)) is not None:
            self.session.close_with(reply)
        elif self.context.is_implicit_tls:
            if self.counted is not None and (reply := limits_refuse(self, TALLY_HANDSHAKES)) is not None:
                self.session.close_with(reply)
            else:
                self.begin_tls(tls_layer(self))
        else:
            welcome(self, length)
        self.begin_session(early, length)

    cdef bint has_place(self) noexcept:
        """Among the listener's sessions, which it takes, and in memory; False: the session says why not."""
        cdef Intake intake = self.context.intake
        if self.places is None:
            self.places = self.context.places       # given back there, whatever a reload makes of the listener
            if not self.places.take():
                self.places = None
                turned_away_total.cell[0] += 1
                self.session.close_with(self.context.settings.too_many_reply)
                self.tell_rejected(self.session.refusal)
                return False
        if intake.is_draining:
            self.session.part_with(self.context.settings.shutdown_reply)
            return False
        if intake.is_memory_full:
            memory_full_total.cell[0] += 1
            self.session.close_with(MEMORY_FULL)
            return False
        return True

    cdef void begin_session(self, const uint8_t *early, size_t length) noexcept:
        cdef Intake intake = self.context.intake
        if self.context.is_implicit_tls:
            octets_unref(self.session.take_output_octets())     # before TLS nothing can be said
            if length and self.tls is not None:
                memmove(intake.read_octets, early, length)      # a balancer's header and the client's first flight in one read
                self.receive_encrypted(length)
                return
        elif length:
            self.session.receive_octets(early, length)
        self.pump()

    cdef void received(self, size_t length) noexcept:
        if self.phase == PHASE_OPEN:
            if self.tls is not None:
                self.receive_encrypted(length)
            else:
                self.session.receive_octets(self.context.intake.read_octets, length)
                self.pump()
        elif self.phase == PHASE_PROXIED:
            proxied_receive(self, self.context.intake.read_octets, length)

    cdef bint eof_received(self) noexcept:
        self.has_eof = True
        # A client that shuts its side down behind its last command still gets what it waits for; AUTH is never the last.
        return self.phase == PHASE_OPEN and self.session.asked != 0 and self.attempt is None

    cdef void lost(self) noexcept:
        cdef Intake intake = self.context.intake
        if self.phase == PHASE_CLOSED:
            return
        if self.is_in_handshake() and self.phase == PHASE_OPEN:
            tls_failed(self, b"connection closed in the handshake")
        self.phase = PHASE_CLOSED
        if self.session.witness is not None:
            self.note("closed", "")
        intake.wheel.disarm(&self.deadline)
        commit_drop(self)
        if self.attempt is not None:
            auth_drop(self)
        if self.inquiry is not None:
            inquiry_drop(self)
        limits_leave(self)
        intake.clients.discard(self)
        intake.waiting.pop(self, None)
        self.context.session_count -= 1
        if self.places is not None:
            self.places.give()
            self.places = None
        sessions.cell[0] -= 1

    # For the operator and for shutdown

    def close_if_idle(self):
        if self.phase == PHASE_PROXIED:
            self.abort()
            return True
        if self.phase != PHASE_OPEN or not (self.session.is_idle() or self.is_in_handshake()):
            return False
        self.is_held_back = False
        self.session.part_with(self.context.settings.shutdown_reply)
        self.pump()
        return True

    def abort(self):
        wire_abort(self)

    def ends(self):
        return ends_of(self.wire.fd, self.proxied_ends, self.introduced)

    # TLS

    cdef bint is_in_handshake(self) noexcept:
        return self.tls is not None and not self.tls.is_established()

    cdef void begin_tls(self, TlsSession layer) noexcept:
        """From here on octets are TLS. None: it is not available, on a connection that must begin with it."""
        if layer is None:
            self.session.close_with(self.context.settings.trouble_reply)
            self.tell_rejected(self.session.refusal)
            return
        self.tls = layer
        self.context.intake.wheel.arm(&self.deadline, self.context.handshake_timeout_ms)

    cdef void receive_encrypted(self, size_t length) noexcept:
        cdef Intake intake = self.context.intake
        cdef bint was_in_handshake = self.is_in_handshake()
        cdef size_t plain_length = 0
        cdef tls_receive_result result = self.tls.receive(intake.read_octets, length, intake.plain_octets,
                                                          intake.plain_capacity, &plain_length)
        cdef octets *output = self.tls.take_output()    # of the handshake, or an alert
        if output != NULL:
            wire_send(self, output)
        if result == TLS_RECEIVE_FAILED:
            # Also what came before in the same read counts for nothing: somebody is at work on the way.
            tls_failed(self, self.tls.failure_text())
            self.session.lingers = True
            self.begin_close()
            return
        if self.is_in_handshake():
            return
        if was_in_handshake:
            if self.session.state == SERVER_CONNECTED:
                self.session.assume_tls()               # first, because rights and AUTH depend on it
            tls_established(self)
            intake.wheel.disarm(&self.deadline)         # turn() arms the next command's
            if self.session.state == SERVER_CONNECTED:  # not after STARTTLS
                welcome(self, 0)
        if plain_length:
            self.session.receive_octets(intake.plain_octets, plain_length)
        if result == TLS_RECEIVE_CLOSED:
            self.has_eof = True
        self.pump()

    cdef void close_tls(self) noexcept:
        """close_notify goes in front of the end of the connection (RFC 8446 §6.1)."""
        cdef octets *output
        if self.tls is None:
            return
        self.tls.close()
        output = self.tls.take_output()
        if output != NULL:
            wire_send(self, output)

    # The loop of events

    cdef void resume(self) noexcept:
        self.pump()

    cdef void chunk_is_durable(self) noexcept:
        self.pump()

    cdef void pump(self) noexcept:
        # A commit may answer from inside submit() when it fails at once: the turn that runs goes on with it.
        if self.is_pumping or self.is_held_back or self.phase != PHASE_OPEN:
            return
        self.is_pumping = True
        self.turn()
        self.is_pumping = False

    cdef void turn(self) noexcept:
        cdef ServerSession session = self.session
        cdef server_event event = EVENT_NONE
        cdef bint has_replied = False
        cdef TlsSession layer
        cdef bint is_full = False           # of a streamed message: too much is on its way to the disk
        if self.generation != self.context.generation and not session.is_in_data():
            self.refresh()
        if session.is_in_data() and reader_has_run(&session.message):
            is_full = not proceed_body(self)
        while not self.is_write_paused:
            if self.is_over_errors:
                self.is_over_errors = False
                session.close_with(NETWORK_ERRORS)
            event = session.advance()
            if event == EVENT_MAIL:
                proceed_mail(self)
            elif event == EVENT_RCPT:
                proceed_rcpt(self)
            elif event == EVENT_DATA:
                self.data_began = self.context.intake.wheel.now
                proceed_data(self)
            elif event == EVENT_BODY:
                is_full = not proceed_body(self)
            elif event == EVENT_MESSAGE:
                proceed_message(self)
            elif event == EVENT_NONE or event == EVENT_WAIT:
                break
            elif event == EVENT_STARTTLS:
                layer = proceed_starttls(self)
                if layer is not None:
                    self.flush()                # the 220 goes in clear
                    self.begin_tls(layer)
            elif event == EVENT_AUTH or event == EVENT_AUTH_RESPONSE:
                proceed_auth(self)
            elif event == EVENT_XCLIENT:
                proceed_xclient(self)
            elif event == EVENT_XFORWARD:
                proceed_xforward(self)
            elif event == EVENT_ETRN:
                proceed_etrn(self)
            else:
                if self.attempt is not None:
                    auth_drop(self)                 # cancelled, malformed, or the session ends
                if event == EVENT_HELO:
                    self.let_in_until_ms = 0
                elif event == EVENT_REFUSED:
                    self.tell_rejected(session.refusal)
                if self.transaction != NULL and not session.has_transaction():
                    commit_drop(self)
                if event == EVENT_CLOSE:
                    if session.refusal_id != 0:     # said outside of an event
                        self.tell_rejected(session.refusal)
                    break
            if session.output != NULL and session.output.length > OUTPUT_LIMIT:
                has_replied = self.flush()
        session.hold()
        if session.output != NULL:
            if event != EVENT_CLOSE and (self.tarpit_ms or self.is_stranger) and self.hold_reply():
                return
            has_replied = self.flush()
        if event == EVENT_CLOSE:
            self.begin_close()
            return
        if session.is_idle():
            if self.context.intake.is_draining:
                session.part_with(self.context.settings.shutdown_reply)
                session.advance()
                self.flush()
                self.begin_close()
                return
        if self.has_eof and session.asked == 0 and not is_full and not self.is_write_paused:
            self.begin_close()                  # nothing can follow
            return
        self.pause_or_resume_reading(is_full or self.is_write_paused or session.held_octets() > HELD_LIMIT)
        self.arm_deadline(has_replied)

    cdef void pause_or_resume_reading(self, bint wants_pause) noexcept:
        if wants_pause == self.is_read_paused:
            return
        self.is_read_paused = wants_pause
        wire_want(self)

    # Output

    cdef bint flush(self) noexcept:
        cdef octets *output = self.session.take_output_octets()
        if self.tls is not None and output != NULL:
            output = self.tls.sealed(output)
        if output == NULL:
            return False
        wire_send(self, output)
        return True

    cdef bint hold_reply(self) noexcept:
        """Tarpitting: what is to be said stays where it is, the socket is not read, and the deadline's node in the wheel
        waits. It costs no memory and no thread, and this client its time."""
        cdef Gate gate = self.context.gate
        cdef uint32_t delay_ms = self.tarpit_ms
        cdef uint32_t errors = self.session.error_count + self.session.refused_recipient_count
        if (self.is_stranger and not self.may_relay and gate is not None and 0 < gate.tarpit_errors <= errors
                and delay_ms < gate.tarpit_ms):
            delay_ms = gate.tarpit_ms
        if delay_ms == 0:
            return False
        held_back_total.cell[0] += 1
        self.is_held_back = True
        self.pause_or_resume_reading(True)
        self.context.intake.wheel.arm(&self.deadline, delay_ms)
        return True

    cdef void release_reply(self) noexcept:
        self.is_held_back = False
        self.flush()
        self.context.intake.wheel.arm(&self.deadline, <uint64_t>self.session.settings.command_timeout_s * 1000)
        self.pump()

    # Deadlines

    cdef void arm_deadline(self, bint has_replied) noexcept:
        """A command counts from our last reply, so octets of it that trickle in gain no time; a block of message data
        counts from the last one, within what the whole message may take."""
        cdef Wheel wheel = self.context.intake.wheel
        cdef ServerSession session = self.session
        cdef uint64_t delay_ms, left_ms
        if self.is_in_handshake():
            return                              # the handshake as a whole has its own
        if session.asked != 0:
            wheel.disarm(&self.deadline)        # we are the ones waited for
        elif session.is_in_data():
            if session.state == SERVER_SKIP_CHUNK and not self.is_timing_data:
                self.data_began = wheel.now
            self.is_timing_data = True
            delay_ms = <uint64_t>session.settings.block_timeout_s * 1000
            if self.context.intake.is_tight and delay_ms > self.context.intake.tight_data_ms:
                delay_ms = self.context.intake.tight_data_ms
            left_ms = self.data_time_left_ms()
            if (left_ms <= WHEEL_TICK_MS and self.deadline.next != NULL
                    and wheel.remaining_ms(&self.deadline) <= 2 * WHEEL_TICK_MS):
                return                          # its time is up: armed anew with every octet it would never fire
            wheel.arm(&self.deadline, left_ms if left_ms < delay_ms else delay_ms)
        elif has_replied or self.is_timing_data or self.deadline.next == NULL:
            self.is_timing_data = False
            delay_ms = <uint64_t>session.settings.command_timeout_s * 1000
            if self.context.intake.is_tight and delay_ms > self.context.intake.tight_command_ms:
                delay_ms = self.context.intake.tight_command_ms
            wheel.arm(&self.deadline, delay_ms)

    cdef uint64_t data_time_left_ms(self) noexcept:
        cdef uint64_t spent_ms = <uint64_t>(self.context.intake.wheel.now - self.data_began) * WHEEL_TICK_MS
        cdef uint64_t octets_in = self.session.message.machine.octets_in
        cdef uint64_t allowed_ms, grace_ms = DATA_GRACE_MS, octets_per_s = self.context.data_octets_per_s
        if self.session.state == SERVER_SKIP_CHUNK:
            octets_in = self.session.chunk_octets - self.session.chunk_left
        if self.context.intake.is_tight:
            grace_ms = self.context.intake.tight_message_ms
            if octets_per_s < self.context.intake.tight_octets_per_s:
                octets_per_s = self.context.intake.tight_octets_per_s
        allowed_ms = grace_ms + octets_in * 1000 // octets_per_s
        return allowed_ms - spent_ms if allowed_ms > spent_ms else 1

    cdef void expire(self) noexcept:
        cdef ServerSession session = self.session
        if self.is_held_back and self.phase == PHASE_OPEN:
            self.release_reply()
            return
        if self.phase != PHASE_OPEN:
            if self.phase == PHASE_PROXIED:
                proxied_expired(self)
            self.abort()
            return
        timeouts_total.cell[0] += 1
        if self.is_in_handshake():
            tls_failed(self, b"handshake timed out")
            self.abort()
            return
        if session.is_in_data() and self.data_time_left_ms() <= WHEEL_TICK_MS:
            session.close_with(session.settings.slow_reply)
        else:
            session.close_with(session.settings.timeout_reply)
        self.tell_rejected(session.refusal)
        commit_drop(self)
        self.is_write_paused = False            # said or not: it ends here
        self.pump()

    cdef void tighten(self) noexcept:
        """The load has become high: a deadline that runs already is cut to what holds now."""
        cdef Intake intake = self.context.intake
        cdef uint64_t left_ms = intake.tight_command_ms, message_ms
        if self.phase == PHASE_PROXIED:
            left_ms = proxied_time_ms(intake)
        elif self.phase != PHASE_OPEN or self.is_held_back or self.session.asked != 0 or self.is_in_handshake():
            return
        elif self.session.is_in_data():
            left_ms = intake.tight_data_ms
            message_ms = self.data_time_left_ms()
            if message_ms < left_ms:
                left_ms = message_ms
        if self.deadline.next != NULL and intake.wheel.remaining_ms(&self.deadline) > left_ms:
            intake.wheel.arm(&self.deadline, left_ms)

    # The end

    cdef void begin_close(self) noexcept:
        """What was said must arrive: a close with input unread would reset the connection and may take our last
        reply with it. So the sending side is shut, and input is read away for a moment."""
        self.phase = PHASE_LINGERING
        commit_drop(self)
        if self.inquiry is not None:
            inquiry_drop(self)
        if self.wire.fd < 0:
            return
        self.close_tls()
        self.pause_or_resume_reading(False)
        if self.session.lingers and not self.has_eof:
            self.context.intake.wheel.arm(&self.deadline, LINGER_MS)
            wire_send_eof(self)
        else:
            self.context.intake.wheel.arm(&self.deadline, CLOSE_MS)
            wire_close(self)


cdef void fire(wheel_node *node, void *context) noexcept:
    cdef size_t offset = <size_t>&(<InboundConnection><void *>NULL).deadline
    cdef InboundConnection connection = <InboundConnection><void *>(<char *>node - offset)
    connection.expire()
