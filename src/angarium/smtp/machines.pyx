# The C machines of csrc/smtp as Python objects, for tests and micro benchmarks. Not for the server: sessions
# call the machines from Cython (csmtp.pxd) and never make an object per line.
cimport cython
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc

from angarium.smtp cimport csmtp

PATH_RESULTS = ("ok", "syntax", "local_too_long", "domain_too_long", "too_long", "needs_utf8", "bad_utf8",
                "bad_literal")
LINE_RESULTS = ("ok", "partial", "too_long", "bare_lf", "bare_cr")
COMMAND_RESULTS = ("ok", "unknown", "control", "syntax", "bad_path", "bad_parameter", "twice", "too_many",
                   "has_8bit", "bad_base64")
VERBS = ("", "HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "VRFY", "EXPN", "HELP",
         "QUIT", "STARTTLS", "AUTH", "ETRN", "XCLIENT", "XFORWARD", "HTTP")
KEYWORDS = ("", "SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "NOTIFY", "ORCPT", "AUTH", "BY", "HOLDFOR", "HOLDUNTIL",
            "MT-PRIORITY", "SOLICIT")
REPLY_RESULTS = ("partial", "complete", "bad_code", "code_changed", "line_too_long", "too_many_lines", "bare_lf",
                 "bare_cr")
DATA_FAULTS = ("", "bare_lf", "bare_cr", "nul", "line_too_long")

LIMITS = {
    "local_part": csmtp.SMTP_LOCAL_PART_MAX,
    "label": csmtp.SMTP_LABEL_MAX,
    "domain": csmtp.SMTP_DOMAIN_MAX,
    "path": csmtp.SMTP_PATH_MAX,
    "parameters": csmtp.SMTP_PARAMETERS_MAX,
    "reply_line": csmtp.SMTP_REPLY_LINE_MAX,
    "reply_lines": csmtp.SMTP_REPLY_LINES_MAX,
    "reply_text": csmtp.SMTP_REPLY_TEXT_MAX,
}


cdef uint8_t *allocate(size_t size) except NULL:
    cdef uint8_t *block = <uint8_t *>malloc(size + 1)
    if block == NULL:
        raise MemoryError()
    return block


cdef bytes cut(bytes data, csmtp.smtp_span span):
    return data[span.offset:span.offset + span.length]


cdef unsigned path_flags(bint utf8, bint null, bint postmaster) noexcept:
    return ((csmtp.SMTP_PATH_UTF8 if utf8 else 0) | (csmtp.SMTP_PATH_NULL if null else 0)
            | (csmtp.SMTP_PATH_POSTMASTER if postmaster else 0))


cdef dict path_dict(bytes data, csmtp.smtp_path *path, int result):
    return {
        "result": PATH_RESULTS[result],
        "end": path.end,
        "mailbox": cut(data, path.mailbox),
        "local_part": cut(data, path.local_part),
        "domain": cut(data, path.domain),
        "is_null": bool(path.is_null),
        "is_quoted": bool(path.is_quoted),
        "is_literal": bool(path.is_literal),
        "has_source_route": bool(path.has_source_route),
        "has_utf8": bool(path.has_utf8),
    }


def parse_path(bytes data not None, *, bint utf8=False, bint null=False, bint postmaster=False):
    cdef csmtp.smtp_path path
    cdef int result = csmtp.smtp_path_parse(data, len(data), path_flags(utf8, null, postmaster), &path)
    return path_dict(data, &path, result)


def parse_mailbox(bytes data not None, *, bint utf8=False, bint postmaster=False):
    cdef csmtp.smtp_path path
    cdef int result = csmtp.smtp_mailbox_parse(data, len(data), path_flags(utf8, False, postmaster), &path)
    return path_dict(data, &path, result)


def domain_is_valid(bytes data not None, *, bint utf8=False):
    return bool(csmtp.smtp_domain_is_valid(data, len(data), path_flags(utf8, False, False)))


def utf8_is_valid(bytes data not None):
    return bool(csmtp.smtp_utf8_is_valid(data, len(data)))


def base64_is_valid(bytes data not None):
    return bool(csmtp.smtp_base64_is_valid(data, len(data)))


def find_line(bytes data not None, size_t limit):
    cdef size_t length = 0
    cdef int result = csmtp.smtp_line_find(data, len(data), limit, &length)
    return LINE_RESULTS[result], length


def parse_command(bytes line not None, *, bint utf8=False):
    cdef csmtp.smtp_command command
    cdef int result = csmtp.smtp_command_parse(line, len(line), path_flags(utf8, False, False), &command)
    cdef csmtp.smtp_parameter *parameter
    parameters = []
    for i in range(command.parameter_count):
        parameter = &command.parameters[i]
        parameters.append((cut(line, parameter.keyword),
                           cut(line, parameter.value) if parameter.has_value else None,
                           KEYWORDS[parameter.known]))
    return {
        "result": COMMAND_RESULTS[result],
        "verb": VERBS[command.verb],
        "error_offset": command.error_offset,
        "verb_text": cut(line, command.verb_text),
        "argument": cut(line, command.argument),
        "is_last": bool(command.is_last),
        "chunk_octets": command.chunk_octets,
        "path": path_dict(line, &command.path, command.path_result),
        "parameters": parameters,
    }


def parse_decimal(bytes data not None):
    cdef uint64_t value = 0
    return value if csmtp.smtp_decimal_parse(data, len(data), &value) else None


def xtext_is_valid(bytes data not None):
    return bool(csmtp.smtp_xtext_is_valid(data, len(data)))


def parse_notify(bytes data not None):
    cdef uint8_t notify = 0
    if not csmtp.smtp_notify_parse(data, len(data), &notify):
        return None
    return frozenset(name for bit, name in ((csmtp.SMTP_NOTIFY_NEVER, "NEVER"),
                                            (csmtp.SMTP_NOTIFY_SUCCESS, "SUCCESS"),
                                            (csmtp.SMTP_NOTIFY_FAILURE, "FAILURE"),
                                            (csmtp.SMTP_NOTIFY_DELAY, "DELAY")) if notify & bit)


@cython.final
cdef class ReplyMachine:
    cdef csmtp.smtp_reply_machine machine

    def __cinit__(self):
        csmtp.smtp_reply_reset(&self.machine)

    def reset(self):
        csmtp.smtp_reply_reset(&self.machine)

    def push(self, bytes data not None):
        cdef size_t consumed = 0
        cdef int result = csmtp.smtp_reply_push(&self.machine, data, len(data), &consumed)
        return REPLY_RESULTS[result], consumed

    @property
    def code(self):
        return self.machine.code

    @property
    def status(self):
        return self.machine.status_class, self.machine.status_subject, self.machine.status_detail

    @property
    def line_count(self):
        return self.machine.line_count

    @property
    def text(self):
        return <bytes>self.machine.text[:self.machine.text_length]

    @property
    def text_dropped(self):
        return self.machine.text_dropped


@cython.final
cdef class DataMachine:
    cdef csmtp.smtp_data_machine machine

    def __cinit__(self, *, bint is_chunking=False, unsigned line_limit=0):
        csmtp.smtp_data_begin(&self.machine, is_chunking, line_limit)

    def push(self, bytes data not None):
        cdef size_t consumed = 0, written = 0
        cdef uint8_t *out = allocate(<size_t>len(data) + 2)
        try:
            has_ended = bool(csmtp.smtp_data_push(&self.machine, data, len(data), out, &consumed, &written))
            return has_ended, consumed, <bytes>out[:written]
        finally:
            free(out)

    def end_chunks(self):
        cdef uint8_t out[2]
        cdef size_t written = 0
        csmtp.smtp_data_end_chunks(&self.machine, out, &written)
        return <bytes>out[:written]

    def results(self):
        return {
            "octets_in": self.machine.octets_in,
            "octets_out": self.machine.octets_out,
            "fault": DATA_FAULTS[self.machine.fault],
            "fault_offset": self.machine.fault_offset,
            "received_count": self.machine.received_count,
            "longest_line": self.machine.longest_line,
            "has_8bit": bool(self.machine.has_8bit),
            "has_dot_line": bool(self.machine.has_dot_line),
            "ends_with_crlf": bool(self.machine.ends_with_crlf),
        }


def stuff(pieces):
    cdef csmtp.smtp_stuff_state state
    cdef uint8_t *out
    cdef uint8_t tail[5]
    cdef bytes piece
    cdef size_t size, written
    parts = []
    csmtp.smtp_data_stuff_begin(&state)
    for piece in pieces:
        if piece is None:
            raise TypeError("pieces are bytes")
        size = len(piece)
        out = allocate(size + size // 2 + 2)
        try:
            written = csmtp.smtp_data_stuff(&state, piece, size, out)
            parts.append(<bytes>out[:written])
        finally:
            free(out)
    written = csmtp.smtp_data_stuff_end(&state, tail)
    parts.append(<bytes>tail[:written])
    return b"".join(parts)


def unstuff(bytes data not None):
    has_ended, consumed, out = DataMachine().push(data)
    if not has_ended or consumed != len(data):
        raise ValueError("not exactly one message")
    return out


def repeat_data(bytes data not None, unsigned line_limit, unsigned count):
    cdef csmtp.smtp_data_machine machine
    cdef size_t size = len(data), consumed = 0, written = 0
    cdef const uint8_t *octets = data
    cdef uint8_t *out = allocate(size + 2)
    cdef uint64_t total = 0
    with nogil:
        for _ in range(count):
            csmtp.smtp_data_begin(&machine, False, line_limit)
            csmtp.smtp_data_push(&machine, octets, size, out, &consumed, &written)
            total += written
    free(out)
    return total


def repeat_stuff(bytes data not None, unsigned count):
    cdef csmtp.smtp_stuff_state state
    cdef size_t size = len(data)
    cdef const uint8_t *octets = data
    cdef uint8_t *out = allocate(size + size // 2 + 7)
    cdef uint64_t total = 0
    cdef size_t written
    with nogil:
        for _ in range(count):
            csmtp.smtp_data_stuff_begin(&state)
            written = csmtp.smtp_data_stuff(&state, octets, size, out)
            total += written + csmtp.smtp_data_stuff_end(&state, out + written)
    free(out)
    return total


def repeat_command(bytes data not None, unsigned count):
    cdef csmtp.smtp_command command
    cdef size_t length = 0, size = len(data)
    cdef const uint8_t *octets = data
    cdef uint64_t accepted = 0
    with nogil:
        for _ in range(count):
            if csmtp.smtp_line_find(octets, size, size, &length) == csmtp.SMTP_LINE_OK:
                accepted += csmtp.smtp_command_parse(octets, length, 0, &command) == csmtp.SMTP_COMMAND_OK
    return accepted


def repeat_reply(bytes data not None, unsigned count):
    cdef csmtp.smtp_reply_machine machine
    cdef size_t size = len(data), consumed = 0
    cdef const uint8_t *octets = data
    cdef uint64_t complete = 0
    csmtp.smtp_reply_reset(&machine)
    with nogil:
        for _ in range(count):
            complete += (csmtp.smtp_reply_push(&machine, octets, size, &consumed)
                         == csmtp.SMTP_REPLY_COMPLETE)
    return complete
