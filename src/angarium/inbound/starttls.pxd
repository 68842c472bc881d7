from angarium.inbound.client cimport Client
from angarium.tls.session cimport TlsSession

# STARTTLS was asked: says 220 and gives the layer that begins when that is sent, or says why not and gives None.
cdef TlsSession proceed_starttls(Client client)
# A new layer, or None: TLS is not available now.
cdef TlsSession tls_layer(Client client)
# The handshake is over, well or not. Each is counted and, when it failed, logged; the second call says nothing.
cdef void tls_established(Client client) noexcept
cdef void tls_failed(Client client, const char *reason) noexcept
