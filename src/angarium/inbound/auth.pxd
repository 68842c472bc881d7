from angarium.inbound.client cimport Client

cdef void auth_offer(Client client) noexcept        # what EHLO says of AUTH: at the start, and when TLS begins
cdef void auth_refresh(Client client) noexcept      # after a reload
cdef void proceed_auth(Client client) noexcept      # answers EVENT_AUTH and EVENT_AUTH_RESPONSE, later
cdef void auth_drop(Client client) noexcept         # the exchange is over without an answer of ours
