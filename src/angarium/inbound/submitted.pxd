from angarium.inbound.client cimport Client
from angarium.model.octets cimport octets

cdef enum submitted_header:
    HEADER_OF_NO_CONCERN = 0        # not a submission, nor a listener with NO-SOLICITING or a field for the time of sending
    HEADER_DUE                      # trace_octets of the first run are ours, then it comes
    HEADER_SEEN
    HEADER_REFUSED                  # transaction.header_refusal; what follows is read and forgotten

# Looks at the header section in the first run of a submitted message and does what is missing: *body may be another then.
# is_last: nothing follows this run.
cdef void submitted_fix(Client client, octets **body, bint is_last) noexcept
