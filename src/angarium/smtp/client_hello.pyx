# The hello of a client session: greeting, EHLO, LHLO or HELO, STARTTLS, and what the peer offers (RFC 5321 §4.1.1.1, RFC 3207,
# RFC 9422). The table of states is client_session.pyx's.
from libc.stdint cimport uint32_t, uint64_t
from angarium.smtp.client_dialogue cimport *
from angarium.smtp.csmtp cimport smtp_decimal_parse, smtp_reply_reset

from angarium.model.errors import LocalProtocolError

cdef enum:
    BY_DIGITS = 9                       # RFC 2852 §2 (3)
    LIMIT_DIGITS = 6                    # RFC 9422 §4.1 to §4.3

EXTENSION_BITS = {
    "PIPELINING": EXTENSION_PIPELINING, "SIZE": EXTENSION_SIZE, "8BITMIME": EXTENSION_8BITMIME,
    "SMTPUTF8": EXTENSION_SMTPUTF8, "DSN": EXTENSION_DSN, "CHUNKING": EXTENSION_CHUNKING,
    "ENHANCEDSTATUSCODES": EXTENSION_ENHANCEDSTATUSCODES, "STARTTLS": EXTENSION_STARTTLS,
    "REQUIRETLS": EXTENSION_REQUIRETLS, "BINARYMIME": EXTENSION_BINARYMIME,
    "DELIVERBY": EXTENSION_DELIVERBY, "MT-PRIORITY": EXTENSION_MT_PRIORITY, "NO-SOLICITING": EXTENSION_NO_SOLICITING,
    "LIMITS": EXTENSION_LIMITS, "AUTH": EXTENSION_AUTH,
}


cdef int hello_replied(ClientDialogue self, client_event *event) except -1:
    """A reply to the greeting's stage, EHLO, HELO, LHLO or STARTTLS."""
    cdef int reply_class = self.reply.code // 100
    cdef bytes text
    if event.stage == STAGE_GREETING and reply_class == 2:
        text = self.reply.text[:self.reply.text_length]
        text = text.split(b"\n", 1)[0].split(b" ", 1)[0]
        self.peer_name = text
        if self.watches_for_loop and text.lower() == self.hostname.lower():
            event.kind = EVENT_LOOP
            return self.quit()
        return say_hello(self)
    if event.stage == STAGE_STARTTLS:
        return starttls_replied(self, event, reply_class)
    if reply_class == 2:
        if event.stage == STAGE_EHLO:
            read_extensions(self)
        if self.wants_tls and not self.is_tls and self.extensions & EXTENSION_STARTTLS:
            self.put(b"STARTTLS\r\n", 10)
            self.state = CLIENT_STARTTLS
            self.had_starttls = True
            return self.expect(STAGE_STARTTLS, 0, 1)
        self.state = CLIENT_READY
        event.kind = EVENT_READY
        return 0
    if event.stage == STAGE_EHLO and reply_class == 5 and not self.is_lmtp:
        self.put(b"HELO ", 5)                       # RFC 5321 §3.2: an old server
        self.put(<const char *>self.hostname, len(self.hostname))
        self.put(b"\r\n", 2)
        self.state = CLIENT_HELO
        return self.expect(STAGE_HELO, 0, 1)
    event.kind = EVENT_HELLO_REFUSED
    return self.quit()


cdef int say_hello(ClientDialogue self) except -1:
    self.put(b"LHLO " if self.is_lmtp else b"EHLO ", 5)
    self.put(<const char *>self.hostname, len(self.hostname))
    self.put(b"\r\n", 2)
    self.state = CLIENT_EHLO
    return self.expect(STAGE_EHLO, 0, 1)


cdef int starttls_replied(ClientDialogue self, client_event *event, int reply_class) except -1:
    if reply_class == 2:
        self.state = CLIENT_HANDSHAKE
        event.kind = EVENT_STARTTLS
        return 0
    self.had_starttls = False
    self.state = CLIENT_READY               # RFC 3207 §4: whether to go on in clear is the caller's choice
    event.kind = EVENT_STARTTLS_REFUSED
    return 0


cdef int hello_under_tls(ClientDialogue self) except -1:
    if self.state != CLIENT_HANDSHAKE:
        raise LocalProtocolError("no handshake was due")
    self.is_tls = True
    # RFC 3207 §4.2: nothing that was learnt in clear counts any more.
    forget_offer(self)
    smtp_reply_reset(self.reply)
    if self.ring_count:                     # a greeting is due: the connection began with TLS
        self.state = CLIENT_GREETING
        return 0
    return say_hello(self)


cdef void forget_offer(ClientDialogue self) noexcept:
    self.extensions = 0
    self.size_limit = 0
    self.by_minimum_s = 0
    self.mail_limit = self.domain_limit = 0
    self.mechanisms = b""
    self.recipient_limit = CLIENT_RECIPIENTS_MAX


cdef int read_extensions(ClientDialogue self) except -1:
    # Lines behind the first: keyword [parameters] (RFC 5321 §4.1.1.1). Once a connection.
    cdef bytes text = self.reply.text[:self.reply.text_length]
    cdef bytes keyword
    cdef uint64_t limit
    forget_offer(self)
    for line in text.split(b"\n")[1:]:
        words = line.split()
        if not words:
            continue
        keyword = words[0].upper()
        self.extensions |= EXTENSION_BITS.get(keyword.decode("ascii", "replace"), 0)
        if keyword == b"SIZE" and len(words) > 1:
            keyword = words[1]
            if smtp_decimal_parse(keyword, len(keyword), &limit):
                self.size_limit = limit
        elif keyword == b"DELIVERBY" and len(words) > 1:
            keyword = words[1].partition(b",")[0]       # RFC 2852 §2 (3): options of later documents may stand behind it
            if len(keyword) <= BY_DIGITS and smtp_decimal_parse(keyword, len(keyword), &limit):
                self.by_minimum_s = limit
        elif keyword == b"LIMITS":
            read_limits(self, words)
        elif keyword == b"AUTH":                            # RFC 4954 §3 (3)
            self.mechanisms = b" ".join(words[1:]).upper()


cdef int read_limits(ClientDialogue self, list words) except -1:
    """RFC 9422 §3: name "=" value; what is unknown or malformed says nothing (§3.7)."""
    cdef bytes name, value
    cdef uint64_t limit
    for word in words[1:]:
        name, _, value = word.partition(b"=")
        if len(value) > LIMIT_DIGITS or value.startswith(b"0") or not smtp_decimal_parse(value, len(value), &limit):
            continue
        name = name.upper()
        if name == b"MAILMAX":
            self.mail_limit = <uint32_t>limit
        elif name == b"RCPTMAX":
            self.recipient_limit = min(<uint32_t>limit, <uint32_t>CLIENT_RECIPIENTS_MAX)
        elif name == b"RCPTDOMAINMAX":
            self.domain_limit = <uint32_t>limit
    return 0
