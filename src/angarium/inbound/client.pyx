# Who talks to us, as the verbs see it: session, rights, transaction. It is not the socket (connection.pyx).
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, strlen
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from angarium.admission.tallies cimport OVER_NONE, TALLY_ERRORS
from angarium.events.journal cimport Journal
from angarium.inbound.auth cimport auth_offer, auth_refresh
from angarium.inbound.claimed cimport claims_offer
from angarium.inbound.context cimport InboundContext
from angarium.inbound.limits cimport limits_again, limits_own
from angarium.inbound.networks cimport NetworkList
from angarium.inbound.terms cimport future_release_offer
from angarium.metrics.counters cimport Counter
from angarium.model.clock cimport mono_ms
from angarium.smtp.csmtp cimport *
from angarium.smtp.server_dialogue cimport EVENT_ETRN
from angarium.smtp.refusal_ids cimport REFUSAL_ID_OCTETS, refusal_id_encode
from angarium.smtp.server_session cimport ServerSession
from angarium.smtp.witness cimport Witness

from angarium.metrics.counters import counter
from angarium.smtp import reasons, replies
from angarium.smtp.reasons import word_of_filled_in

cdef extern from "<sys/socket.h>" nogil:
    enum: AF_INET, AF_INET6

cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        pass
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in:
        in_addr sin_addr
    struct sockaddr_in6:
        in6_addr sin6_addr

cdef extern from "<arpa/inet.h>" nogil:
    const char *inet_ntop(int family, const void *source, char *out, socklen_t size)

cdef Counter rejected_total = counter(
    "angarium_in_rejected_total", "Commands and messages refused, by policy, limits or protocol.")

cdef Counter injections_total = counter(
    "angarium_in_starttls_injections_total", "Sessions ended for octets in clear behind STARTTLS.")

cdef Counter early_talkers_total = counter("angarium_in_early_talkers_total", "Clients that spoke before the greeting.")
cdef enum:
    # What cannot be asked, as measured (docs/benchmarks.md): objects of a session and its transport; OpenSSL's state.
    SESSION_OCTETS = 3 << 10
    TLS_OCTETS = 24 << 10

cdef bytes STARTTLS_PIPELINED = replies.STARTTLS_PIPELINED
cdef bytes SPOKE_TOO_EARLY = replies.SPOKE_TOO_EARLY
cdef bytes OTHER = reasons.OTHER.encode("ascii")

cdef enum:
    REASON_LIMIT = 64               # octets of a word that is not ours

cdef const char **VERBS = [b"", b"HELO", b"EHLO", b"LHLO", b"MAIL", b"RCPT", b"DATA", b"BDAT", b"RSET", b"NOOP", b"VRFY",
                           b"EXPN", b"HELP", b"QUIT", b"STARTTLS", b"AUTH", b"ETRN", b"XCLIENT", b"XFORWARD", b"HTTP"]


cdef bint is_mapped(const uint8_t *address) noexcept:
    """An IPv4 client on an IPv6 socket, ::ffff:a.b.c.d (RFC 4291 §2.5.5.2)."""
    cdef int i
    for i in range(10):
        if address[i]:
            return False
    return address[10] == 255 and address[11] == 255


cdef class Client:
    def __cinit__(self, InboundContext context not None):
        self.context = context
        self.session = ServerSession.__new__(ServerSession, context.settings)
        self.generation = context.generation

    cdef size_t memory_octets(self) noexcept:
        cdef size_t held = SESSION_OCTETS + self.session.buffer_octets()
        if self.transaction != NULL:
            held += self.transaction.envelope.capacity
        if self.tls is not None:
            held += TLS_OCTETS
        return held

    cdef void set_peer(self, const sockaddr_storage *peer) noexcept:
        memset(self.binary_address, 0, 10)
        memset(self.binary_address + 10, 255, 2)
        if peer.ss_family == AF_INET:
            memcpy(self.binary_address + 12, &(<const sockaddr_in *>peer).sin_addr, 4)
            self.name_address()
        elif peer.ss_family == AF_INET6:
            memcpy(self.binary_address, (<const sockaddr_in6 *>peer).sin6_addr.s6_addr, 16)
            self.name_address()
        else:
            memcpy(self.binary_address + 12, b"\x7f\x00\x00\x01", 4)
            self.address[0] = 0
            self.address_length = 0
            self.find_rights()

    cdef void name_address(self) noexcept:
        if is_mapped(self.binary_address):
            inet_ntop(AF_INET, self.binary_address + 12, self.address, 46)
        else:
            memcpy(self.address, b"IPv6:", 5)
            inet_ntop(AF_INET6, self.binary_address, self.address + 5, 46)
        self.address_length = <uint8_t>strlen(self.address)
        self.find_rights()

    cdef void find_rights(self) noexcept:
        if self.session.identity is None:
            self.rights = None                  # STARTTLS: what was said in clear does not hold (RFC 3207 §4.2)
        self.may_relay = (self.context.relay_from.has(self.binary_address) or self.rights is not None
                          or self.tls is not None and self.introduced is None     # the certificate is the peer's
                          and self.context.is_relay_certificate(self.tls))
        if self.may_relay:
            limits_own(self)
        elif self.was_stranger:                 # a login in clear that TLS has ended, or a reload
            limits_again(self)
        self.session.is_trusted = self.context.is_submission and self.may_relay
        self.session.is_stranger = not self.may_relay
        if self.context.takes_claims or self.session.extensions is not None:
            claims_offer(self)
        if self.context.is_auth_offered or self.session.mechanisms is not None:
            auth_offer(self)
        if self.context.intake.tracing is not None:
            self.be_looked_at()
        if self.context.settings.hold_max_s or self.session.future_release is not None:
            future_release_offer(self)

    cdef void find_rights_of_claim(self) noexcept:
        self.rights = None
        if self.session.identity is not None:
            auth_refresh(self)
        self.find_rights()

    cdef void refresh(self) noexcept:
        self.generation = self.context.generation
        self.session.use(self.context.settings)
        self.let_in_until_ms = 0                # by rules that may be gone
        if self.session.identity is not None:
            auth_refresh(self)
        self.find_rights()

    cdef void resume(self) noexcept:
        pass

    # What tracing.py asks and does.

    @property
    def observer(self):
        return None if self.session.witness is None else self.session.witness.observer

    def is_in(self, NetworkList networks not None):
        return networks.has(self.binary_address)

    def watch(self, Witness witness):
        self.session.witness = witness

    cdef void note(self, str event, str text) noexcept:
        """To who looks on, if somebody does."""
        try:
            if self.session.witness is not None:
                self.session.witness.observer.note(event, text)
        except Exception as error:
            self.context.intake.journal.log("error", where="trace", reason=repr(error))

    cdef void be_looked_at(self) noexcept:
        try:
            self.context.intake.tracing.look_at(self)
        except Exception as error:
            self.context.intake.journal.log("error", where="trace", reason=repr(error))

    # What authority.py asks and answers.

    def hold_back(self, double seconds):
        """From now on every reply to this client comes so much later: a timer, no more."""
        self.tarpit_ms = <uint32_t>(seconds * 1000)

    def let_in(self, double seconds):
        self.let_in_until_ms = mono_ms() + <uint64_t>(seconds * 1000)

    def say_first(self, bytes line not None):
        self.session.say(line)
        self.resume()

    @property
    def host(self):
        cdef bytes text = self.address[:self.address_length]
        return text.removeprefix(b"IPv6:").decode("ascii")

    @property
    def network(self):
        cdef size_t length = 16 if is_mapped(self.binary_address) else 8
        return self.binary_address[:length]

    @property
    def name(self):
        return "" if self.introduced is None else self.introduced.name

    @property
    def reverse_name(self):
        return "" if self.introduced is None else self.introduced.reverse_name

    @property
    def helo(self):
        if self.is_being_introduced:
            return (self.introduced.helo or "").encode()
        return b"" if self.session.helo is None else self.session.helo

    @property
    def protocol(self):
        if self.session.settings.is_lmtp:
            return "LMTP"
        return "ESMTP" if (self.introduced.proto == "ESMTP" if self.is_being_introduced else self.session.is_ehlo) else "SMTP"

    @property
    def identity(self):
        if self.is_being_introduced:
            return self.introduced.login or None
        return None if self.session.identity is None else self.session.identity.decode("utf-8", "replace")

    @property
    def may_relay(self):
        if self.is_being_introduced:
            return self.context.relay_from.has(self.binary_address) or self.introduced.login != ""
        return self.may_relay

    @property
    def listener(self):
        return self.context.options

    @property
    def mechanism(self):
        if self.introduced is not None and self.introduced.login:
            return "XCLIENT"
        return "" if self.session.identity is None or self.is_being_introduced else self.session.mechanism

    @property
    def is_load_high(self):
        return self.context.intake.is_tight

    @property
    def is_secure(self):
        return self.session.is_tls

    def channel_binding(self, str kind not None):
        """The binding data of the TLS below; None in clear."""
        return None if self.tls is None else self.tls.channel_binding(kind)

    def peer_certificate_identity(self):
        """The name in the client's verified certificate: its one mailbox, or else its one domain."""
        certificate = None if self.tls is None or self.introduced is not None else self.tls.peer_certificate()
        if certificate is None or not certificate.is_verified:
            return None
        names = certificate.mailboxes or certificate.domains
        return names[0] if len(names) == 1 else None

    def etrn_answered(self, bytes reply not None):
        if self.session.asked == EVENT_ETRN:
            if reply[0] != c'2':
                self.tell_rejected(reply)
            self.session.answer(reply)
            self.resume()

    def auth_challenge(self, bytes octets not None):
        self.session.challenge(octets)
        if self.session.refusal_id != 0:
            self.tell_rejected(self.session.refusal)
        self.resume()

    def auth_accepted(self, bytes identity not None, rights):
        self.attempt = None
        self.session.authenticate(identity)
        if self.session.identity is not None:
            self.rights = rights
            self.may_relay = True
            limits_own(self)
        elif self.session.refusal_id != 0:
            self.tell_rejected(self.session.refusal)
        self.resume()

    def auth_refused(self, bytes reply not None):
        self.attempt = None
        self.session.refuse(reply)
        self.tell_rejected(self.session.refusal)    # too many errors, perhaps
        self.resume()

    def go_on_streaming(self):
        self.chunk_is_durable()

    cdef void chunk_is_durable(self) noexcept:
        pass

    cdef void tell_rejected(self, bytes reply) noexcept:
        self.tell_rejected_path(NULL, 0, reply)

    cdef void tell_rejected_path(self, const uint8_t *path, size_t length, bytes reply) noexcept:
        self.tell_rejected_for(path, length, reply, None)

    cdef void tell_refusal(self, const uint8_t *path, size_t length, object refusal) noexcept:
        cdef bytes word = OTHER
        try:
            word = refusal.reason.encode("utf-8", "replace")[:REASON_LIMIT]
        except Exception:
            pass
        self.tell_rejected_for(path, length, refusal.reply, word)

    cdef void tell_rejected_for(self, const uint8_t *path, size_t length, bytes reply, bytes word) noexcept:
        """A line in the journal. `path` is the forward-path refused, if it was one."""
        cdef InboundContext context = self.context
        cdef Journal journal = context.intake.journal
        cdef ServerSession session = self.session
        cdef const char *text = PyBytes_AS_STRING(reply)
        cdef size_t text_length = PyBytes_GET_SIZE(reply)
        cdef const char *verb = VERBS[session.verb] if session.verb <= SMTP_VERB_HTTP else VERBS[0]
        cdef bint is_said = session.refusal_id != 0
        cdef char[REFUSAL_ID_OCTETS] refusal_id
        if not is_said:
            session.refusal_id = context.intake.refusal_ids.take()
        refusal_id_encode(session.refusal_id, refusal_id)
        if word is None:
            word = self.word_of(reply)
        rejected_total.cell[0] += 1
        context.intake.refusals.count(word)
        if self.counted is not None and text[0] == c'5' and self.counted.take(TALLY_ERRORS) != OVER_NONE:
            self.is_over_errors = True
        if reply is STARTTLS_PIPELINED:
            injections_total.cell[0] += 1
        elif reply is SPOKE_TOO_EARLY:
            early_talkers_total.cell[0] += 1
        journal.begin(b"rejected")
        journal.text(b"id", <const uint8_t *>refusal_id, REFUSAL_ID_OCTETS)
        journal.text(b"reason", <const uint8_t *>PyBytes_AS_STRING(word), PyBytes_GET_SIZE(word))
        journal.text(b"listener", <const uint8_t *>PyBytes_AS_STRING(context.name), PyBytes_GET_SIZE(context.name))
        journal.text(b"client", <const uint8_t *>self.address, self.address_length)
        if session.helo is not None:
            journal.text(b"helo", <const uint8_t *>PyBytes_AS_STRING(session.helo), PyBytes_GET_SIZE(session.helo))
        if session.identity is not None:
            journal.text(b"user", <const uint8_t *>PyBytes_AS_STRING(session.identity), PyBytes_GET_SIZE(session.identity))
        if self.transaction != NULL:
            journal.text(b"from", self.transaction.envelope.data + self.transaction.reverse_path_offset,
                         self.transaction.reverse_path_length)
        if length:
            journal.text(b"to", path, length)
        journal.text(b"verb", <const uint8_t *>verb, strlen(verb))
        if text_length >= 6:
            journal.number(b"code", (text[0] - 48) * 100 + (text[1] - 48) * 10 + text[2] - 48)
            journal.text(b"reply", <const uint8_t *>text + 4, text_length - 6)
        context.intake.refusals.keep(journal)
        journal.end()
        if is_said:
            session.refusal_id = 0

    cdef bytes word_of(self, bytes reply):
        cdef bytes word = self.session.settings.refusal_words.get(reply)
        return word or word_of_filled_in(reply) or OTHER
