# What the values of MAIL and RCPT parameters mean: SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), RET, ENVID,
# NOTIFY and ORCPT (RFC 3461), and the terms of csrc/smtp/terms.h. That they are well-formed keywords and values, each once, was
# seen in csrc/smtp/command.c.
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t
from libc.string cimport memchr
from angarium.smtp.csmtp cimport *
from angarium.smtp.server_settings cimport ServerSettings

from angarium.smtp import replies

cdef enum:
    SIZE_LIMIT = 20                     # digits, RFC 1870 §3
    ENVID_LIMIT = 100                   # RFC 3461 §4.4
    AUTH_LIMIT = 500                    # RFC 4954 §3 (6): what AUTH= may add to MAIL
    ORCPT_LIMIT = 500                   # RFC 3461 §4.2

cdef bytes BAD_PARAMETER_VALUE = replies.BAD_PARAMETER_VALUE
cdef bytes UNKNOWN_PARAMETER = replies.UNKNOWN_PARAMETER
cdef bytes NO_BINARYMIME = replies.NO_BINARYMIME
cdef bytes BY_TIME_TOO_SHORT = replies.BY_TIME_TOO_SHORT
cdef bytes TWO_HOLDS = replies.TWO_HOLDS


cdef bytes mail_parameters_read(const uint8_t *line, const smtp_command *command, ServerSettings offered,
                                ServerSettings settings, bint is_auth_offered, bint may_hold, mail_parameters *out):
    cdef uint32_t i, length
    cdef uint8_t known
    cdef const uint8_t *value
    cdef bytes reply
    out.announced_octets = 0
    out.envid_length = 0
    out.flags = 0
    for i in range(command.parameter_count):
        known = command.parameters[i].known
        value = line + command.parameters[i].value.offset
        length = command.parameters[i].value.length
        if known == SMTP_KEYWORD_SIZE and offered.size:
            if not smtp_decimal_parse(value, length, &out.announced_octets):
                if not is_size(value, length):
                    return BAD_PARAMETER_VALUE
                out.announced_octets = UINT64_MAX       # well-formed and beyond 64 bits: too big, not bad syntax
        elif known == SMTP_KEYWORD_BODY and offered.eightbitmime:
            if is_word(value, length, b"8BITMIME", 8):
                out.flags |= MAIL_BODY_8BITMIME
            elif is_word(value, length, b"BINARYMIME", 10):
                if not offered.binarymime:
                    return NO_BINARYMIME
                out.flags |= MAIL_BODY_BINARYMIME
            elif not is_word(value, length, b"7BIT", 4):
                return BAD_PARAMETER_VALUE
        elif known == SMTP_KEYWORD_SMTPUTF8 and offered.smtputf8:
            out.flags |= MAIL_SMTPUTF8
        elif known == SMTP_KEYWORD_RET and offered.dsn:
            if is_word(value, length, b"FULL", 4):
                out.flags |= MAIL_RET_FULL
            elif is_word(value, length, b"HDRS", 4):
                out.flags |= MAIL_RET_HDRS
            else:
                return BAD_PARAMETER_VALUE
        elif known == SMTP_KEYWORD_ENVID and offered.dsn:
            if length == 0 or length > ENVID_LIMIT or not smtp_xtext_is_valid(value, length) \
                    or means_control(value, length):
                return BAD_PARAMETER_VALUE
            out.envid = value
            out.envid_length = length
        elif known == SMTP_KEYWORD_AUTH and is_auth_offered:
            # Nobody is trusted to name a submitter: taken as "<>", which RFC 4954 §5 allows for any client.
            if length == 0 or length > AUTH_LIMIT or not (is_word(value, length, b"<>", 2)
                    or smtp_xtext_is_valid(value, length) and not means_control(value, length)):
                return BAD_PARAMETER_VALUE
        elif is_word(line + command.parameters[i].keyword.offset, command.parameters[i].keyword.length, b"REQUIRETLS", 10):
            if command.parameters[i].has_value:         # RFC 8689 §2 (6): no value
                return BAD_PARAMETER_VALUE
            out.flags |= MAIL_REQUIRETLS
        else:
            reply = read_term(known, value, length, offered, settings, may_hold, out)
            if reply is not None:
                return reply
    if out.flags & MAIL_HOLD_FOR and out.flags & MAIL_HOLD_UNTIL:
        return TWO_HOLDS
    return None


cdef bytes read_term(uint8_t known, const uint8_t *value, uint32_t length, ServerSettings offered, ServerSettings settings,
                     bint may_hold, mail_parameters *out):
    """A parameter that says when or how the message is to be handled."""
    cdef bytes unwanted
    if known == SMTP_KEYWORD_BY and offered.deliver_by_minimum_s >= 0:
        # RFC 2852 §4: with by-mode R there must be time left, which is syntax; and §3, as much as was announced.
        if not smtp_by_parse(value, length, &out.by) or out.by.mode == c'R' and out.by.seconds <= 0:
            return BAD_PARAMETER_VALUE
        if out.by.mode == c'R' and out.by.seconds < offered.deliver_by_minimum_s:
            return BY_TIME_TOO_SHORT
        out.flags |= MAIL_DELIVER_BY
    elif known == SMTP_KEYWORD_HOLDFOR and may_hold:
        if not smtp_interval_parse(value, length, &out.hold_for_s):
            return BAD_PARAMETER_VALUE
        out.flags |= MAIL_HOLD_FOR
    elif known == SMTP_KEYWORD_HOLDUNTIL and may_hold:
        if not smtp_date_time_parse(value, length, &out.hold_until_utc_s):
            return BAD_PARAMETER_VALUE
        out.flags |= MAIL_HOLD_UNTIL
    elif known == SMTP_KEYWORD_MT_PRIORITY and offered.priority:
        if not smtp_priority_parse(value, length, &out.priority):
            return BAD_PARAMETER_VALUE
        out.flags |= MAIL_PRIORITY
    elif known == SMTP_KEYWORD_SOLICIT and offered.no_soliciting is not None:
        if not smtp_solicit_is_valid(value, length):
            return BAD_PARAMETER_VALUE
        unwanted = settings.no_soliciting           # those of now
        if unwanted is not None and smtp_solicit_meets(value, length, unwanted, len(unwanted)):
            return settings.solicitation_reply
        out.solicit = value
        out.solicit_length = length
        out.flags |= MAIL_SOLICIT
    else:
        return UNKNOWN_PARAMETER
    return None


cdef bytes rcpt_parameters_read(const uint8_t *line, const smtp_command *command, bint is_smtputf8, bint is_dsn_offered,
                                rcpt_parameters *out):
    cdef uint32_t i, length
    cdef uint8_t known
    cdef const uint8_t *value
    out.orcpt_length = 0
    out.notify = 0
    for i in range(command.parameter_count):
        known = command.parameters[i].known
        value = line + command.parameters[i].value.offset
        length = command.parameters[i].value.length
        if known == SMTP_KEYWORD_NOTIFY and is_dsn_offered:
            if not smtp_notify_parse(value, length, &out.notify):
                return BAD_PARAMETER_VALUE
        elif known == SMTP_KEYWORD_ORCPT and is_dsn_offered:
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


cdef bint is_size(const uint8_t *text, uint32_t length) noexcept:
    cdef uint32_t i
    for i in range(length):
        if not c'0' <= text[i] <= c'9':
            return False
    return 0 < length <= SIZE_LIMIT


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
    if means_control(semicolon + 1, rest):
        return False
    if is_utf8:                     # the command machine has seen that it is well-formed
        return True
    return smtp_xtext_is_valid(semicolon + 1, rest)


cdef bint means_control(const uint8_t *text, size_t length) noexcept:
    """Whether a control octet stands encoded in it, as "+0A" or, in that, as "\\x{A}": RFC 3461 §4.2 and §4.4 have printable
    US-ASCII encoded, RFC 6533 §3 nothing below 0x80. Decoded in a report it would end its line. At most ORCPT_LIMIT octets.
    """
    cdef uint8_t plain[ORCPT_LIMIT]
    cdef size_t i = 0, at, count = 0
    cdef uint32_t code
    while i < length:
        plain[count] = text[i]
        if text[i] == c'+' and length - i >= 3 and hex_value(text[i + 1]) >= 0 and hex_value(text[i + 2]) >= 0:
            plain[count] = <uint8_t>(hex_value(text[i + 1]) << 4 | hex_value(text[i + 2]))
            i += 2
        if plain[count] < 32 or plain[count] == 127:
            return True
        count += 1
        i += 1
    for i in range(count):
        if count - i < 4 or plain[i] != c'\\' or plain[i + 1] != c'x' or plain[i + 2] != c'{':
            continue
        code = 0
        at = i + 3
        while at < count and hex_value(plain[at]) >= 0 and code < 0x110000:
            code = code << 4 | <uint32_t>hex_value(plain[at])
            at += 1
        if at < count and plain[at] == c'}' and (code < 32 or code == 127):
            return True
    return False


cdef inline int hex_value(uint8_t octet) noexcept:
    """-1 when it is none; upper case only, as everywhere in xtext."""
    return octet - c'0' if c'0' <= octet <= c'9' else octet - c'A' + 10 if c'A' <= octet <= c'F' else -1
