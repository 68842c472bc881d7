from angarium.outbound.carrier cimport Carrier, hand

# Sees to it that envelope and body of `next` are there: HAND_READY, HAND_FETCHING, or settled and empty.
cdef int prepare(Carrier self) except -1
# What the peer does not offer and the message cannot do without (see trouble.py) ends here, before MAIL.
cdef int check(Carrier self, hand *h) except -1
# MAIL, RCPT ... of `next`, and its body where nothing has to be waited for.
cdef int transmit(Carrier self) except -1
# The body of a transaction whose recipients are known.
cdef int send_body(Carrier self, int slot) except -1
