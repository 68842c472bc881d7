# One transaction out, step by step: its envelope and body at hand, what the peer cannot take, MAIL RCPT DATA, the body.
# Which transaction comes next, and the socket, are connection.pyx's; bodies in chunks body_stream.pyx's.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EBADMSG, ENOMEM
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport malloc

from angarium.metrics.counters cimport Counter
from angarium.model.clock cimport mono_ms, utc_ms
from angarium.model.octets cimport octets_ref
from angarium.outbound.body_stream cimport stream_begin
from angarium.outbound.carrier cimport HAND_FETCHING, HAND_OPEN, HAND_READY, Carrier, hand
from angarium.queue.domains cimport DomainQueue
from angarium.queue.message cimport message, recipient, transaction
from angarium.smtp.csmtp cimport SMTP_NOTIFY_DELAY, SMTP_NOTIFY_FAILURE, SMTP_NOTIFY_NEVER
from angarium.smtp.client_dialogue cimport (
    EXTENSION_8BITMIME, EXTENSION_BINARYMIME, EXTENSION_CHUNKING, EXTENSION_DELIVERBY, EXTENSION_SMTPUTF8)
from angarium.smtp.client_session cimport (
    BODY_BY_BDAT_LATER, BODY_BY_BDAT_NOW, BODY_BY_DATA, ClientSession, client_terms, mail_parameters)
from angarium.queue.terms cimport has_attributes, message_terms, tenant_in, terms_read
from angarium.spool.cspool cimport (
    SPOOL_ENVELOPE_8BIT, SPOOL_ENVELOPE_BINARYMIME, SPOOL_ENVELOPE_BODY_8BITMIME, SPOOL_ENVELOPE_DOT_LINE,
    SPOOL_ENVELOPE_NO_FINAL_CRLF, SPOOL_ENVELOPE_REQUIRETLS, SPOOL_ENVELOPE_RET_FULL, SPOOL_ENVELOPE_RET_HDRS,
    SPOOL_ATTRIBUTE_IDENTITY, SPOOL_ENVELOPE_SMTPUTF8, spool_envelope, spool_envelope_find_attribute,
    spool_envelope_next_recipient,
    spool_envelope_open, spool_recipient, spool_span)

from angarium.metrics.counters import counter
from angarium.mime.xtext import encode_xtext
from angarium.outbound import trouble

cdef Counter bodies_read_back = counter("angarium_outbound_fetches_total",
                                        "Messages whose octets had to be read back from the spool.")

cdef enum:
    BINARY_EXTENSIONS = EXTENSION_BINARYMIME | EXTENSION_CHUNKING
    BY_SECONDS_MOST = 999999999 # nine digits, RFC 2852 §4
    SUBMITTER_OCTETS = 255      # 500 octets are left for AUTH= (RFC 4954 §3), and a few characters need three
    BDAT_NOW_OCTETS = 65536     # a larger body is not sent before its recipient is accepted


cdef int prepare(Carrier self) except -1:
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
    h.envelope = <spool_envelope *>malloc(sizeof(spool_envelope))
    if h.envelope == NULL:
        judgement = trouble.of_spool(ENOMEM)
    elif spool_envelope_open(h.envelope_octets.data, h.envelope_octets.length, h.envelope) != 0:
        judgement = trouble.of_spool(EBADMSG)
    elif h.body != NULL and h.body.length != h.envelope.message_octets:
        judgement = trouble.of_spool(EBADMSG)
    if judgement is not None:
        self.tell_rest(h, NULL, judgement)
        return self.settle(h)
    h.state = HAND_READY
    return check(self, h)


cdef int check(Carrier self, hand *h) except -1:
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
            while i < h.t.count and spool_envelope_next_recipient(h.envelope, &cursor, &r):
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
    if flags & SPOOL_ENVELOPE_REQUIRETLS and not self.takes_requiretls:
        judgement = trouble.no_requiretls(self.remote)      # it lies in the wrong queue: never sent all the same
    if judgement is None and flags & SPOOL_ENVELOPE_BINARYMIME and s.extensions & BINARY_EXTENSIONS != BINARY_EXTENSIONS:
        judgement = trouble.needs_binarymime(self.remote)
    if judgement is None and h.t.count and has_attributes(h.envelope):
        judgement = check_by_time(self, h)
    if judgement is not None:
        self.tell_rest(h, NULL, judgement)
        return self.settle(h)
    return 0


cdef object check_by_time(Carrier self, hand *h):
    """Of by-mode R: a host that would relay the message without knowing of it, or too late, does not get it. LMTP is the end of
    the way: in time there is in time."""
    cdef message_terms terms
    cdef int64_t left_s
    terms_read(h.envelope, &terms)
    if terms.by_mode != c'R':
        return None
    left_s = terms.by_utc_s - <int64_t>(utc_ms() // 1000)
    if left_s <= 0:
        return trouble.too_late(self.remote)
    if self.session.is_lmtp:
        return None
    if not self.session.extensions & EXTENSION_DELIVERBY:
        return trouble.needs_deliverby(self.remote)
    return trouble.too_late(self.remote) if <uint64_t>left_s < self.session.by_minimum_s else None


cdef void terms_to_say(const spool_envelope *envelope, client_terms *out) noexcept:
    cdef message_terms terms
    terms_read(envelope, &terms)
    out.has_by = terms.by_mode != 0
    out.by_mode = terms.by_mode
    out.by_is_traced = terms.by_is_traced
    out.by_seconds = terms.by_utc_s - <int64_t>(utc_ms() // 1000)
    if out.by_seconds < -BY_SECONDS_MOST:
        out.by_seconds = -BY_SECONDS_MOST
    out.priority = terms.priority
    out.solicit = terms.solicit.data
    out.solicit_length = terms.solicit.length


cdef bint take(Carrier self) noexcept:
    cdef bint is_taken
    cdef uint32_t limit = self.session.recipient_limit
    if self.scheduler.verp is not None and not self.session.is_lmtp:
        limit = 1                       # each has a reverse-path of its own where bounces are to tell who it was
    if self.session.domain_limit == 0:
        is_taken = self.ready.take(&self.next.t, limit, NULL)
    else:
        is_taken = self.ready.take(&self.next.t, limit, &self.domains)
        if is_taken:
            self.last_domain = <object>self.domains.last
    if is_taken and self.session_domains is not None:
        tell_domains(self)
    return is_taken


cdef void tell_domains(Carrier self) noexcept:
    cdef uint32_t i
    cdef void *last = NULL
    try:
        for i in range(self.next.t.count):
            if self.next.t.recipients[i].domain != last:
                last = self.next.t.recipients[i].domain
                self.session_domains.carries((<DomainQueue>last).domain)
    except Exception as error:
        self.scheduler.journal.log("error", where="TLS reports", remote=self.remote, reason=repr(error))


cdef bint is_out_of_domains(Carrier self) noexcept:
    return self.session.domain_limit != 0 and self.ready.is_beyond(&self.domains)


cdef int transmit(Carrier self) except -1:
    """MAIL, RCPT ... of `next`, and its body where nothing has to be waited for."""
    cdef ClientSession s = self.session
    cdef hand *h
    cdef hand swapped
    cdef mail_parameters p
    cdef client_terms terms
    cdef const uint8_t *cursor
    cdef spool_recipient r
    cdef uint32_t flags, i = 0, index = 0
    cdef int slot, by = BODY_BY_DATA
    cdef bint asks_for_delay = False
    cdef spool_span reverse_path
    cdef bytes traced, submitter
    flags = self.next.envelope.flags
    p.message_octets = self.next.envelope.message_octets
    p.is_8bit = flags & (SPOOL_ENVELOPE_8BIT | SPOOL_ENVELOPE_BODY_8BITMIME) != 0
    p.is_smtputf8 = flags & SPOOL_ENVELOPE_SMTPUTF8 != 0
    p.requires_tls = flags & SPOOL_ENVELOPE_REQUIRETLS != 0
    p.ret = c'F' if flags & SPOOL_ENVELOPE_RET_FULL else c'H' if flags & SPOOL_ENVELOPE_RET_HDRS else 0
    p.envid = self.next.envelope.envid.data
    p.envid_length = self.next.envelope.envid.length
    p.is_binary = flags & SPOOL_ENVELOPE_BINARYMIME != 0
    p.terms = NULL
    p.submitter_length = 0
    if has_attributes(self.next.envelope):
        if self.submits:
            submitter = submitter_of(self.next.envelope)
            if submitter is not None:
                p.submitter = <const uint8_t *>PyBytes_AS_STRING(submitter)
                p.submitter_length = <uint32_t>PyBytes_GET_SIZE(submitter)
        terms_to_say(self.next.envelope, &terms)
        p.terms = &terms
        # RFC 2852 §4.1.4.2: who does not know of the by-time is asked to tell of a delay instead.
        asks_for_delay = (terms.has_by and terms.by_mode == c'N' and terms.by_seconds > 0
                          and not s.extensions & EXTENSION_DELIVERBY and not s.is_lmtp)
    reverse_path = self.next.envelope.reverse_path
    if self.scheduler.verp is not None and reverse_path.length and not s.is_lmtp:
        traced = traced_path(self, &self.next)
        if traced is not None:
            reverse_path.data = <const uint8_t *>PyBytes_AS_STRING(traced)
            reverse_path.length = <uint32_t>PyBytes_GET_SIZE(traced)
    slot = s.mail(reverse_path.data, reverse_path.length, &p)
    h = &self.hands[slot]
    swapped = h[0]
    h[0] = self.next
    self.next = swapped
    h.state = HAND_OPEN
    h.started_ms = mono_ms()
    cursor = h.envelope.recipients
    while i < h.t.count and spool_envelope_next_recipient(h.envelope, &cursor, &r):
        if index == h.t.recipients[i].index:
            s.rcpt(slot, r.forward_path.data, r.forward_path.length, with_delay(r.notify) if asks_for_delay else r.notify,
                   r.orcpt.data, r.orcpt.length)
            i += 1
        index += 1
    if s.extensions & EXTENSION_CHUNKING:
        # One round trip instead of two. A larger body, or one that some recipient may still cost, waits for the
        # replies to RCPT, and then BDAT is worth it only where DATA would have to look at every octet.
        if self.ready.avoids_bdat and not flags & SPOOL_ENVELOPE_BINARYMIME:    # which DATA cannot carry (RFC 3030 §3)
            pass
        elif h.t.count == 1 and h.body != NULL and h.body.length <= BDAT_NOW_OCTETS:
            by = BODY_BY_BDAT_NOW
        elif flags & (SPOOL_ENVELOPE_DOT_LINE | SPOOL_ENVELOPE_NO_FINAL_CRLF | SPOOL_ENVELOPE_BINARYMIME):
            by = BODY_BY_BDAT_LATER
    s.recipients_done(slot, by)
    if s.slots[slot].by == BODY_BY_BDAT_NOW:
        send_body(self, slot)
    return 0


cdef bytes submitter_of(const spool_envelope *envelope):
    """In xtext, the mailbox that brought the message under its own name (RFC 4954 §5); None: nobody did, or it is none."""
    cdef spool_span identity
    cdef bytes text
    if not spool_envelope_find_attribute(envelope, SPOOL_ATTRIBUTE_IDENTITY, &identity) or identity.length > SUBMITTER_OCTETS:
        return None
    text = identity.data[:identity.length]
    return encode_xtext(text) if b"@" in text and text.isascii() else None


cdef inline uint8_t with_delay(uint8_t notify) noexcept:
    if notify & SMTP_NOTIFY_NEVER:
        return notify
    return <uint8_t>((notify or SMTP_NOTIFY_FAILURE) | SMTP_NOTIFY_DELAY)


cdef bytes traced_path(Carrier self, hand *h):
    """The reverse-path that a bounce will tell this recipient by, or None."""
    cdef const uint8_t *cursor = h.envelope.recipients
    cdef spool_recipient r
    cdef uint32_t index = 0
    if h.t.count != 1:                      # taken before the option was set
        return None
    while spool_envelope_next_recipient(h.envelope, &cursor, &r):
        if index == h.t.recipients[0].index:
            try:
                return self.scheduler.verp(h.t.message.id, h.envelope.reverse_path.data[:h.envelope.reverse_path.length],
                                           r.forward_path.data[:r.forward_path.length], tenant_in(h.envelope))
            except Exception as error:
                self.scheduler.journal.log("error", where="verp", reason=repr(error))
                return None
        index += 1
    return None


cdef int send_body(Carrier self, int slot) except -1:
    cdef ClientSession s = self.session
    cdef hand *h = &self.hands[slot]
    s.body_begin(slot, h.envelope.message_octets)
    if h.body == NULL:
        return stream_begin(self, slot)
    s.tell_body(h.body.data, h.body.length)
    if s.slots[slot].by == BODY_BY_DATA and h.envelope.flags & SPOOL_ENVELOPE_DOT_LINE:
        s.body_stuffed(h.body.data, h.body.length)
    else:
        if self.piece_length:
            self.flush()
            if self.is_closed:          # TLS failed: what was in hand has been given back
                return 0
        self.piece = h.body.data
        self.piece_length = h.body.length
        self.piece_at = s.out.length
    return s.body_end(slot, not h.envelope.flags & SPOOL_ENVELOPE_NO_FINAL_CRLF)


cdef bint is_ascii(spool_span span) noexcept:
    cdef uint32_t i
    for i in range(span.length):
        if span.data[i] > 127:
            return False
    return True
