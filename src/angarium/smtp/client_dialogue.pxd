# What both halves of a client session share, its hello (client_hello.pyx) and its transactions (client_session.pyx): its
# fields, and how commands go out, each with the reply that is expected for it.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from angarium.smtp.csmtp cimport smtp_reply_machine
from angarium.smtp.witness cimport Witness

cdef enum:
    CLIENT_RECIPIENTS_MAX = 100         # of one transaction: what every server must take (RFC 5321 §4.5.3.1.8)
    CLIENT_RING = 8                     # expectations; RCPT and LMTP runs are one each, so 7 is the most there is

cdef enum client_state:
    CLIENT_GREETING = 0
    CLIENT_EHLO
    CLIENT_HELO
    CLIENT_READY
    CLIENT_QUIT
    CLIENT_CLOSED
    CLIENT_STARTTLS
    CLIENT_HANDSHAKE                    # of TLS: nothing is understood until tls_established()
    CLIENT_AUTH                         # a SASL exchange is under way

cdef enum client_stage:                 # which command a reply answers
    STAGE_CONNECT = 0                   # no session yet: used by trouble.py only
    STAGE_GREETING
    STAGE_EHLO
    STAGE_HELO
    STAGE_MAIL
    STAGE_RCPT
    STAGE_DATA
    STAGE_END                           # end of data, or the last BDAT chunk
    STAGE_RSET
    STAGE_QUIT
    STAGE_IDLE                          # nothing was asked
    STAGE_STARTTLS
    STAGE_HANDSHAKE                     # the connection's: no command of SMTP
    STAGE_AUTH                          # AUTH, or a response to a challenge

cdef enum client_extension:
    EXTENSION_PIPELINING = 1
    EXTENSION_SIZE = 2
    EXTENSION_8BITMIME = 4
    EXTENSION_SMTPUTF8 = 8
    EXTENSION_DSN = 16
    EXTENSION_CHUNKING = 32
    EXTENSION_ENHANCEDSTATUSCODES = 64
    EXTENSION_STARTTLS = 128
    EXTENSION_REQUIRETLS = 256
    EXTENSION_BINARYMIME = 1 << 9
    EXTENSION_DELIVERBY = 1 << 10
    EXTENSION_MT_PRIORITY = 1 << 11
    EXTENSION_NO_SOLICITING = 1 << 12
    EXTENSION_LIMITS = 1 << 13
    EXTENSION_AUTH = 1 << 14

cdef enum client_event_kind:
    EVENT_NONE = 0
    EVENT_READY                         # the hello is over, transactions may start
    EVENT_HELLO_REFUSED                 # greeting or HELO refused: QUIT is out, the session is over
    EVENT_LOOP                          # the greeting bears our own name
    EVENT_RECIPIENT_REFUSED             # slot, index
    EVENT_RECIPIENT_DELIVERED           # slot, index (LMTP)
    EVENT_MESSAGE_REFUSED               # slot: MAIL, DATA or end of data refused, for all recipients not yet told
    EVENT_SEND_BODY                     # slot: body_begin, body..., body_end
    EVENT_DELIVERED                     # slot: all accepted recipients
    EVENT_OVER                          # slot: nothing else to tell, it is free again
    EVENT_CLOSING                       # 421: nothing more will be answered; stage and slot say where it struck
    EVENT_BYE                           # QUIT was answered
    EVENT_STARTTLS                      # the handshake may begin; tls_established() when it is over
    EVENT_STARTTLS_REFUSED              # instead of EVENT_READY: transactions may start, in clear
    EVENT_AUTH_CHALLENGE                # auth_challenge() says what it is, auth_respond() answers
    EVENT_AUTHENTICATED                 # transactions may start
    EVENT_AUTH_REFUSED                  # likewise, without

cdef struct client_event:
    uint8_t kind
    uint8_t stage
    uint8_t slot
    bint is_over                        # the slot is free again
    uint32_t index
    # code, status and text: in the session's `reply` until the next call of next_event

cdef struct client_expectation:
    uint8_t stage
    uint8_t slot
    uint16_t count                      # replies of this kind in a row

cdef struct client_buffer:
    uint8_t *data
    size_t length
    size_t capacity


cdef class ClientDialogue:
    """The fields of one SMTP dialogue, client side. Owns `out`, `held` and `own_reply` (malloc)."""
    # The one being read. Most come whole: then it is one for all sessions, good until another session is fed. A session whose
    # reply came in part has its own until it is whole (malloc).
    cdef smtp_reply_machine *reply
    cdef smtp_reply_machine *own_reply  # or NULL
    cdef client_expectation ring[CLIENT_RING]
    cdef uint32_t ring_head
    cdef uint32_t ring_count
    cdef client_buffer out              # commands to send; the caller takes them and sets length to 0
    cdef client_buffer held             # without PIPELINING: commands that wait for their turn
    cdef size_t held_at
    cdef Witness witness                # None: nobody looks on
    cdef size_t told_at                 # in out: what the witness has been told
    cdef size_t line_start              # in out, of the line being written
    cdef const uint8_t *input           # the caller's; only inside feed() ... next_event() == EVENT_NONE
    cdef size_t input_length
    cdef readonly bytes hostname        # our EHLO name
    cdef readonly bytes peer_name       # first word of the greeting
    cdef uint8_t state
    cdef readonly bint is_lmtp
    cdef bint watches_for_loop
    cdef readonly bint wants_tls        # STARTTLS where offered
    cdef readonly bint is_tls           # what comes now comes under TLS
    cdef bint had_starttls              # STARTTLS was said, and not refused
    # What the peer offers, of its newest answer to EHLO or LHLO.
    cdef readonly uint32_t extensions   # EXTENSION_*
    cdef readonly uint64_t size_limit   # of SIZE, 0: none announced
    cdef readonly uint64_t by_minimum_s # of DELIVERBY
    # Of LIMITS (RFC 9422): MAILMAX and RCPTDOMAINMAX of the session, 0: none; RCPTMAX of one transaction, never 0.
    cdef readonly uint32_t mail_limit
    cdef readonly uint32_t recipient_limit
    cdef readonly uint32_t domain_limit
    cdef readonly bytes mechanisms      # of AUTH, as offered, in capitals
    cdef bytes initial                  # response that was too long for the AUTH command
    cdef readonly bint is_authenticated

    cdef int begin_lines(self) except -1
    cdef int line(self, int stage) except -1
    cdef int end_line(self, int stage, int slot) except -1
    cdef int release(self) except -1
    cdef int quit(self) except -1
    cdef void tell_command(self, int stage) noexcept    # for the witness: what stands in out since told_at
    cdef void tell_reply(self) noexcept
    cdef int put(self, const void *data, size_t length) except -1
    cdef int put_field(self, const uint8_t *data, size_t length) except -1
    cdef int expect(self, int stage, int slot, uint32_t count) except -1
    cdef int reserve(self, client_buffer *buffer, size_t more) except -1
    cdef void out_sent(self) noexcept
    cdef int broken(self, str text) except -1           # raises BrokenDialogue; the session is CLOSED
