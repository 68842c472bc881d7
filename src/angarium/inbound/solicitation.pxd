from angarium.inbound.client cimport Client
from angarium.model.octets cimport octets

# Looks for Solicitation fields in the header section in the first run of a message; behind our trace. What they say counts as
# SOLICIT does: transaction.header is HEADER_REFUSED, or the keywords are an attribute where MAIL brought none.
cdef void solicitation_look(Client client, const octets *body) noexcept
