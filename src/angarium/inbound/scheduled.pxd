from angarium.inbound.client cimport Client
from angarium.model.octets cimport octets

# Looks for the field context.hold_field in the header section of the first run, and takes it out. is_last: nothing follows.
cdef void scheduled_take(Client client, octets *body, bint is_last) noexcept
