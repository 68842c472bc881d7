from angarium.inbound.client cimport Client

cdef void proceed_mail(Client client) noexcept      # answers EVENT_MAIL
