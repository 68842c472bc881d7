# STARTTLS (RFC 3207), and what the end of a handshake means for the client's rights: also of one that began by itself
# (RFC 8314 §3.3). The octets of the handshake are the connection's and csrc/tls's.
from libc.stdint cimport uint8_t
from libc.string cimport strlen
from angarium.admission.tallies cimport TALLY_HANDSHAKES
from angarium.events.journal cimport Journal
from angarium.inbound.client cimport Client
from angarium.inbound.limits cimport limits_refuse
from angarium.metrics.counters cimport Counter
from angarium.tls.session cimport TlsSession

from angarium.metrics.counters import counter
from angarium.smtp import replies

cdef Counter handshakes_total = counter("angarium_in_tls_handshakes_total", "TLS handshakes completed with clients.")
cdef Counter resumed_total = counter(
    "angarium_in_tls_resumed_total", "Of those handshakes: resumed by a session ticket.")
cdef Counter failures_total = counter(
    "angarium_in_tls_failures_total", "TLS connections of clients that failed, in the handshake or later.")

cdef bytes TLS_NOT_NOW = replies.TLS_NOT_NOW


cdef TlsSession proceed_starttls(Client client):
    cdef TlsSession layer
    cdef bytes reply
    if client.counted is not None and (reply := limits_refuse(client, TALLY_HANDSHAKES)) is not None:
        client.tell_rejected(reply)
        client.session.refuse(reply)
        return None
    layer = tls_layer(client)
    if layer is None:
        client.tell_rejected(TLS_NOT_NOW)
        client.session.refuse(TLS_NOT_NOW)
    else:
        client.session.accept()
    return layer


cdef TlsSession tls_layer(Client client):
    if client.context.tls is None:
        return None
    try:
        client.context.intake.make_plain_buffer()
        return TlsSession.__new__(TlsSession, client.context.tls)
    except MemoryError:
        return None


cdef void tls_established(Client client) noexcept:
    handshakes_total.cell[0] += 1
    client.tls.look_at_peer()
    if client.tls.is_resumed:
        resumed_total.cell[0] += 1
    client.find_rights()
    if client.session.witness is not None:
        client.note("tls", f"{client.tls.version_text().decode()} {client.tls.cipher_text().decode()}")


cdef void tls_failed(Client client, const char *reason) noexcept:
    cdef Journal journal = client.context.intake.journal
    if client.tls.is_failure_told:
        return
    client.tls.is_failure_told = True
    failures_total.cell[0] += 1
    journal.begin(b"tls-failed")
    journal.text(b"client", <const uint8_t *>client.address, client.address_length)
    journal.text(b"reason", <const uint8_t *>reason, strlen(reason))
    journal.end()
