# The client's half of SMTP (RFC 5321) and LMTP (RFC 2033): replies in, commands and events out. Here are its transactions;
# client_hello.pyx has what comes before them, client_auth.pyx AUTH.
# Not here: sockets, clocks, the queue, what a refusal means for the mail (outbound/trouble.py).
#
# The session is greeting, hello, then transactions. Every command that goes out leaves an expectation in a small
# ring; every reply is matched with the oldest one. A reply that the table does not allow, that nobody asked for, or
# that is malformed raises RemoteProtocolError and ends the session: after it nothing could be matched any more.
#
# Session             reply to   2xx        3xx    4xx            5xx            (421 anywhere: CLOSED, EVENT_CLOSING)
#   GREETING          connect    EHLO       -      QUIT           QUIT
#   EHLO (LHLO)       EHLO       READY or   -      QUIT           HELO (LHLO: QUIT)
#                                STARTTLS
#   HELO              HELO       READY      -      QUIT           QUIT
#   STARTTLS          STARTTLS   HANDSHAKE  -      READY          READY
#   HANDSHAKE         (TLS)      EHLO; a connection that begins with TLS begins here, then GREETING
#   READY             (transactions, or AUTH)
#   AUTH              AUTH       READY      AUTH   READY          READY          (3xx: a challenge; its response is due from us)
#   QUIT              QUIT       CLOSED     -      CLOSED         CLOSED
#
# Transaction slot    reply to   2xx        3xx    4xx, 5xx
#   OPEN, SENT        MAIL       (go on)    -      REFUSED, message refused
#   OPEN, SENT        RCPT       accepted   -      recipient refused
#   OPEN              DATA       -          BODY   FREE, message refused
#   OPEN, none accepted  DATA    -          lone "." (RFC 2920 §3.1)    FREE
#   SENT              END        FREE, delivered   -   FREE, message refused
#   REFUSED           whatever was still in the group means nothing; FREE behind its last reply
#   any               RSET       (go on)    -      CLOSED, EVENT_CLOSING
#
# Two slots exist so that `body "." MAIL RCPT DATA` can be one write (RFC 2920 §3.1 allows message content as the
# first thing of a group): slot a waits for its last reply while slot b is OPEN.
cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset, strlen
from angarium.smtp.client_auth cimport auth_begin, auth_challenge, auth_replied, auth_respond
from angarium.smtp.client_dialogue cimport *
from angarium.smtp.client_hello cimport forget_offer, hello_replied, hello_under_tls
from angarium.smtp.csmtp cimport (
    SMTP_NOTIFY_DELAY, SMTP_NOTIFY_FAILURE, SMTP_NOTIFY_NEVER, SMTP_NOTIFY_SUCCESS,
    SMTP_REPLY_COMPLETE, SMTP_REPLY_PARTIAL, smtp_data_stuff, smtp_data_stuff_begin, smtp_data_stuff_end,
    smtp_reply_machine, smtp_reply_push, smtp_reply_reset, smtp_reply_result)

from typing import NamedTuple

from angarium.model.errors import LocalProtocolError
from angarium.smtp import limits
from angarium.smtp.client_dialogue import BrokenDialogue
from angarium.smtp.client_hello import EXTENSION_BITS

cdef enum:
    BINARY_EXTENSIONS = EXTENSION_BINARYMIME | EXTENSION_CHUNKING

# By stage: the reply classes 2xx 3xx 4xx 5xx that make sense.
cdef uint8_t *LEGAL = [
    0b0000,                 # STAGE_CONNECT
    0b1101,                 # STAGE_GREETING
    0b1101,                 # STAGE_EHLO
    0b1101,                 # STAGE_HELO
    0b1101,                 # STAGE_MAIL
    0b1101,                 # STAGE_RCPT
    0b1110,                 # STAGE_DATA
    0b1101,                 # STAGE_END
    0b1101,                 # STAGE_RSET
    0b1111,                 # STAGE_QUIT
    0b0000,                 # STAGE_IDLE
    0b1101,                 # STAGE_STARTTLS
    0b0000,                 # STAGE_HANDSHAKE
    0b1111,                 # STAGE_AUTH
]

cdef uint64_t QUIT_TIMEOUT_MS = 5000        # judged: politeness has a price, mail does not depend on it


@cython.final
cdef class PhaseTimeouts:
    """How long a session waits, by what it waits for; seconds."""

    def __cinit__(self, *, double greeting=limits.GREETING_TIMEOUT_S, double hello=limits.MAIL_TIMEOUT_S,
                  double handshake=limits.HANDSHAKE_TIMEOUT_S, double mail=limits.MAIL_TIMEOUT_S,
                  double rcpt=limits.RCPT_TIMEOUT_S, double data=limits.DATA_INITIATION_TIMEOUT_S,
                  double block=limits.DATA_BLOCK_TIMEOUT_S, double end=limits.DATA_TERMINATION_TIMEOUT_S):
        self.of_stage_ms[<int>STAGE_CONNECT] = self.of_stage_ms[<int>STAGE_IDLE] = 0
        self.of_stage_ms[<int>STAGE_GREETING] = <uint64_t>(greeting * 1000)
        # §4.5.3.2 names no time for EHLO and RSET, RFC 4954 none for AUTH
        self.of_stage_ms[<int>STAGE_EHLO] = self.of_stage_ms[<int>STAGE_HELO] = <uint64_t>(hello * 1000)
        self.of_stage_ms[<int>STAGE_RSET] = self.of_stage_ms[<int>STAGE_AUTH] = <uint64_t>(hello * 1000)
        self.of_stage_ms[<int>STAGE_MAIL] = <uint64_t>(mail * 1000)
        self.of_stage_ms[<int>STAGE_RCPT] = <uint64_t>(rcpt * 1000)
        self.of_stage_ms[<int>STAGE_DATA] = <uint64_t>(data * 1000)
        self.of_stage_ms[<int>STAGE_END] = <uint64_t>(end * 1000)
        self.of_stage_ms[<int>STAGE_QUIT] = QUIT_TIMEOUT_MS
        self.of_stage_ms[<int>STAGE_STARTTLS] = <uint64_t>(handshake * 1000)
        self.of_stage_ms[<int>STAGE_HANDSHAKE] = <uint64_t>(handshake * 1000)
        self.block_ms = <uint64_t>(block * 1000)


cdef PhaseTimeouts USUAL_TIMEOUTS = PhaseTimeouts()
cdef smtp_reply_machine common_reply        # see ClientDialogue.reply

STAGE_NAMES = ("connect", "greeting", "EHLO", "HELO", "MAIL", "RCPT", "DATA", "end of data", "RSET", "QUIT", "idle",
               "STARTTLS", "handshake", "AUTH")
EVENT_NAMES = ("none", "ready", "hello-refused", "loop", "recipient-refused", "recipient-delivered",
               "message-refused", "send-body", "delivered", "over", "closing", "bye", "starttls", "starttls-refused",
               "auth-challenge", "authenticated", "auth-refused")


class Event(NamedTuple):
    kind: str
    stage: str
    slot: int
    index: int
    code: int
    status: tuple
    text: bytes
    is_over: bool


@cython.final
cdef class ClientSession(ClientDialogue):
    # `input` is the caller's and valid only while it feeds.

    def __cinit__(self, bytes hostname not None, bint is_lmtp=False, bint watches_for_loop=False,
                  bint wants_tls=False, bint begins_with_tls=False, PhaseTimeouts timeouts=None):
        if len(hostname) == 0 or len(hostname) > limits.DOMAIN_OCTETS:
            raise ValueError("hostname must have 1 to 255 octets")
        self.hostname = hostname
        self.peer_name = b""
        self.is_lmtp = is_lmtp
        self.watches_for_loop = watches_for_loop
        self.wants_tls = wants_tls
        self.timeouts = USUAL_TIMEOUTS if timeouts is None else timeouts
        self.state = CLIENT_HANDSHAKE if begins_with_tls else CLIENT_GREETING
        forget_offer(self)
        self.reply = &common_reply
        self.expect(STAGE_GREETING, 0, 1)

    def __dealloc__(self):
        cdef int i
        for i in range(CLIENT_SLOTS):
            free(self.slots[i].many)

    # ---------------------------------------------------------------- replies in

    cdef void feed(self, const uint8_t *data, size_t length) noexcept:
        self.input = data
        self.input_length = length
        if self.own_reply == NULL:
            self.reply = &common_reply
            smtp_reply_reset(self.reply)

    cdef int keep_part(self) except -1:
        """Of a reply, until the rest comes."""
        if self.own_reply == NULL:
            self.own_reply = <smtp_reply_machine *>malloc(sizeof(smtp_reply_machine))
            if self.own_reply == NULL:
                raise MemoryError
            self.own_reply[0] = common_reply
            self.reply = self.own_reply
        return 0

    cdef int next_event(self, client_event *event) except -1:
        global common_reply
        cdef size_t consumed
        cdef smtp_reply_result result
        event.index = 0
        event.is_over = False
        if self.body_due:
            event.kind = EVENT_SEND_BODY
            event.stage = STAGE_RCPT
            event.slot = self.body_due - 1
            self.body_due = 0
            return event.kind
        while self.input_length:
            if self.state == CLIENT_HANDSHAKE:
                # RFC 3207 §4.2 and CVE-2011-0411: whatever is said in clear behind the 220, another than the server may
                # have said it, to be taken for its answer to what we ask under TLS.
                self.broken("octets in clear behind the reply to STARTTLS")
            if self.state == CLIENT_CLOSED:         # behind 421 or the reply to QUIT: of no interest
                self.input_length = 0
                break
            result = smtp_reply_push(self.reply, self.input, self.input_length, &consumed)
            self.input += consumed
            self.input_length -= consumed
            if result == SMTP_REPLY_PARTIAL:
                self.keep_part()
                event.kind = EVENT_NONE
                return EVENT_NONE
            if result != SMTP_REPLY_COMPLETE:
                self.broken(f"malformed reply ({<int>result})")
            self.reply_count += 1
            if self.witness is not None:
                self.tell_reply()
            event.kind = EVENT_NONE
            self.on_reply(event)
            if event.kind != EVENT_NONE:
                return event.kind
        self.is_too_early = False
        if self.own_reply != NULL:              # what came in part is whole, and told
            common_reply = self.own_reply[0]
            self.reply = &common_reply
            free(self.own_reply)
            self.own_reply = NULL
        event.kind = EVENT_NONE
        return EVENT_NONE

    cdef int on_reply(self, client_event *event) except -1:
        cdef client_expectation *head
        cdef client_slot *s
        cdef int reply_class = self.reply.code // 100
        if self.ring_count == 0:
            event.stage = STAGE_IDLE
            event.slot = 0
            if self.reply.code != 421:
                self.broken(f"reply {self.reply.code} to nothing")
            self.state = CLIENT_CLOSED
            event.kind = EVENT_CLOSING
            return 0
        head = &self.ring[self.ring_head]
        event.stage = head.stage
        event.slot = head.slot
        if not (LEGAL[head.stage] >> (reply_class - 2)) & 1:
            self.broken(f"reply {self.reply.code} to {STAGE_NAMES[head.stage]}")
        # RFC 5321 §4.1.1.5 knows no refusal of RSET. Whoever refuses it may still hold the transaction before: what follows would
        # go with that one, and the connection ends as with 421.
        if self.reply.code == 421 and head.stage != STAGE_QUIT or head.stage == STAGE_RSET and reply_class != 2:
            self.state = CLIENT_CLOSED
            event.kind = EVENT_CLOSING
            return 0
        s = &self.slots[head.slot]
        if self.is_too_early and head.stage == STAGE_END and reply_class == 2 and s.accepted:
            self.broken("a message taken that was not sent yet")    # what else it says is out of step, too
        head.count -= 1
        if head.count == 0:
            self.ring_head = (self.ring_head + 1) & (CLIENT_RING - 1)
            self.ring_count -= 1
        if event.stage == STAGE_RCPT:
            self.on_recipient(event, s, reply_class)
        elif event.stage == STAGE_END:
            self.on_end(event, s, reply_class)
        elif event.stage == STAGE_DATA:
            self.on_data(event, s, reply_class)
        elif event.stage == STAGE_MAIL:
            if reply_class == 2:
                s.mail_is_accepted = True
            else:
                s.phase = PHASE_REFUSED
                event.kind = EVENT_MESSAGE_REFUSED
                if self.held_at < self.held.length:     # the rest of the transaction was never sent
                    self.held_at = self.held.length
                    self.over(event, event.slot)
        elif event.stage == STAGE_RSET:
            pass
        elif event.stage == STAGE_QUIT:
            self.state = CLIENT_CLOSED
            event.kind = EVENT_BYE
        elif event.stage == STAGE_AUTH:
            auth_replied(self, event)
        else:
            hello_replied(self, event)
        return self.release()

    cdef int on_recipient(self, client_event *event, client_slot *s, int reply_class) except -1:
        event.index = s.replied
        s.replied += 1
        if s.phase == PHASE_REFUSED:                    # MAIL was refused: the outcome is known
            if s.replied == s.count and s.by == BODY_BY_BDAT_LATER:
                event.kind = EVENT_OVER
                self.over(event, event.slot)
            return 0
        if reply_class == 2:
            s.recipients[event.index] = RECIPIENT_ACCEPTED
            s.accepted += 1
        else:
            s.recipients[event.index] = RECIPIENT_TOLD
            event.kind = EVENT_RECIPIENT_REFUSED
        if s.replied == s.count:
            self.recipients_known(event, event.slot)
        return 0

    cdef int recipients_known(self, client_event *event, int slot) except -1:
        cdef client_slot *s = &self.slots[slot]
        cdef bint is_stepping = self.held_at < self.held.length
        if not is_stepping and s.by != BODY_BY_BDAT_LATER:
            return 0                                    # DATA or BDAT is out already
        if s.accepted == 0:
            self.held_at = self.held.length
            self.needs_reset = True                     # MAIL was accepted: the peer holds a transaction open
            self.over(event, slot)
            return 0
        if s.by != BODY_BY_BDAT_LATER:
            return 0                                    # release() sends DATA now
        s.phase = PHASE_BODY
        if event.kind == EVENT_NONE:
            event.kind = EVENT_SEND_BODY
        else:
            self.body_due = <uint8_t>(slot + 1)         # one reply, two things to tell
        return 0

    cdef int on_data(self, client_event *event, client_slot *s, int reply_class) except -1:
        cdef bint is_wanted = s.phase == PHASE_OPEN and s.accepted > 0
        if reply_class == 3:
            if is_wanted:
                s.phase = PHASE_BODY
                event.kind = EVENT_SEND_BODY
                return 0
            if self.is_lmtp:                            # RFC 2033 §4.2: MUST be 503; its replies cannot be counted
                self.broken("354 without a recipient")
            s.phase = PHASE_REFUSED
            self.put(b".\r\n", 3)
            return self.expect(STAGE_END, event.slot, 1)
        self.needs_reset = s.mail_is_accepted
        event.kind = EVENT_MESSAGE_REFUSED if is_wanted else EVENT_OVER
        self.over(event, event.slot)
        return 0

    cdef int on_end(self, client_event *event, client_slot *s, int reply_class) except -1:
        if s.phase == PHASE_REFUSED or s.accepted == 0:
            event.kind = EVENT_OVER
            self.needs_reset = s.by != BODY_BY_DATA and s.mail_is_accepted
            self.over(event, event.slot)
            return 0
        if reply_class != 2 and s.by != BODY_BY_DATA:
            self.needs_reset = True                     # RFC 3030 §2: after a failed BDAT only RSET is certain
        if not self.is_lmtp:
            event.kind = EVENT_DELIVERED if reply_class == 2 else EVENT_MESSAGE_REFUSED
            self.over(event, event.slot)
            return 0
        # RFC 2033 §4.2: a reply for each accepted recipient, in the order of the RCPT commands.
        while s.recipients[s.cursor] != RECIPIENT_ACCEPTED:
            s.cursor += 1
        event.index = s.cursor
        event.kind = EVENT_RECIPIENT_DELIVERED if reply_class == 2 else EVENT_RECIPIENT_REFUSED
        s.recipients[s.cursor] = RECIPIENT_TOLD
        s.cursor += 1
        s.accepted -= 1
        if s.accepted == 0:
            self.over(event, event.slot)
            return 0
        # The expectation was taken off with its only count: put it back in front for the next recipient.
        self.ring_head = (self.ring_head - 1) & (CLIENT_RING - 1)
        self.ring_count += 1
        self.ring[self.ring_head].count = 1
        return 0

    cdef int over(self, client_event *event, int slot) noexcept:
        self.slots[slot].phase = PHASE_FREE
        event.is_over = True
        return 0

    # ---------------------------------------------------------------- commands out

    cdef int free_slot(self) noexcept:
        cdef int i, other
        if self.state != CLIENT_READY:
            return -1
        for i in range(CLIENT_SLOTS):
            if self.slots[i].phase != PHASE_FREE:
                continue
            other = self.slots[1 - i].phase
            if other == PHASE_FREE:
                return i
            # Nothing is sent behind BDAT: were it refused, MAIL would meet a transaction still open.
            if (other == PHASE_SENT and self.slots[1 - i].by == BODY_BY_DATA
                    and self.extensions & EXTENSION_PIPELINING):
                return i
            return -1
        return -1

    cdef int mail(self, const uint8_t *path, uint32_t length, mail_parameters *p) except -1:
        cdef int slot = self.free_slot()
        cdef client_slot *s
        cdef char number[32]
        cdef int digits
        if slot < 0:
            raise LocalProtocolError("no transaction may start now")
        s = &self.slots[slot]
        free(s.many)
        memset(s, 0, sizeof(client_slot))
        s.recipients = s.few
        s.phase = PHASE_OPEN
        self.begin_lines()
        if self.needs_reset:
            self.needs_reset = False
            self.line(STAGE_RSET)
            self.put(b"RSET\r\n", 6)
            self.end_line(STAGE_RSET, slot)
        self.line(STAGE_MAIL)
        self.put(b"MAIL FROM:<", 11)
        self.put_field(path, length)
        self.put(b">", 1)
        if self.extensions & EXTENSION_SIZE:
            digits = snprintf(number, sizeof(number), b" SIZE=%llu", <unsigned long long>p.message_octets)
            self.put(number, digits)
        if p.is_binary:
            if self.extensions & BINARY_EXTENSIONS != BINARY_EXTENSIONS:
                raise LocalProtocolError("the peer does not offer BINARYMIME")
            self.put(b" BODY=BINARYMIME", 16)
        elif p.is_8bit and self.extensions & EXTENSION_8BITMIME:
            self.put(b" BODY=8BITMIME", 14)
        if p.is_smtputf8 and self.extensions & EXTENSION_SMTPUTF8:
            self.put(b" SMTPUTF8", 9)
        if p.requires_tls and self.extensions & EXTENSION_REQUIRETLS and self.is_tls:
            self.put(b" REQUIRETLS", 11)        # RFC 8689 §2: only under TLS
        if self.is_authenticated:               # RFC 4954 §5: to be said of every message, be it that nobody is named
            if p.submitter_length:
                self.put(b" AUTH=", 6)
                self.put_field(p.submitter, p.submitter_length)
            else:
                self.put(b" AUTH=<>", 8)
        if self.extensions & EXTENSION_DSN:
            if p.ret:
                self.put(b" RET=FULL" if p.ret == c'F' else b" RET=HDRS", 9)
            if p.envid_length:
                self.put(b" ENVID=", 7)
                self.put_field(p.envid, p.envid_length)
        if p.terms != NULL:
            self.put_terms(p.terms)
        elif self.extensions & EXTENSION_MT_PRIORITY:
            self.put(b" MT-PRIORITY=0", 14)     # RFC 6710 §4.2 (1): said of every message
        self.put(b"\r\n", 2)
        self.end_line(STAGE_MAIL, slot)
        return slot

    cdef int put_terms(self, const client_terms *terms) except -1:
        cdef char text[48]
        cdef int length
        if terms.has_by and self.extensions & EXTENSION_DELIVERBY:
            length = snprintf(text, sizeof(text), b" BY=%lld;%c%s", <long long>terms.by_seconds, <int>terms.by_mode,
                              <const char *>b"T" if terms.by_is_traced else <const char *>b"")
            self.put(text, length)
        if self.extensions & EXTENSION_MT_PRIORITY:
            length = snprintf(text, sizeof(text), b" MT-PRIORITY=%d", <int>terms.priority)
            self.put(text, length)
        if terms.solicit_length and self.extensions & EXTENSION_NO_SOLICITING:
            self.put(b" SOLICIT=", 9)
            self.put_field(terms.solicit, terms.solicit_length)
        return 0

    cdef int rcpt(self, int slot, const uint8_t *path, uint32_t length, uint8_t notify,
                  const uint8_t *orcpt, uint32_t orcpt_length) except -1:
        cdef client_slot *s = &self.slots[slot]
        cdef const char *comma = b" NOTIFY="
        if s.count == CLIENT_RECIPIENTS_MAX:
            raise LocalProtocolError("too many recipients for one transaction")
        if s.count == CLIENT_RECIPIENTS_FEW:
            s.many = <uint8_t *>calloc(CLIENT_RECIPIENTS_MAX, 1)
            if s.many == NULL:
                raise MemoryError
            memcpy(s.many, s.few, CLIENT_RECIPIENTS_FEW)
            s.recipients = s.many
        self.line(STAGE_RCPT)
        self.put(b"RCPT TO:<", 9)
        self.put_field(path, length)
        self.put(b">", 1)
        if self.extensions & EXTENSION_DSN:
            if notify & SMTP_NOTIFY_NEVER:
                self.put(b" NOTIFY=NEVER", 13)
            else:
                if notify & SMTP_NOTIFY_SUCCESS:
                    self.put(b" NOTIFY=SUCCESS", 15)
                    comma = b","
                if notify & SMTP_NOTIFY_FAILURE:
                    self.put(comma, strlen(comma))
                    self.put(b"FAILURE", 7)
                    comma = b","
                if notify & SMTP_NOTIFY_DELAY:
                    self.put(comma, strlen(comma))
                    self.put(b"DELAY", 5)
            if orcpt_length:
                self.put(b" ORCPT=", 7)
                self.put_field(orcpt, orcpt_length)
        self.put(b"\r\n", 2)
        self.end_line(STAGE_RCPT, slot)
        s.count += 1
        return 0

    cdef int recipients_done(self, int slot, int by) except -1:
        cdef client_slot *s = &self.slots[slot]
        cdef bint is_stepping = not self.extensions & EXTENSION_PIPELINING
        if s.count == 0:
            raise LocalProtocolError("a transaction needs a recipient")
        if by != BODY_BY_DATA and not self.extensions & EXTENSION_CHUNKING:
            raise LocalProtocolError("the peer does not offer CHUNKING")
        if is_stepping and by == BODY_BY_BDAT_NOW:
            by = BODY_BY_BDAT_LATER
        s.by = <uint8_t>by
        if by == BODY_BY_DATA:
            self.line(STAGE_DATA)
            self.put(b"DATA\r\n", 6)
            self.end_line(STAGE_DATA, slot)
        elif is_stepping:                   # a mark behind the last RCPT: "the recipients are not all known yet"
            self.line(STAGE_IDLE)
            self.end_line(STAGE_IDLE, slot)
        return self.release()

    cdef int body_begin(self, int slot, uint64_t message_octets) except -1:
        cdef client_slot *s = &self.slots[slot]
        cdef char text[48]
        cdef int length
        if s.phase != PHASE_BODY and not (s.phase == PHASE_OPEN and s.by == BODY_BY_BDAT_NOW):
            raise LocalProtocolError("no body may be sent now")
        s.phase = PHASE_BODY
        if s.by == BODY_BY_DATA:
            if self.witness is not None:
                self.witness.message(message_octets)
            smtp_data_stuff_begin(&self.stuff)
            return 0
        length = snprintf(text, sizeof(text), b"BDAT %llu LAST\r\n", <unsigned long long>message_octets)
        if self.witness is not None:
            self.witness.command(<const uint8_t *>text, <size_t>length - 2)
            self.witness.message(message_octets)
        return self.put(text, length)

    cdef int body_stuffed(self, const uint8_t *data, size_t length) except -1:
        self.reserve(&self.out, length + length // 2 + 2)
        self.out.length += smtp_data_stuff(&self.stuff, data, length, self.out.data + self.out.length)
        return 0

    cdef void tell_body(self, const uint8_t *data, size_t length) noexcept:
        if self.witness is not None:
            self.witness.data(data, length)

    cdef int body_end(self, int slot, bint ends_with_crlf) except -1:
        cdef client_slot *s = &self.slots[slot]
        if s.phase != PHASE_BODY:
            raise LocalProtocolError("no body was begun")
        if s.by == BODY_BY_DATA:
            if not ends_with_crlf:
                self.put(b"\r\n", 2)
            self.put(b".\r\n", 3)
        s.phase = PHASE_SENT
        self.is_too_early = self.input_length != 0
        return self.expect(STAGE_END, slot, 1)

    cdef uint64_t deadline_ms(self) noexcept:
        if self.state == CLIENT_HANDSHAKE:
            return self.timeouts.of_stage_ms[<int>STAGE_HANDSHAKE]
        if self.ring_count:
            return self.timeouts.of_stage_ms[self.ring[self.ring_head].stage]
        if self.slots[0].phase == PHASE_BODY or self.slots[1].phase == PHASE_BODY:
            return self.timeouts.block_ms
        return 0

    # ---------------------------------------------------------------- the Python face

    @property
    def deadline_s(self):
        return self.deadline_ms() / 1000

    def offers(self, str keyword not None):
        return bool(self.extensions & EXTENSION_BITS[keyword])

    @property
    def is_ready(self):
        return self.state == CLIENT_READY

    @property
    def is_closed(self):
        return self.state == CLIENT_CLOSED

    @property
    def may_start(self):
        return self.free_slot() >= 0

    def receive(self, const uint8_t[::1] data not None):
        cdef client_event event
        cdef list events = []
        cdef object status
        if data.shape[0] == 0:
            return events
        self.feed(&data[0], data.shape[0])
        while True:
            try:
                if self.next_event(&event) == EVENT_NONE:
                    return events
            except BrokenDialogue as error:
                error.events_before = events        # told before the octet at fault
                raise
            if event.kind == EVENT_SEND_BODY:
                events.append(Event(EVENT_NAMES[event.kind], STAGE_NAMES[event.stage], event.slot, 0, 0,
                                    (0, 0, 0), b"", False))
                continue
            status = (self.reply.status_class, self.reply.status_subject, self.reply.status_detail)
            events.append(Event(EVENT_NAMES[event.kind], STAGE_NAMES[event.stage], event.slot, event.index,
                                self.reply.code, status, <bytes>self.reply.text[:self.reply.text_length],
                                bool(event.is_over)))

    def take_output(self):
        cdef bytes data = self.out.data[:self.out.length]
        self.out_sent()
        return data

    def after_handshake(self):
        hello_under_tls(self)

    def begin_auth(self, str mechanism not None, bytes initial=None):
        auth_begin(self, mechanism.encode("ascii"), initial)

    def respond_auth(self, bytes response):
        auth_respond(self, response)

    @property
    def challenge(self):
        return auth_challenge(self)

    def start(self, bytes reverse_path not None, list forward_paths not None, *, uint64_t message_octets=0,
              bint is_8bit=False, bint is_smtputf8=False, bint requires_tls=False, str ret="", bytes envid=b"",
              str by="data", bint is_binary=False, tuple deliver_by=None, int priority=0, bytes solicit=b"",
              bytes submitter=b""):
        cdef mail_parameters p
        cdef client_terms terms
        cdef bytes path, orcpt
        cdef int slot
        cdef uint8_t notify
        p.message_octets = message_octets
        p.is_8bit = is_8bit
        p.is_smtputf8 = is_smtputf8
        p.requires_tls = requires_tls
        p.ret = 0 if not ret else <uint8_t>ord(ret[0])
        p.is_binary = is_binary
        p.terms = &terms
        terms.has_by = deliver_by is not None
        if deliver_by is not None:
            terms.by_seconds, terms.by_mode, terms.by_is_traced = deliver_by[0], ord(deliver_by[1]), deliver_by[2]
        terms.priority = priority
        terms.solicit = solicit
        terms.solicit_length = len(solicit)
        p.envid = envid
        p.envid_length = len(envid)
        p.submitter = submitter
        p.submitter_length = len(submitter)
        slot = self.mail(reverse_path, len(reverse_path), &p)
        for entry in forward_paths:
            path, notify, orcpt = entry if isinstance(entry, tuple) else (entry, 0, b"")
            self.rcpt(slot, path, len(path), notify, orcpt, len(orcpt))
        self.recipients_done(slot, {"data": BODY_BY_DATA, "bdat": BODY_BY_BDAT_NOW,
                                    "bdat-later": BODY_BY_BDAT_LATER}[by])
        return slot

    def send_body(self, int slot, bytes message not None):
        if not 0 <= slot < CLIENT_SLOTS:
            raise LocalProtocolError("no such slot")
        self.body_begin(slot, len(message))
        self.tell_body(message, len(message))
        if self.slots[slot].by == BODY_BY_DATA:
            self.body_stuffed(message, len(message))
        else:
            self.put(<const char *>message, len(message))
        self.body_end(slot, message.endswith(b"\r\n") or not message)

    def close(self):
        if self.state != CLIENT_READY or self.slots[0].phase != PHASE_FREE or self.slots[1].phase != PHASE_FREE:
            raise LocalProtocolError("QUIT belongs behind the hello and outside a transaction")
        self.quit()
