from angarium.inbound.client cimport Client

cdef void proceed_rcpt(Client client) noexcept      # answers EVENT_RCPT
