from angarium.outbound.connection cimport Connection

# The connection may go on to transactions but for AUTH: says it, or ends the connection with the reason.
cdef int login_begin(Connection self) except -1
cdef int login_challenged(Connection self) except -1
cdef int login_accepted(Connection self) except -1
cdef int login_refused(Connection self) except -1
