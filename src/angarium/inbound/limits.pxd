from angarium.admission.tallies cimport tally_kind
from angarium.inbound.client cimport Client

cdef bint limits_await(Client client) noexcept  # False: the machine has no place for one more, and the session says so
cdef bytes limits_enter(Client client)                          # the reply to a connection that may not come in, or None
cdef bytes limits_move(Client client, bint is_own)              # the same for whom a listed peer has introduced
cdef void limits_leave(Client client) noexcept
cdef void limits_own(Client client) noexcept                    # it may relay, as turns out: only limits with own_clients count it
cdef void limits_again(Client client) noexcept                  # it may relay no more, and is counted as strangers are
cdef bytes limits_over(Client client, tally_kind kind)          # the reply when none may be taken now, or None
cdef bytes limits_one_more(Client client, tally_kind kind)      # a message or recipient that nothing else refuses, of network and identity
cdef bytes limits_refuse(Client client, tally_kind kind)        # takes one; the reply when it may not be, or None
