# What the values of MAIL and RCPT parameters mean: SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), RET, ENVID,
# NOTIFY and ORCPT (RFC 3461). That they are well-formed keywords and values, each once, was seen in csrc/smtp/command.c.
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr
from angarium.smtp.csmtp cimport *

from angarium.smtp import replies

cdef enum:
    ENVID_LIMIT = 100                   # RFC 3461 §4.4
    ORCPT_LIMIT = 500                   # RFC 3461 §4.2

cdef bytes BAD_PARAMETER_VALUE = replies.BAD_PARAMETER_VALUE
cdef bytes UNKNOWN_PARAMETER = replies.UNKNOWN_PARAMETER
cdef bytes NO_BINARYMIME = replies.NO_BINARYMIME


cdef bytes mail_parameters_read(const uint8_t *line, const smtp_command *command, mail_parameters *out):
    cdef uint32_t i, length
    cdef uint8_t known
    cdef const uint8_t *value
    out.announced_octets = 0
    out.envid_length = 0
    out.flags = 0
    for i in range(command.parameter_count):
        known = command.parameters[i].known
        value = line + command.parameters[i].value.offset
        length = command.parameters[i].value.length
        if known == SMTP_KEYWORD_SIZE:
            if not smtp_decimal_parse(value, length, &out.announced_octets):
                return BAD_PARAMETER_VALUE
        elif known == SMTP_KEYWORD_BODY:
            if is_word(value, length, b"8BITMIME", 8):
                out.flags |= MAIL_BODY_8BITMIME
            elif is_word(value, length, b"BINARYMIME", 10):
                return NO_BINARYMIME
            elif not is_word(value, length, b"7BIT", 4):
                return BAD_PARAMETER_VALUE
        elif known == SMTP_KEYWORD_SMTPUTF8:
            out.flags |= MAIL_SMTPUTF8
        elif known == SMTP_KEYWORD_RET:
            if is_word(value, length, b"FULL", 4):
                out.flags |= MAIL_RET_FULL
            elif is_word(value, length, b"HDRS", 4):
                out.flags |= MAIL_RET_HDRS
            else:
                return BAD_PARAMETER_VALUE
        elif known == SMTP_KEYWORD_ENVID:
            if length == 0 or length > ENVID_LIMIT or not smtp_xtext_is_valid(value, length):
                return BAD_PARAMETER_VALUE
            out.envid = value
            out.envid_length = length
        else:
            return UNKNOWN_PARAMETER
    return None


cdef bytes rcpt_parameters_read(const uint8_t *line, const smtp_command *command, bint is_smtputf8, rcpt_parameters *out):
    cdef uint32_t i, length
    cdef uint8_t known
    cdef const uint8_t *value
    out.orcpt_length = 0
    out.notify = 0
    for i in range(command.parameter_count):
        known = command.parameters[i].known
        value = line + command.parameters[i].value.offset
        length = command.parameters[i].value.length
        if known == SMTP_KEYWORD_NOTIFY:
            if not smtp_notify_parse(value, length, &out.notify):
                return BAD_PARAMETER_VALUE
        elif known == SMTP_KEYWORD_ORCPT:
            if not is_orcpt(value, length, is_smtputf8):
                return BAD_PARAMETER_VALUE
            out.orcpt = value
            out.orcpt_length = length
        else:
            return UNKNOWN_PARAMETER
    return None


cdef inline bint is_word(const uint8_t *text, uint32_t length, const char *upper, uint32_t upper_length) noexcept:
    cdef uint32_t i
    if length != upper_length:
        return False
    for i in range(length):
        if (text[i] - 32 if c'a' <= text[i] <= c'z' else text[i]) != <uint8_t>upper[i]:
            return False
    return True


cdef bint is_orcpt(const uint8_t *text, uint32_t length, bint is_utf8) noexcept:
    """addr-type ";" xtext (RFC 3461 §4.2); in an SMTPUTF8 transaction UTF-8 may stand unencoded (RFC 6533 §3)."""
    cdef const uint8_t *semicolon
    cdef size_t type_length, i, rest
    if length > ORCPT_LIMIT:
        return False
    semicolon = <const uint8_t *>memchr(text, c';', length)
    if semicolon == NULL or semicolon == text:
        return False
    type_length = semicolon - text
    rest = length - type_length - 1
    for i in range(type_length):
        if not (c'a' <= text[i] <= c'z' or c'A' <= text[i] <= c'Z' or c'0' <= text[i] <= c'9' or text[i] == c'-'):
            return False
    if rest == 0:
        return False
    if is_utf8:                     # the command machine has seen that it is well-formed
        return True
    return smtp_xtext_is_valid(semicolon + 1, rest)
