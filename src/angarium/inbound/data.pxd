from angarium.inbound.client cimport Client

cdef void proceed_data(Client client) noexcept          # answers EVENT_DATA: DATA, or the first BDAT of a message
cdef bint proceed_body(Client client) noexcept          # at EVENT_BODY; False: stop reading until chunk_is_durable()
cdef void proceed_message(Client client) noexcept       # at EVENT_MESSAGE: the answer follows by commit.pyx
# The end of data, when the judges of the message have decided.
cdef void finish_message(Client client) noexcept
