from angarium.inbound.client cimport Client


# What the client is offered of XCLIENT, XFORWARD and ETRN: decided on its own address, not on one it claims.
cdef void claims_offer(Client client) noexcept
cdef void proceed_xclient(Client client) noexcept
cdef void proceed_xforward(Client client) noexcept
cdef void proceed_etrn(Client client) noexcept
