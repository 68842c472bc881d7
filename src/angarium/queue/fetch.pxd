from angarium.queue.ledger cimport Ledger
from angarium.queue.message cimport message

# Whether the body is wanted in memory and is not there.
cdef bint wants_body(message *m) noexcept

# An attempt ended since its message could not be read back.
cdef void count_unreadable() noexcept

# Reads what is not in memory and calls done(error) on the loop, in a later turn: 0 or an errno (EBADMSG: damaged).
cdef int fetch_message(Ledger ledger, message *m, object done) except -1

# The same without the body.
cdef int fetch_envelope(Ledger ledger, message *m, object done) except -1
