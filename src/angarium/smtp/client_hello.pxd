from angarium.smtp.client_dialogue cimport ClientDialogue, client_event

cdef void forget_offer(ClientDialogue self) noexcept            # nothing is known of what the peer offers
# A reply to the greeting, EHLO, LHLO, HELO or STARTTLS: says what comes next, or event.kind tells the end of it.
cdef int hello_replied(ClientDialogue self, client_event *event) except -1
# The handshake is over: EHLO again (RFC 3207 §4.2). Raises LocalProtocolError when none was due.
cdef int hello_under_tls(ClientDialogue self) except -1
