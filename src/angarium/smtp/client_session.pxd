# The client's half of SMTP and LMTP, for cdef callers. See client_session.pyi for the Python face.
from libc.stdint cimport int8_t, int64_t, uint8_t, uint32_t, uint64_t
from angarium.smtp.client_dialogue cimport CLIENT_RECIPIENTS_MAX, ClientDialogue, client_event
from angarium.smtp.csmtp cimport smtp_stuff_state

cdef enum:
    CLIENT_SLOTS = 2                    # transactions on the wire: one ends while the next begins
    CLIENT_RECIPIENTS_FEW = 8           # more of them take memory of their own

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

cdef struct client_slot:
    uint8_t phase
    uint8_t by                          # client_body
    bint mail_is_accepted
    uint32_t count
    uint32_t replied                    # recipients whose RCPT was answered
    uint32_t accepted
    uint32_t cursor                     # LMTP: next recipient whose end-of-data reply is due
    uint8_t *recipients                 # client_recipient of each: `few`, or `many`
    uint8_t *many                       # malloc, room for CLIENT_RECIPIENTS_MAX; NULL until they are needed
    uint8_t few[CLIENT_RECIPIENTS_FEW]

cdef struct client_terms:               # each where offered
    bint has_by
    uint8_t by_mode                     # 'N' or 'R'
    bint by_is_traced
    int64_t by_seconds                  # from now
    int8_t priority                     # said where it is offered, 0 too
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
    const uint8_t *submitter            # of AUTH=, in xtext: said where we are authenticated; length 0: "<>"
    uint32_t submitter_length


cdef class PhaseTimeouts:
    cdef uint64_t of_stage_ms[14]
    cdef uint64_t block_ms              # for a block of the body to leave


cdef class ClientSession(ClientDialogue):
    cdef PhaseTimeouts timeouts
    cdef smtp_stuff_state stuff
    cdef client_slot slots[CLIENT_SLOTS]
    cdef readonly uint32_t reply_count  # complete replies so far
    cdef uint8_t body_due               # slot + 1 whose EVENT_SEND_BODY follows a refusal's event
    cdef bint is_too_early              # what is read had come before the body was sent whose end was asked for last
    cdef bint needs_reset               # a transaction may be open at the peer: RSET before the next MAIL

    # Input: feed, then next_event until EVENT_NONE. Raises RemoteProtocolError; the session is CLOSED then.
    cdef void feed(self, const uint8_t *data, size_t length) noexcept
    cdef int next_event(self, client_event *event) except -1
    cdef int keep_part(self) except -1
    # A transaction: mail, rcpt..., recipients_done, and the body when allowed.
    cdef int free_slot(self) noexcept                   # -1: none may start now
    cdef int mail(self, const uint8_t *path, uint32_t length, mail_parameters *p) except -1     # slot
    cdef int rcpt(self, int slot, const uint8_t *path, uint32_t length, uint8_t notify,
                  const uint8_t *orcpt, uint32_t orcpt_length) except -1
    cdef int recipients_done(self, int slot, int by) except -1
    cdef int body_begin(self, int slot, uint64_t message_octets) except -1
    cdef int body_stuffed(self, const uint8_t *data, size_t length) except -1   # DATA only: copied with dots doubled
    cdef void tell_body(self, const uint8_t *data, size_t length) noexcept      # to the witness: before dots are doubled
    cdef int body_end(self, int slot, bint ends_with_crlf) except -1
    cdef uint64_t deadline_ms(self) noexcept            # for the reply due next, 0: none is due

    cdef int put_terms(self, const client_terms *terms) except -1
    cdef int on_reply(self, client_event *event) except -1
    cdef int on_recipient(self, client_event *event, client_slot *s, int reply_class) except -1
    cdef int on_data(self, client_event *event, client_slot *s, int reply_class) except -1
    cdef int on_end(self, client_event *event, client_slot *s, int reply_class) except -1
    cdef int recipients_known(self, client_event *event, int slot) except -1
    cdef int over(self, client_event *event, int slot) noexcept
