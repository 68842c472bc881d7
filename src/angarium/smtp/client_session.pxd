# The client's half of SMTP and LMTP, for cdef callers. See client_session.pyi for the Python face.
from libc.stdint cimport int8_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from angarium.smtp.csmtp cimport smtp_reply_machine, smtp_stuff_state

cdef enum:
    CLIENT_RECIPIENTS_MAX = 100         # of one transaction: what every server must take (RFC 5321 §4.5.3.1.8)
    CLIENT_SLOTS = 2                    # transactions on the wire: one ends while the next begins
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

cdef enum client_recipient:
    RECIPIENT_WAITING = 0               # no reply to its RCPT yet
    RECIPIENT_ACCEPTED
    RECIPIENT_TOLD                      # its event is out: refused or delivered

cdef enum client_phase:                 # of a transaction slot
    PHASE_FREE = 0
    PHASE_OPEN                          # commands are out, or held back without PIPELINING
    PHASE_REFUSED                       # outcome told; replies of the group still come and mean nothing
    PHASE_BODY                          # the body may be sent, or is being sent
    PHASE_SENT                          # everything is out, the last reply is awaited

cdef enum client_body:                  # how the body of a transaction goes out
    BODY_BY_DATA = 0                    # MAIL RCPT DATA in one group, the body after 354
    BODY_BY_BDAT_NOW                    # MAIL RCPT BDAT and the body in one group
    BODY_BY_BDAT_LATER                  # MAIL RCPT, the body once a recipient was accepted

cdef struct client_event:
    uint8_t kind
    uint8_t stage
    uint8_t slot
    bint is_over                        # the slot is free again
    uint32_t index
    # code, status and text: in the session's `reply` until the next call of next_event

cdef struct client_slot:
    uint8_t phase
    uint8_t by                          # client_body
    bint mail_is_accepted
    uint32_t count
    uint32_t replied                    # recipients whose RCPT was answered
    uint32_t accepted
    uint32_t cursor                     # LMTP: next recipient whose end-of-data reply is due
    uint8_t recipients[CLIENT_RECIPIENTS_MAX]

cdef struct client_expectation:
    uint8_t stage
    uint8_t slot
    uint16_t count                      # replies of this kind in a row

cdef struct client_buffer:
    uint8_t *data
    size_t length
    size_t capacity

cdef struct client_terms:               # each where offered
    bint has_by
    uint8_t by_mode                     # 'N' or 'R'
    bint by_is_traced
    int64_t by_seconds                  # from now
    int8_t priority                     # 0 is not said
    const uint8_t *solicit
    uint32_t solicit_length

cdef struct mail_parameters:
    uint64_t message_octets
    bint is_8bit                        # BODY=8BITMIME, where offered
    bint is_smtputf8
    bint requires_tls                   # REQUIRETLS, where offered
    uint8_t ret                         # 0, 'F' or 'H'
    const uint8_t *envid
    uint32_t envid_length
    bint is_binary                      # BODY=BINARYMIME: only for a peer that offers it, and by BDAT
    const client_terms *terms           # NULL: none


cdef class ClientSession:
    cdef smtp_reply_machine reply
    cdef smtp_stuff_state stuff
    cdef client_slot slots[CLIENT_SLOTS]
    cdef client_expectation ring[CLIENT_RING]
    cdef uint32_t ring_head
    cdef uint32_t ring_count
    cdef readonly uint32_t reply_count  # complete replies so far
    cdef client_buffer out              # commands to send; the caller takes them and sets length to 0
    cdef client_buffer held             # without PIPELINING: commands that wait for their turn
    cdef size_t held_at
    cdef size_t line_start              # in out, of the line being written
    cdef const uint8_t *input           # the caller's; only inside feed() ... next_event() == EVENT_NONE
    cdef size_t input_length
    cdef readonly bytes hostname        # our EHLO name
    cdef readonly bytes peer_name       # first word of the greeting
    cdef readonly uint32_t extensions
    cdef readonly uint64_t size_limit   # of SIZE, 0: none announced
    cdef readonly uint64_t by_minimum_s # of DELIVERBY
    # Of LIMITS (RFC 9422): MAILMAX, 0: none; RCPTMAX and RCPTDOMAINMAX of one transaction, never 0.
    cdef readonly uint32_t mail_limit
    cdef readonly uint32_t recipient_limit
    cdef readonly uint32_t domain_limit
    cdef uint8_t state
    cdef uint8_t body_due               # slot + 1 whose EVENT_SEND_BODY follows a refusal's event
    cdef readonly bint is_lmtp
    cdef bint watches_for_loop
    cdef readonly bint wants_tls        # STARTTLS where offered
    cdef readonly bint is_tls           # what comes now comes under TLS
    cdef bint had_starttls              # STARTTLS was said, and not refused
    cdef bint needs_reset               # a transaction may be open at the peer: RSET before the next MAIL

    # Input: feed, then next_event until EVENT_NONE. Raises RemoteProtocolError; the session is CLOSED then.
    cdef void feed(self, const uint8_t *data, size_t length) noexcept
    cdef int next_event(self, client_event *event) except -1
    # A transaction: mail, rcpt..., recipients_done, and the body when allowed.
    cdef int free_slot(self) noexcept                   # -1: none may start now
    cdef int mail(self, const uint8_t *path, uint32_t length, mail_parameters *p) except -1     # slot
    cdef int rcpt(self, int slot, const uint8_t *path, uint32_t length, uint8_t notify,
                  const uint8_t *orcpt, uint32_t orcpt_length) except -1
    cdef int recipients_done(self, int slot, int by) except -1
    cdef int body_begin(self, int slot, uint64_t message_octets) except -1
    cdef int body_stuffed(self, const uint8_t *data, size_t length) except -1   # DATA only: copied with dots doubled
    cdef int body_end(self, int slot, bint ends_with_crlf) except -1
    cdef int quit(self) except -1
    cdef int tls_established(self) except -1            # the handshake is over: EHLO again (RFC 3207 §4.2)
    cdef uint64_t deadline_ms(self) noexcept            # for the reply due next, 0: none is due

    cdef int put_terms(self, const client_terms *terms) except -1
    cdef int read_limits(self, list words) except -1
    cdef int begin_lines(self) except -1
    cdef int line(self, int stage) except -1
    cdef int end_line(self, int stage, int slot) except -1
    cdef int put_field(self, const uint8_t *data, size_t length) except -1
    cdef int reserve(self, client_buffer *buffer, size_t more) except -1
    cdef void out_sent(self) noexcept
    cdef int put(self, const void *data, size_t length) except -1
    cdef int expect(self, int stage, int slot, uint32_t count) except -1
    cdef int on_reply(self, client_event *event) except -1
    cdef int on_hello(self, client_event *event) except -1
    cdef int on_starttls(self, client_event *event, int reply_class) except -1
    cdef int say_hello(self) except -1
    cdef int on_recipient(self, client_event *event, client_slot *s, int reply_class) except -1
    cdef int on_data(self, client_event *event, client_slot *s, int reply_class) except -1
    cdef int on_end(self, client_event *event, client_slot *s, int reply_class) except -1
    cdef int recipients_known(self, client_event *event, int slot) except -1
    cdef int release(self) except -1
    cdef int over(self, client_event *event, int slot) noexcept
    cdef int broken(self, str text) except -1
