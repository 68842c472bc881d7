# What inbound connections share: one Intake per worker, one InboundContext per listener in it.
# Policy as data: which clients and which recipient domains may relay. Who asks, and when, is in rcpt.pyx.
cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t
from angarium.admission.bounds cimport Bounds
from angarium.events.journal cimport Journal
from angarium.inbound.networks cimport NetworkList
from angarium.sockets.poll cimport Poll
from angarium.inbound.refusals cimport Refusals
from angarium.queue.scheduler cimport Scheduler
from angarium.queue.wheel cimport Wheel
from angarium.smtp.refusal_ids cimport RefusalIds
from angarium.smtp.server_settings cimport ServerSettings
from angarium.spool.shard cimport Shard
from angarium.tls.context cimport ServerContext
from angarium.tls.ctls cimport TLS_PLAIN_SLACK
from angarium.tls.session cimport TlsSession

from angarium.inbound.judgement import appoint
from angarium.inbound.etrn import EtrnRules
from angarium.inbound.submission import Submission
from angarium.smtp.server_settings import ServerSettings as make_settings

cdef enum:
    DOMAIN_OCTETS = 255
    # What a slow disk may pile up in memory whatever the number of clients, also of those that went away: streamed
    # messages wait past the first, new mail is put off with 452 past the second. Seconds of a disk's work.
    STREAM_LIMIT = 16 << 20
    OVERLOAD_LIMIT = 256 << 20


@cython.final
cdef class Intake:
    def __cinit__(self, Shard shard not None, Scheduler scheduler not None, Journal journal not None,
                  Wheel wheel not None, object loop, Poll poll=None, Bounds bounds=None):
        self.shard = shard
        self.scheduler = scheduler
        self.journal = journal
        self.wheel = wheel
        self.loop = loop
        self.poll = Poll(loop) if poll is None else poll
        self.bounds = Bounds() if bounds is None else bounds
        self.read_owner = bytearray(READ_OCTETS)
        self.read_octets = <uint8_t *>PyByteArray_AS_STRING(self.read_owner)
        self.deadline_kind = -1
        self.appointing = ()
        self.own_domains = frozenset()
        self.clients = set()
        self.waiting = {}
        self.refusals = Refusals()
        self.refusal_ids = RefusalIds()

    cdef void transaction_began(self) noexcept:
        self.active += 1
        self.shard.expect(self.active)

    cdef void transaction_ended(self) noexcept:
        self.active -= 1
        self.shard.expect(self.active)

    cdef void make_plain_buffer(self):
        if self.plain_owner is None:
            self.plain_capacity = READ_OCTETS + TLS_PLAIN_SLACK
            self.plain_owner = bytearray(self.plain_capacity)
            self.plain_octets = <uint8_t *>PyByteArray_AS_STRING(self.plain_owner)

    cdef bint may_stream(self) noexcept:
        return self.unsynced_octets < STREAM_LIMIT

    cdef bint is_overloaded(self) noexcept:
        return self.unsynced_octets >= OVERLOAD_LIMIT

    cdef void wake_waiting(self) noexcept:
        """Something has become durable, whatever it was: streamed messages that wait for the disk go on."""
        try:
            while self.waiting and self.may_stream():
                client = next(iter(self.waiting))
                del self.waiting[client]
                client.go_on_streaming()
        except Exception as error:
            self.journal.log("error", where="streaming", reason=repr(error))

    def drain(self):
        """Idle sessions get 421 now, the others at the end of their transaction."""
        self.is_draining = True
        self.close_idle()

    def close_idle(self):
        return sum(1 for client in list(self.clients) if client.close_if_idle())

    def abort_all(self):
        for client in list(self.clients):
            client.abort()


@cython.final
cdef class InboundContext:
    def __cinit__(self, Intake intake not None, *args):
        self.intake = intake

    def __init__(self, Intake intake, hostname, options, ServerContext tls=None):
        self.apply(hostname, options, tls)

    def apply(self, hostname, options, ServerContext tls=None):
        """Compiles first, then changes everything at once: an error leaves the old options in force."""
        is_submission = options.protocol in ("submission", "submissions")
        settings = make_settings(
            hostname, max_message_octets=options.max_message_octets, max_recipients=options.max_recipients,
            max_line_octets=options.max_line_octets, max_errors=options.max_errors, max_junk=options.max_junk,
            max_refused_recipients=options.max_refused_recipients,
            starttls=options.tls is not None and options.tls.offers_starttls,
            requires_tls=options.tls is not None and options.tls.required,
            requiretls=options.tls is not None and options.tls.requiretls, auth_required=options.auth.required,
            lmtp=options.protocol == "lmtp", must_qualify=is_submission,
            completion=options.submission.complete_with.encode("ascii") or None,
            command_timeout_s=round(options.command_timeout), block_timeout_s=round(options.data_timeout),
            refusal_ids=self.intake.refusal_ids, tells_refusal_ids=options.tell_refusal_ids,
            **options.extensions.settings(options.protocol))
        domains = options.domains | self.intake.own_domains
        relay_from = NetworkList(options.networks(options.relay_from))
        proxy_from = NetworkList(options.networks(options.proxy_from))
        auth_in_clear = NetworkList(options.auth.networks)
        xclient_from = NetworkList(options.networks(options.xclient_from))
        xforward_from = NetworkList(options.networks(options.xforward_from))
        etrn = EtrnRules(options.etrn_for) if options.etrn_for else None
        submission = Submission(options.submission) if is_submission else None
        judges = appoint(self.intake.appointing, options)
        self.judges = judges
        self.rcpt_judges = judges.rcpt if judges is not None else ()
        self.entry_judges = judges.entry + judges.rcpt if judges is not None else ()
        self.relay_from = relay_from
        self.proxy_from = proxy_from
        self.auth_in_clear = auth_in_clear
        self.xclient_from = xclient_from
        self.xforward_from = xforward_from
        self.etrn = etrn
        self.takes_claims = xclient_from.count != 0 or xforward_from.count != 0 or etrn is not None
        self.is_submission = is_submission
        self.hold_field = options.extensions.future_release_field.encode("ascii") or None
        self.heeds_tls_field = options.extensions.tls_required_field
        self.reads_header = is_submission or self.hold_field is not None
        self.submission = submission
        self.adds_date = options.submission.add_date
        self.adds_message_id = options.submission.add_message_id
        self.is_auth_offered = options.auth.is_offered
        self.auth_mechanisms = frozenset(options.auth.mechanisms)
        self.settings = settings
        self.domains = domains
        self.has_subdomains = any(domain.startswith(b".") for domain in domains)
        self.data_octets_per_s = options.data_octets_per_s
        self.tls = tls
        self.is_implicit_tls = options.tls is not None and options.tls.implicit
        self.handshake_timeout_ms = round(options.tls.handshake_timeout * 1000) if options.tls is not None else 0
        self.relay_certificates = options.tls.fingerprints if options.tls is not None else frozenset()
        self.relay_verified = options.tls is not None and options.tls.relay_verified
        gate = self.intake.gate
        self.gate = gate if gate is not None and gate.counts and options.admission.limits else None
        self.options = options
        self.name = str(options.address).encode()
        self.places = self.intake.bounds.places(self.name, options.max_sessions)
        self.generation += 1

    def replace_certificates(self, ServerContext tls not None):
        self.tls = tls

    cdef bint is_relay_certificate(self, TlsSession tls) noexcept:
        if tls.fingerprint is None:
            return False
        # Whom a former CA verified, before a reload, is nobody to the one of now.
        if (self.relay_verified and tls.is_verified and self.tls is not None
                and tls.context.client_ca_digest == self.tls.client_ca_digest):
            return True
        return tls.fingerprint in self.relay_certificates

    cdef bint is_relay_domain(self, const uint8_t *domain, size_t length) except -1:
        """The domain as in the forward-path, any case; ".example.com" in the options means all below it."""
        cdef char[DOMAIN_OCTETS + 1] lower
        cdef size_t i
        if not self.domains or length == 0 or length > DOMAIN_OCTETS:
            return False
        for i in range(length):
            lower[i] = domain[i] + 32 if c'A' <= domain[i] <= c'Z' else domain[i]
        if lower[length - 1] == c'.':
            length -= 1
        if PyBytes_FromStringAndSize(lower, length) in self.domains:
            return True
        if self.has_subdomains:
            for i in range(1, length):
                if lower[i] == c'.' and PyBytes_FromStringAndSize(lower + i, length - i) in self.domains:
                    return True
        return False
