# AUTH as a client says it (RFC 4954 §4): the command, responses to challenges, how the exchange ends. What the octets mean is
# sasl/'s, which mechanism is taken and what a refusal means outbound/'s. The table of states is client_session.pyx's.
import binascii

from angarium.smtp.client_dialogue cimport *

from angarium.model.errors import LocalProtocolError
from angarium.smtp import limits

cdef enum:
    AUTH_OVERHEAD = 8                   # "AUTH ", a space, CRLF

cdef Py_ssize_t COMMAND_LIMIT = limits.COMMAND_LINE_OCTETS
cdef Py_ssize_t RESPONSE_LIMIT = limits.AUTH_LINE_OCTETS - 2


cdef int auth_begin(ClientDialogue self, bytes mechanism, bytes initial) except -1:
    cdef bytes encoded
    if self.state != CLIENT_READY or self.ring_count or self.is_authenticated:
        raise LocalProtocolError("AUTH belongs behind the hello, once, and outside a transaction (RFC 4954 §4)")
    self.put(b"AUTH ", 5)
    self.put_field(<const uint8_t *><const char *>mechanism, len(mechanism))
    self.initial = None
    if initial is not None:
        encoded = binascii.b2a_base64(initial, newline=False) or b"="       # "=": a response of no octets
        if AUTH_OVERHEAD + len(mechanism) + len(encoded) <= COMMAND_LIMIT:
            self.put(b" ", 1)
            self.put(<const char *>encoded, len(encoded))
        else:
            self.initial = initial      # too long for a command line: said to an empty challenge (RFC 4954 §4)
    self.put(b"\r\n", 2)
    self.state = CLIENT_AUTH
    return self.expect(STAGE_AUTH, 0, 1)


cdef int auth_respond(ClientDialogue self, bytes response) except -1:
    cdef bytes encoded
    if self.state != CLIENT_AUTH or self.ring_count:
        raise LocalProtocolError("no challenge waits for a response")
    if response is None:
        encoded = b"*"
    else:
        encoded = binascii.b2a_base64(response, newline=False)
        if len(encoded) > RESPONSE_LIMIT:
            raise LocalProtocolError("the response is longer than a line of AUTH may be (RFC 4954 §4)")
    self.put(<const char *>encoded, len(encoded))
    self.put(b"\r\n", 2)
    return self.expect(STAGE_AUTH, 0, 1)


cdef bytes auth_challenge(ClientDialogue self):
    cdef bytes text = self.reply.text[:self.reply.text_length]
    try:
        return binascii.a2b_base64(text.strip(b" "), strict_mode=True)
    except binascii.Error:
        return None


cdef int auth_replied(ClientDialogue self, client_event *event) except -1:
    cdef int reply_class = self.reply.code // 100
    cdef bytes initial = self.initial
    if reply_class == 3:
        if initial is not None:
            self.initial = None
            if self.reply.text_length == 0:
                return auth_respond(self, initial)
            # A server that asks something else before it has heard anything has not understood the command.
            self.broken("a challenge before the initial response")
        event.kind = EVENT_AUTH_CHALLENGE
        return 0
    self.initial = None
    self.state = CLIENT_READY               # whether to go on without, or by another mechanism, is the caller's choice
    self.is_authenticated = reply_class == 2
    event.kind = EVENT_AUTHENTICATED if self.is_authenticated else EVENT_AUTH_REFUSED
    return 0
