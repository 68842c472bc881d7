/* Any octets, in any cuts, give the same replies and at last the same error; text kept is bounded and holds no
 * control octet but the LF between lines; the enhanced status code is that of the last line. */
#include "smtp/reply.h"

#include "fuzz.h"

#define CHECKED_MAX 64

typedef struct outcome {
    smtp_reply_result result;
    size_t end;
    unsigned code, class, subject, detail, lines, text_length, dropped;
    uint32_t text_sum;
} outcome;

static uint32_t check_text(const smtp_reply_machine *m)
{
    uint32_t sum = 2166136261u;
    unsigned lines = 1;

    INVARIANT(m->text_length <= SMTP_REPLY_TEXT_MAX && m->line_count <= SMTP_REPLY_LINES_MAX);
    INVARIANT(m->text_dropped == 0 || m->text_length == SMTP_REPLY_TEXT_MAX);
    for (unsigned i = 0; i < m->text_length; i++) {
        lines += m->text[i] == '\n';
        INVARIANT(m->text[i] == '\n' || (m->text[i] >= 32 && m->text[i] != 127));
        sum = (sum ^ m->text[i]) * 16777619u;
    }
    INVARIANT(lines == m->line_count || m->text_dropped > 0);
    return sum;
}

static void check_status(const smtp_reply_machine *m)
{
    char line[SMTP_REPLY_TEXT_MAX + 1];
    unsigned start = m->text_length, class = 0, subject = 0, detail = 0;
    int end = -1;

    if (m->text_dropped > 0)
        return;                 /* the last line is not in text */
    while (start > 0 && m->text[start - 1] != '\n')
        start--;
    memcpy(line, m->text + start, m->text_length - start);
    line[m->text_length - start] = 0;
    /* Only the first word, and only of digits and dots: sscanf would skip spaces and take signs. */
    line[strcspn(line, " ")] = 0;
    if (strspn(line, "0123456789.") != strlen(line)
        || sscanf(line, "%1u.%3u.%3u%n", &class, &subject, &detail, &end) != 3 || line[end] != 0
        || class != m->code / 100u || class == 3)
        class = subject = detail = 0;
    INVARIANT(m->status_class == class && m->status_subject == subject && m->status_detail == detail);
}

/* All replies of the input, and what ended it. */
static size_t read_all(const uint8_t *in, size_t size, uint32_t seed, outcome *outcomes)
{
    smtp_reply_machine m;
    size_t at = 0, count = 0;

    smtp_reply_reset(&m);
    while (at < size && count < CHECKED_MAX) {
        size_t consumed, length = seed == 0 ? size - at : next_cut(&seed, size - at);
        uint8_t *piece = exact_copy(in + at, length);
        smtp_reply_result result = smtp_reply_push(&m, piece, length, &consumed);
        free(piece);
        INVARIANT(consumed <= length && (result != SMTP_REPLY_PARTIAL || consumed == length));
        at += consumed;
        if (result == SMTP_REPLY_PARTIAL)
            continue;
        outcome *o = &outcomes[count++];
        memset(o, 0, sizeof *o);
        o->result = result;
        o->end = at;
        if (result != SMTP_REPLY_COMPLETE)
            break;
        INVARIANT(m.code >= 200 && m.code <= 559);
        INVARIANT(m.status_class == 0 || m.status_class == m.code / 100);
        o->code = m.code;
        o->class = m.status_class;
        o->subject = m.status_subject;
        o->detail = m.status_detail;
        o->lines = m.line_count;
        o->text_length = m.text_length;
        o->dropped = m.text_dropped;
        o->text_sum = check_text(&m);
        check_status(&m);
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    outcome whole[CHECKED_MAX], cut[CHECKED_MAX];

    if (size < 1)
        return 0;
    size_t count = read_all(data + 1, size - 1, 0, whole);
    INVARIANT(read_all(data + 1, size - 1, data[0] + 1u, cut) == count);
    INVARIANT(memcmp(whole, cut, count * sizeof whole[0]) == 0);
    return 0;
}
