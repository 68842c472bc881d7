/* A line's end is found the same for every cut: a prefix is PARTIAL or has the verdict of the whole. Any line
 * gives a verdict, the same for upper and lower case, with all spans inside the line; an accepted one holds no
 * control octet. */
#include "smtp/command.h"

#include "fuzz.h"

static void check_line_find(const uint8_t *in, size_t size, size_t limit)
{
    size_t whole_length, length;
    smtp_line_result whole = smtp_line_find(in, size, limit, &whole_length);

    if (whole == SMTP_LINE_OK) {
        INVARIANT(whole_length + 2 <= limit && whole_length + 2 <= size);
        INVARIANT(in[whole_length] == '\r' && in[whole_length + 1] == '\n');
    } else if (whole == SMTP_LINE_PARTIAL) {
        INVARIANT(size < limit);
    }
    for (size_t cut = 0; cut < size; cut++) {
        smtp_line_result result = smtp_line_find(in, cut, limit, &length);
        INVARIANT(length <= cut);
        INVARIANT(result == SMTP_LINE_PARTIAL || (result == whole && length == whole_length));
    }
}

static void check_span(smtp_span span, size_t size)
{
    INVARIANT(span.offset <= size && span.length <= size - span.offset);
}

static void check_command(const uint8_t *in, size_t size, smtp_command_result result, const smtp_command *command)
{
    check_span(command->verb_text, size);
    check_span(command->argument, size);
    check_span(command->path.mailbox, size);
    check_span(command->path.local_part, size);
    check_span(command->path.domain, size);
    INVARIANT(command->error_offset <= size && command->parameter_count <= SMTP_PARAMETERS_MAX);
    for (size_t i = 0; i < command->parameter_count; i++) {
        check_span(command->parameters[i].keyword, size);
        check_span(command->parameters[i].value, size);
        INVARIANT(command->parameters[i].keyword.length > 0);
        INVARIANT(command->parameters[i].has_value == (command->parameters[i].value.length > 0));
    }
    INVARIANT((result == SMTP_COMMAND_UNKNOWN) == (command->verb == SMTP_VERB_UNKNOWN));
    INVARIANT((result == SMTP_COMMAND_BAD_PATH) == (command->path_result != SMTP_PATH_OK));
    if (result != SMTP_COMMAND_OK || command->verb == SMTP_VERB_HTTP)
        return;
    for (size_t i = 0; i < size; i++)
        INVARIANT(in[i] >= 32 && in[i] != 127);
    if (command->verb == SMTP_VERB_MAIL || command->verb == SMTP_VERB_RCPT)
        INVARIANT(command->path.is_null ? command->verb == SMTP_VERB_MAIL : command->path.mailbox.length > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    smtp_command command, folded;
    uint64_t value;
    uint8_t notify;

    if (size < 2)
        return 0;
    unsigned flags = data[0] & 1;
    size_t limit = data[1];
    size -= 2;
    uint8_t *in = exact_copy(data + 2, size);
    if (size <= 512)
        check_line_find(in, size, limit);

    smtp_command_result result = smtp_command_parse(in, size, flags, &command);
    check_command(in, size, result, &command);
    if (smtp_notify_parse(in, size, &notify))
        INVARIANT(notify == SMTP_NOTIFY_NEVER || (notify & 1) == 0);
    if (smtp_decimal_parse(in, size, &value))
        INVARIANT(size >= 1 && size <= 20);
    smtp_xtext_is_valid(in, size);

    if (smtp_base64_is_valid(in, size))
        INVARIANT(size % 4 == 0);
    if (command.verb == SMTP_VERB_AUTH) {       /* base64 is not the same in upper case */
        free(in);
        return 0;
    }
    for (size_t i = 0; i < size; i++)
        if (in[i] >= 'a' && in[i] <= 'z')
            in[i] -= 0x20;
    INVARIANT(smtp_command_parse(in, size, flags, &folded) == result);
    INVARIANT(folded.verb == command.verb && folded.error_offset == command.error_offset
              && folded.parameter_count == command.parameter_count);
    free(in);
    return 0;
}
