from angarium.smtp.client_dialogue cimport ClientDialogue, client_event

# AUTH mechanism [initial], in READY only; initial None: none. The replies are EVENT_AUTH_CHALLENGE, EVENT_AUTHENTICATED and
# EVENT_AUTH_REFUSED. Raises LocalProtocolError out of turn.
cdef int auth_begin(ClientDialogue self, bytes mechanism, bytes initial) except -1
# The answer to EVENT_AUTH_CHALLENGE; None: "*", which gives up (RFC 4954 §4).
cdef int auth_respond(ClientDialogue self, bytes response) except -1
# What the challenge says, decoded; None: it is not base64. Until the next call of next_event.
cdef bytes auth_challenge(ClientDialogue self)
cdef int auth_replied(ClientDialogue self, client_event *event) except -1
