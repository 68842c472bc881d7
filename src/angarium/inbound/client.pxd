from libc.stdint cimport uint8_t, uint32_t, uint64_t
from angarium.admission.tallies cimport Tallies, Visit
from angarium.inbound.context cimport InboundContext
from angarium.inbound.transaction cimport inbound_transaction
from angarium.smtp.server_session cimport ServerSession
from angarium.tls.session cimport TlsSession


cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    ctypedef unsigned short sa_family_t
    struct sockaddr:
        sa_family_t sa_family
    struct sockaddr_storage:
        sa_family_t ss_family


cdef bint is_mapped(const uint8_t *address) noexcept


cdef class Client:
    """Whoever talks to us: session, address, rights and the transaction in hand. No I/O: see connection.pyx.

    Owns its transaction until commit.pyx takes it over.
    """
    cdef InboundContext context
    cdef ServerSession session
    cdef inbound_transaction *transaction
    cdef readonly TlsSession tls        # None in clear
    cdef uint32_t generation            # of context, when may_relay was found
    cdef bint may_relay
    cdef Visit counted                  # of its network, in the limits; None: not counted
    cdef Tallies counted_by             # among the machine's sessions; None: it is not
    cdef uint32_t tarpit_ms             # every reply is kept back for so long; 0: it is not for what the client is
    cdef uint64_t let_in_until_ms       # until then judges of entry are not asked; 0: they are
    cdef bint is_stranger               # where there are limits: neither exempt nor one that may relay by its network
    cdef bint was_stranger              # until it had shown that it may relay
    cdef bint is_over_errors            # its network's limit of errors was reached: the session ends
    cdef object attempt                 # an AUTH exchange under way (authority.py), or None
    cdef object inquiry                 # judges that are being asked (inquiry.pyx), or None
    cdef public object visit            # what policy keeps of this connection (policy_state.py), or None
    cdef readonly object introduced     # for whom a listed peer has said that it speaks (claims.py), or None: for itself
    cdef bint is_being_introduced       # judges are asked about that client, whom the session does not know yet
    cdef uint8_t own_address[16]        # of that peer
    cdef dict forwarded                 # where its next message came from (claims.py), or None
    cdef object rights                  # of session.identity (authority.py), or None
    cdef uint8_t address_length
    cdef uint8_t binary_address[16]     # IPv4 mapped; 127.0.0.1 for a unix socket
    cdef char address[56]               # "192.0.2.1", "IPv6:2001:db8::1", "" for a unix socket

    cdef size_t memory_octets(self) noexcept        # held for this connection, about
    cdef void set_peer(self, const sockaddr_storage *peer) noexcept     # of another family than IP: loopback
    cdef void name_address(self) noexcept           # binary_address has changed
    cdef void find_rights(self) noexcept            # from address and certificate
    cdef void find_rights_of_claim(self) noexcept   # somebody else speaks now, under the name that XCLIENT gave
    cdef void refresh(self) noexcept                # after a reload
    cdef void resume(self) noexcept                 # an answer that was waited for is there; overridden
    cdef void chunk_is_durable(self) noexcept       # room for more of a streamed message; overridden
    # Log and count a refusal; before it is said by session.refuse(), or after an EVENT_REFUSED.
    cdef void note(self, str event, str text) noexcept
    cdef void be_looked_at(self) noexcept
    cdef void tell_rejected(self, bytes reply) noexcept
    cdef void tell_rejected_path(self, const uint8_t *path, size_t length, bytes reply) noexcept
    # Of a Refusal, of judges or of somebody else's policy: its reason is its own.
    cdef void tell_refusal(self, const uint8_t *path, size_t length, object refusal) noexcept
    # `word`: the reason of a reply that is not in smtp/replies.py, or None.
    cdef void tell_rejected_for(self, const uint8_t *path, size_t length, bytes reply, bytes word) noexcept
    cdef bytes word_of(self, bytes reply)
