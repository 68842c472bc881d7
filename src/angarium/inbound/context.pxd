from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from angarium.admission.bounds cimport Bounds, Places
from angarium.events.journal cimport Journal
from angarium.inbound.gate cimport Gate
from angarium.inbound.networks cimport NetworkList
from angarium.sockets.poll cimport Poll
from angarium.inbound.refusals cimport Refusals
from angarium.queue.scheduler cimport Scheduler
from angarium.queue.wheel cimport Wheel
from angarium.smtp.refusal_ids cimport RefusalIds
from angarium.smtp.server_settings cimport ServerSettings
from angarium.spool.shard cimport Shard
from angarium.tls.context cimport ServerContext
from angarium.tls.session cimport TlsSession


cdef enum:
    # Four socket buffers of loopback's usual size in one read; one for the whole worker, so it costs nothing.
    READ_OCTETS = 256 << 10


cdef class Intake:
    """What all inbound connections of a worker share. Owns the read buffer."""
    cdef readonly Shard shard
    cdef readonly Scheduler scheduler
    cdef readonly Journal journal
    cdef readonly Wheel wheel
    cdef readonly object loop
    cdef readonly Poll poll                 # their sockets
    cdef readonly Bounds bounds             # shared with all workers
    cdef uint8_t *read_octets               # READ_OCTETS: what a read brings, of whichever connection
    cdef object read_owner
    cdef object plain_owner                 # of what a read held under TLS; None before the first such session
    cdef uint8_t *plain_octets
    cdef size_t plain_capacity
    cdef int deadline_kind                  # of wheel nodes; set by connection.pyx
    cdef readonly set clients               # live connections
    cdef readonly uint32_t active           # transactions between MAIL and end of data
    cdef readonly uint32_t committing
    cdef readonly uint64_t unsynced_octets  # of message data given to the shard and not durable yet
    cdef readonly dict waiting              # clients whose streamed message waits for the disk, in order
    cdef readonly Refusals refusals
    cdef readonly RefusalIds refusal_ids
    cdef public object tracing              # who looks on at dialogues (tracing.py), or None
    cdef readonly bint is_draining
    cdef public object authority            # who clients are (authority.py), or None
    cdef public frozenset own_domains       # what anybody may send to on every listener, as relay_to
    cdef public bint has_postmaster         # mail for <Postmaster> has a route of its own: anybody may send it
    cdef public tuple appointing            # who makes the judges of a listener (judgement.py)
    cdef public object etrn                 # EtrnDesk (etrn.py), or None
    cdef public Gate gate                   # limits of the machine and of clients' networks, or None
    cdef public bint is_memory_full         # load.pyx sets these: no new sessions,
    cdef public bint is_tight               # and deadlines that are
    cdef public uint32_t tight_command_ms
    cdef public uint32_t tight_data_ms
    cdef public uint32_t tight_message_ms
    cdef public uint32_t tight_octets_per_s
    cdef public bint is_queue_full          # queue/memory_watch.py does: no new mail
    cdef public object slowness             # a judge of MAIL that takes its time, or None: the queue is nearly full
    cdef public bint is_spool_low           # spool/watermark.py sets it: no new mail

    cdef void transaction_began(self) noexcept
    cdef void transaction_ended(self) noexcept
    cdef void make_plain_buffer(self)
    cdef void wake_waiting(self) noexcept
    cdef bint may_stream(self) noexcept     # False: the disk is behind
    cdef bint is_overloaded(self) noexcept  # far behind: no new mail


cdef class InboundContext:
    """One listener's options, compiled; changed in place by a reload so that open sessions see it."""
    cdef readonly Intake intake
    cdef readonly object options
    cdef readonly bytes name                # of the listener, for the journal and the envelope
    cdef readonly ServerSettings settings
    cdef readonly object judges             # judgement.Judges, or None
    cdef readonly frozenset domains         # relay_to
    cdef readonly bint has_subdomains
    cdef readonly uint32_t generation
    cdef readonly uint32_t session_count
    cdef readonly Places places             # of max_sessions, which all workers share
    cdef readonly uint32_t data_octets_per_s
    cdef readonly ServerContext tls         # None: no TLS, or none now
    cdef readonly bint is_implicit_tls
    cdef readonly uint32_t handshake_timeout_ms
    cdef readonly frozenset relay_certificates
    cdef readonly bint relay_verified
    cdef readonly Gate gate                 # None: no limits here
    cdef tuple rcpt_judges                  # of `judges`: for clients that were let in
    cdef tuple entry_judges                 # and for those that were not yet
    cdef NetworkList relay_from
    cdef NetworkList proxy_from
    cdef NetworkList xclient_from
    cdef NetworkList xforward_from
    cdef readonly object etrn               # EtrnRules (etrn.py), or None: not offered
    cdef readonly bint takes_claims         # one of the three is configured
    cdef readonly bint is_submission
    cdef readonly bytes hold_field          # name of the header field that says when mail is to be sent; None: none does
    cdef readonly bint heeds_tls_field      # TLS-Required: No, of messages
    cdef readonly bint reads_header         # of messages: for one of these two
    cdef readonly object submission         # Submission (submission.py)
    cdef readonly bint adds_date
    cdef readonly bint adds_message_id
    cdef NetworkList auth_in_clear          # auth.allow_plaintext_from
    cdef readonly bint is_auth_offered
    cdef readonly frozenset auth_mechanisms # the listener's own choice; empty: all

    cdef bint is_relay_certificate(self, TlsSession tls) noexcept
    cdef bint is_relay_domain(self, const uint8_t *domain, size_t length) except -1
