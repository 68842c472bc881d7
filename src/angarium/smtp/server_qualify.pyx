# Submission: all domains in the envelope are fully qualified (RFC 6409 §4.2). A mailbox without a domain gets the one that the
# operator has set, or is refused; so is a domain of one label, which means something else on every network.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr
from angarium.smtp.csmtp cimport *
from angarium.smtp.server_dialogue cimport ServerDialogue

from angarium.smtp import replies

cdef bytes UNQUALIFIED_SENDER = replies.UNQUALIFIED_SENDER
cdef bytes UNQUALIFIED_RECIPIENT = replies.UNQUALIFIED_RECIPIENT
cdef bytes REVERSE_PATH_TOO_LONG = replies.REVERSE_PATH_TOO_LONG
cdef bytes FORWARD_PATH_TOO_LONG = replies.FORWARD_PATH_TOO_LONG


cdef bytes qualify(ServerDialogue self, const uint8_t *line, smtp_command *command):
    cdef smtp_path *path = &command.path
    cdef const uint8_t *domain = line + path.domain.offset
    cdef bint is_mail = command.verb == SMTP_VERB_MAIL
    cdef bytes completion = self.settings.completion
    if path.domain.length:
        if path.is_literal or has_dot(domain, path.domain.length, path.has_utf8):
            return None
        return UNQUALIFIED_SENDER if is_mail else UNQUALIFIED_RECIPIENT
    if not is_mail and is_postmaster(self.path, self.path_length):
        return None                 # RFC 5321 §4.1.1.3: ours, under our host name
    if not completion:
        return UNQUALIFIED_SENDER if is_mail else UNQUALIFIED_RECIPIENT
    if self.path_length + 1 + PyBytes_GET_SIZE(completion) + 2 > SMTP_PATH_MAX:
        return REVERSE_PATH_TOO_LONG if is_mail else FORWARD_PATH_TOO_LONG
    self.completed = self.path[:self.path_length] + b"@" + completion
    self.domain_offset = self.path_length + 1
    self.path = <const uint8_t *>PyBytes_AS_STRING(self.completed)
    self.path_length = <uint32_t>PyBytes_GET_SIZE(self.completed)
    return None


cdef bint has_dot(const uint8_t *domain, size_t length, bint has_utf8) noexcept:
    # U+3002 and its like stand for dots too (RFC 5895 §2.3), but no sane domain is one label of U-labels: let those pass.
    return has_utf8 or memchr(domain, c'.', length) != NULL


cdef bint is_postmaster(const uint8_t *path, size_t length) noexcept:
    cdef size_t i
    cdef const char *name = b"postmaster"
    if length != 10:
        return False
    for i in range(length):
        if (path[i] | 32) != <uint8_t>name[i]:
            return False
    return True
