from angarium.outbound.carrier cimport Carrier, hand

# The next transaction of the ready queue, within what the peer announces (RFC 9422); False: nothing is to be had.
cdef bint take(Carrier self) noexcept
# What waits is of a domain more than one session with the peer may name: only another connection can go on.
cdef bint is_out_of_domains(Carrier self) noexcept
# Sees to it that envelope and body of `next` are there: HAND_READY, HAND_FETCHING, or settled and empty.
cdef int prepare(Carrier self) except -1
# What the peer does not offer and the message cannot do without (see trouble.py) ends here, before MAIL.
cdef int check(Carrier self, hand *h) except -1
# MAIL, RCPT ... of `next`, and its body where nothing has to be waited for.
cdef int transmit(Carrier self) except -1
# The body of a transaction whose recipients are known.
cdef int send_body(Carrier self, int slot) except -1
