from libc.stdint cimport uint8_t, uint32_t, uint64_t
from angarium.model.octets cimport octets
from angarium.smtp.message_reader cimport message_reader
from angarium.smtp.server_parameters cimport mail_parameters, rcpt_parameters
from angarium.smtp.server_settings cimport ServerSettings
from angarium.smtp.witness cimport Witness


cdef enum server_event:
    EVENT_NONE = 0      # more input is wanted
    EVENT_WAIT          # an event was not answered yet; input waits
    EVENT_HELO          # told: `helo`, `is_ehlo`; any transaction is over
    EVENT_AUTH          # asked: challenge(), authenticate() or refuse(); `mechanism`, `response`
    EVENT_AUTH_RESPONSE # asked likewise; `response`
    EVENT_MAIL          # asked: accept() or refuse(); `path`, `mail`
    EVENT_RCPT          # asked: accept() or refuse(); `path`, `domain_offset`, `rcpt`
    EVENT_DATA          # asked: begin_data_with() or refuse(); `is_chunking` for the first BDAT
    EVENT_BODY          # told: `message.body` has run_octets or more and input is used up; take_body_octets() is allowed
    EVENT_MESSAGE       # asked: finish_with(); the whole of what is stored is in `message.body`
    EVENT_STARTTLS      # asked: accept() or refuse(); after accept() send `output` in clear, then begin TLS
    EVENT_XCLIENT       # asked: reintroduce() or answer(); `argument`
    EVENT_XFORWARD      # asked: answer(); `argument`
    EVENT_ETRN          # asked: answer(); `argument`
    EVENT_RESET         # told: RSET, the transaction is over
    EVENT_REFUSED       # told: we refused something ourselves; `verb`, `refusal`; see has_transaction()
    EVENT_CLOSE         # told once: say `output`, then close; no transaction any more
    EVENT_GO_ON         # never seen outside: nothing to tell, look at the input again


cdef class ServerDialogue:
    """The fields of one SMTP dialogue, server side. Owns its three buffers; borrows input between receive_octets() and hold()."""
    cdef ServerSettings settings
    cdef ServerSettings offered         # those of the last EHLO: what it offered is known until the next, whatever a reload says
    cdef bint was_offered_auth          # likewise, of what not every session gets
    cdef bint was_offered_holds
    cdef readonly uint8_t state         # server_state
    cdef readonly uint8_t after         # the state behind a skip
    cdef readonly uint8_t asked         # server_event that waits for its answer, or 0
    cdef readonly uint8_t verb          # of the event
    cdef readonly bint is_ehlo
    cdef readonly bint is_tls           # what comes in came under TLS
    cdef readonly bint is_chunking
    cdef readonly bint has_spoken       # the first line is in
    cdef bint is_last_chunk
    cdef readonly bint lingers          # what closes the session may leave input unread: let the peer read our reply
    cdef uint32_t ends_group            # bits of verbs behind which nothing may stand: of `offered`, or of nobody who said EHLO
    cdef readonly uint32_t recipient_count
    cdef readonly uint32_t refused_recipient_count
    cdef readonly uint32_t error_count
    cdef readonly uint32_t denied_count         # RCPT of a stranger refused for good, and for now, since the last message
    cdef readonly uint32_t put_off_count
    cdef readonly uint32_t junk_count   # commands since the last message that lead to none
    cdef uint64_t chunk_left
    cdef uint64_t chunk_octets
    cdef uint32_t mail_count            # MAIL commands accepted
    cdef readonly bytes helo
    cdef public bytes future_release    # parameters of FUTURERELEASE in EHLO; None: not offered
    cdef public bytes mail_reply        # said by accept() to MAIL instead of the usual one
    cdef readonly bytes solicit         # of MAIL, where MAIL_SOLICIT is set
    cdef public bytes mechanisms        # offered with AUTH, "PLAIN LOGIN"; None: AUTH is not offered
    cdef public bint auth_needs_tls     # not offered only because the connection is not under TLS
    cdef public bytes extensions        # lines of EHLO that not everybody gets, whole: "250-ETRN\r\n"; or None
    cdef public bint takes_xclient
    cdef public bint takes_xforward
    cdef public bint takes_etrn
    cdef public bint is_stranger        # RCPT that are refused count (count_refused_rcpt)
    cdef public bint is_trusted         # submission: MAIL without AUTH is allowed
    cdef readonly bytes argument        # of EVENT_XCLIENT, EVENT_XFORWARD and EVENT_ETRN
    cdef bytes completed                # what `path` points into when it was given a domain
    cdef uint32_t repeats               # LMTP: further replies that a refused last chunk is due (RFC 2033 §4.3)
    cdef readonly bytes identity        # of the client once AUTH succeeded; else None
    cdef readonly str mechanism         # of the exchange, upper case
    cdef readonly bytes response        # of EVENT_AUTH and EVENT_AUTH_RESPONSE, decoded; None: no initial response
    cdef Witness witness                # None: nobody looks on
    cdef readonly bytes refusal         # the reply of EVENT_REFUSED, or of a refused chunk to come
    cdef uint64_t refusal_id            # of a refusal said and not told yet, or told and not said yet; else 0
    # Spans of the event: into the input, good until the next advance() or hold().
    cdef const uint8_t *path
    cdef uint32_t path_length
    cdef uint32_t domain_offset
    cdef mail_parameters mail           # its flags hold for the whole transaction
    cdef rcpt_parameters rcpt
    cdef message_reader message
    cdef const uint8_t *at              # input not consumed yet
    cdef const uint8_t *end
    cdef octets *held                   # input kept from one receive_octets() to the next
    cdef octets *output

    # A reload. Who has not said EHLO was offered nothing yet.
    cdef void use(self, ServerSettings settings) noexcept
    cdef void say(self, bytes reply) noexcept
    cdef void say_octets(self, const void *data, size_t length) noexcept
    # Of the reply to message data, one for each recipient (RFC 2033 §4.2), those behind the first.
    cdef void repeat(self, const void *data, size_t length, uint32_t count) noexcept
    # Says a reply that refuses something, with its id if that is wanted.
    cdef void say_refusal(self, bytes reply) noexcept
    # Says `reply` and counts an error: EVENT_REFUSED; at max_errors the session ends instead.
    cdef server_event tell_refusal(self, bytes reply) noexcept
    # What is said to a RCPT that is to be refused with `reply`: the same, or the 421 of a session that has had too many.
    cdef bytes count_refused_rcpt(self, bytes reply)
    # Says `reply` and ends the session: what follows cannot be trusted to be commands.
    cdef server_event fail(self, bytes reply) noexcept
    cdef void end_session(self) noexcept    # the last reply was said
    cdef void end_transaction(self) noexcept
