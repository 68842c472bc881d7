# Mirrors csrc/smtp/*.h and nothing else.
from libc.stdint cimport int8_t, int32_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "smtp/span.h" nogil:
    ctypedef struct smtp_span:
        uint32_t offset
        uint32_t length


cdef extern from "smtp/path.h" nogil:
    enum:
        SMTP_LOCAL_PART_MAX
        SMTP_LABEL_MAX
        SMTP_DOMAIN_MAX
        SMTP_PATH_MAX

    ctypedef enum smtp_path_result:
        SMTP_PATH_OK
        SMTP_PATH_SYNTAX
        SMTP_PATH_LOCAL_TOO_LONG
        SMTP_PATH_DOMAIN_TOO_LONG
        SMTP_PATH_TOO_LONG
        SMTP_PATH_NEEDS_UTF8
        SMTP_PATH_BAD_UTF8
        SMTP_PATH_BAD_LITERAL

    enum:
        SMTP_PATH_UTF8
        SMTP_PATH_NULL
        SMTP_PATH_POSTMASTER
        SMTP_PATH_UNQUALIFIED

    ctypedef struct smtp_path:
        smtp_span mailbox
        smtp_span local_part
        smtp_span domain
        uint32_t end
        bint is_null
        bint is_quoted
        bint is_literal
        bint has_source_route
        bint has_utf8

    smtp_path_result smtp_path_parse(const uint8_t *data, size_t length, unsigned flags, smtp_path *out)
    smtp_path_result smtp_mailbox_parse(const uint8_t *data, size_t length, unsigned flags, smtp_path *out)
    bint smtp_domain_is_valid(const uint8_t *data, size_t length, unsigned flags)
    bint smtp_utf8_is_valid(const uint8_t *data, size_t length)


cdef extern from "smtp/command.h" nogil:
    ctypedef enum smtp_line_result:
        SMTP_LINE_OK
        SMTP_LINE_PARTIAL
        SMTP_LINE_TOO_LONG
        SMTP_LINE_BARE_LF
        SMTP_LINE_BARE_CR

    smtp_line_result smtp_line_find(const uint8_t *data, size_t size, size_t limit, size_t *length)

    ctypedef enum smtp_verb:
        SMTP_VERB_UNKNOWN
        SMTP_VERB_HELO
        SMTP_VERB_EHLO
        SMTP_VERB_LHLO
        SMTP_VERB_MAIL
        SMTP_VERB_RCPT
        SMTP_VERB_DATA
        SMTP_VERB_BDAT
        SMTP_VERB_RSET
        SMTP_VERB_NOOP
        SMTP_VERB_VRFY
        SMTP_VERB_EXPN
        SMTP_VERB_HELP
        SMTP_VERB_QUIT
        SMTP_VERB_STARTTLS
        SMTP_VERB_AUTH
        SMTP_VERB_ETRN
        SMTP_VERB_XCLIENT
        SMTP_VERB_XFORWARD
        SMTP_VERB_HTTP

    ctypedef enum smtp_command_result:
        SMTP_COMMAND_OK
        SMTP_COMMAND_UNKNOWN
        SMTP_COMMAND_CONTROL
        SMTP_COMMAND_SYNTAX
        SMTP_COMMAND_BAD_PATH
        SMTP_COMMAND_BAD_PARAMETER
        SMTP_COMMAND_TWICE
        SMTP_COMMAND_TOO_MANY
        SMTP_COMMAND_HAS_8BIT
        SMTP_COMMAND_BAD_BASE64

    ctypedef enum smtp_keyword:
        SMTP_KEYWORD_UNKNOWN
        SMTP_KEYWORD_SIZE
        SMTP_KEYWORD_BODY
        SMTP_KEYWORD_SMTPUTF8
        SMTP_KEYWORD_RET
        SMTP_KEYWORD_ENVID
        SMTP_KEYWORD_NOTIFY
        SMTP_KEYWORD_ORCPT
        SMTP_KEYWORD_AUTH
        SMTP_KEYWORD_BY
        SMTP_KEYWORD_HOLDFOR
        SMTP_KEYWORD_HOLDUNTIL
        SMTP_KEYWORD_MT_PRIORITY
        SMTP_KEYWORD_SOLICIT

    enum:
        SMTP_PARAMETERS_MAX
        SMTP_NOTIFY_NEVER
        SMTP_NOTIFY_SUCCESS
        SMTP_NOTIFY_FAILURE
        SMTP_NOTIFY_DELAY

    ctypedef struct smtp_parameter:
        smtp_span keyword
        smtp_span value
        uint8_t known
        bint has_value

    ctypedef struct smtp_command:
        uint8_t verb
        uint8_t path_result
        uint8_t parameter_count
        bint is_last
        uint32_t error_offset
        uint64_t chunk_octets
        smtp_span verb_text
        smtp_span argument
        smtp_path path
        smtp_parameter *parameters

    smtp_command_result smtp_command_parse(const uint8_t *data, size_t length, unsigned flags, smtp_command *out)
    bint smtp_base64_is_valid(const uint8_t *data, size_t length)
    bint smtp_decimal_parse(const uint8_t *data, size_t length, uint64_t *value)
    bint smtp_xtext_is_valid(const uint8_t *data, size_t length)
    bint smtp_notify_parse(const uint8_t *data, size_t length, uint8_t *notify)


cdef extern from "smtp/terms.h" nogil:
    ctypedef struct smtp_by:
        int32_t seconds
        uint8_t mode
        bint is_traced

    bint smtp_by_parse(const uint8_t *data, size_t length, smtp_by *out)
    bint smtp_interval_parse(const uint8_t *data, size_t length, uint32_t *seconds)
    bint smtp_date_time_parse(const uint8_t *data, size_t length, uint64_t *utc_s)
    bint smtp_priority_parse(const uint8_t *data, size_t length, int8_t *priority)
    bint smtp_solicit_is_valid(const uint8_t *data, size_t length)
    bint smtp_solicit_meets(const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length)


cdef extern from "smtp/reply.h" nogil:
    enum:
        SMTP_REPLY_LINE_MAX
        SMTP_REPLY_LINES_MAX
        SMTP_REPLY_TEXT_MAX

    ctypedef enum smtp_reply_result:
        SMTP_REPLY_PARTIAL
        SMTP_REPLY_COMPLETE
        SMTP_REPLY_BAD_CODE
        SMTP_REPLY_CODE_CHANGED
        SMTP_REPLY_LINE_TOO_LONG
        SMTP_REPLY_TOO_MANY_LINES
        SMTP_REPLY_BARE_LF
        SMTP_REPLY_BARE_CR

    ctypedef struct smtp_reply_machine:
        uint16_t code
        uint8_t status_class
        uint16_t status_subject
        uint16_t status_detail
        uint16_t line_count
        uint16_t text_length
        uint32_t text_dropped
        uint8_t *text

    void smtp_reply_reset(smtp_reply_machine *self)
    smtp_reply_result smtp_reply_push(smtp_reply_machine *self, const uint8_t *data, size_t size, size_t *consumed)


cdef extern from "smtp/data.h" nogil:
    ctypedef enum smtp_data_fault:
        SMTP_DATA_FAULT_NONE
        SMTP_DATA_FAULT_BARE_LF
        SMTP_DATA_FAULT_BARE_CR
        SMTP_DATA_FAULT_NUL
        SMTP_DATA_FAULT_LINE_TOO_LONG

    ctypedef struct smtp_data_machine:
        uint64_t octets_in
        uint64_t octets_out
        uint64_t fault_offset
        uint32_t received_count
        uint32_t longest_line
        uint8_t fault
        bint has_8bit
        bint has_dot_line
        bint is_tls_optional
        bint ends_with_crlf
        bint is_chunking

    void smtp_data_begin(smtp_data_machine *self, bint is_chunking, uint32_t line_limit)
    void smtp_data_begin_binary(smtp_data_machine *self)
    bint smtp_data_push(smtp_data_machine *self, const uint8_t *data, size_t size, uint8_t *out,
                        size_t *consumed, size_t *written)
    void smtp_data_end_chunks(smtp_data_machine *self, uint8_t *out, size_t *written)

    ctypedef struct smtp_stuff_state:
        bint at_line_start
        bint after_cr

    void smtp_data_stuff_begin(smtp_stuff_state *self)
    size_t smtp_data_stuff(smtp_stuff_state *self, const uint8_t *data, size_t size, uint8_t *out)
    size_t smtp_data_stuff_end(smtp_stuff_state *self, uint8_t *out)
