/* The data machine says the same for the whole input, for every cut, and as a slow reference that looks at
 * neighbours instead of keeping states. Stuffing is the same for every cut, and un-stuffing what was stuffed
 * gives the message back, with CRLF behind it where it had none. */
#include "smtp/data.h"

#include "fuzz.h"

static bool is_line_start(const uint8_t *in, size_t at)
{
    return at == 0 || (at >= 2 && in[at - 2] == '\r' && in[at - 1] == '\n');
}

/* The message in in[0..size) as written to out; returns whether it ended. */
static bool reference_unstuff(const uint8_t *in, size_t size, bool is_chunking, uint8_t *out, size_t *consumed,
                              size_t *written)
{
    size_t i, o = 0;

    for (i = 0; i < size; i++) {
        bool is_dot = !is_chunking && is_line_start(in, i) && in[i] == '.';
        size_t left = size - i;
        if (is_dot && left >= 3 && in[i + 1] == '\r' && in[i + 2] == '\n') {
            *consumed = i + 3;
            *written = o;
            return true;
        }
        if (is_dot && (left == 1 || (left == 2 && in[i + 1] == '\r')))
            break;              /* held back */
        if (!is_dot)
            out[o++] = in[i];
    }
    *consumed = size;
    *written = o;
    return false;
}

/* What the machine must say of the un-stuffed message. A CR as last octet is not yet judged. */
static void reference_judge(const uint8_t *out, size_t size, uint32_t limit, bool is_end, smtp_data_machine *m)
{
    size_t line_start = 0;
    bool in_header = true;

    for (size_t i = 0; i < size; i++) {
        smtp_data_fault fault = SMTP_DATA_FAULT_NONE;
        if (is_line_start(out, i)) {
            if (in_header && i == line_start + 2 && i > 0)
                in_header = false;
            line_start = i;
            m->has_dot_line |= out[i] == '.';
            if (in_header && size - i >= 9) {
                char field[10] = {0};
                for (int j = 0; j < 9; j++)
                    field[j] = (char)(out[i + j] >= 'A' && out[i + j] <= 'Z' ? out[i + j] + 32 : out[i + j]);
                m->received_count += strcmp(field, "received:") == 0;
            }
        }
        m->has_8bit |= out[i] > 127;
        if (i - line_start + 1 > m->longest_line)
            m->longest_line = (uint32_t)(i - line_start + 1);
        if (limit != 0 && i - line_start >= limit)
            fault = SMTP_DATA_FAULT_LINE_TOO_LONG;
        else if (out[i] == 0)
            fault = SMTP_DATA_FAULT_NUL;
        else if (out[i] == '\n' && (i == 0 || out[i - 1] != '\r'))
            fault = SMTP_DATA_FAULT_BARE_LF;
        else if (out[i] == '\r' && (i + 1 < size ? out[i + 1] != '\n' : is_end))
            fault = SMTP_DATA_FAULT_BARE_CR;
        if (m->fault == SMTP_DATA_FAULT_NONE && fault != SMTP_DATA_FAULT_NONE) {
            m->fault = (uint8_t)fault;
            m->fault_offset = i;
        }
    }
    m->ends_with_crlf = size >= 2 && out[size - 2] == '\r' && out[size - 1] == '\n';
    m->octets_out = size;
}

static void check_same(const smtp_data_machine *a, const smtp_data_machine *b)
{
    INVARIANT(a->octets_in == b->octets_in && a->octets_out == b->octets_out);
    INVARIANT(a->fault == b->fault && a->fault_offset == b->fault_offset);
    INVARIANT(a->received_count == b->received_count && a->longest_line == b->longest_line);
    INVARIANT(a->has_8bit == b->has_8bit && a->has_dot_line == b->has_dot_line);
    INVARIANT(a->ends_with_crlf == b->ends_with_crlf);
}

/* seed 0: in one piece */
static bool push_all(smtp_data_machine *m, const uint8_t *in, size_t size, uint32_t seed, uint8_t *all,
                     size_t *consumed, size_t *written)
{
    bool has_ended = false;

    *consumed = *written = 0;
    while (*consumed < size && !has_ended) {
        size_t used, made, length = seed == 0 ? size - *consumed : next_cut(&seed, size - *consumed);
        uint8_t *piece = exact_copy(in + *consumed, length), *out = malloc(length + 2);
        has_ended = smtp_data_push(m, piece, length, out, &used, &made);
        INVARIANT(used <= length && made <= length + 2 && (has_ended || used == length));
        memcpy(all + *written, out, made);
        free(piece);
        free(out);
        *consumed += used;
        *written += made;
    }
    return has_ended;
}

static void check_data(const uint8_t *in, size_t size, bool is_chunking, uint32_t limit, uint32_t seed)
{
    smtp_data_machine whole, cut, expected;
    uint8_t *a = malloc(size + 2), *b = malloc(size + 2), *c = malloc(size + 2);
    size_t a_in, a_out, b_in, b_out, c_in, c_out, made;

    smtp_data_begin(&whole, is_chunking, limit);
    smtp_data_begin(&cut, is_chunking, limit);
    bool has_ended = push_all(&whole, in, size, 0, a, &a_in, &a_out);
    INVARIANT(push_all(&cut, in, size, seed, b, &b_in, &b_out) == has_ended);
    INVARIANT(reference_unstuff(in, size, is_chunking, c, &c_in, &c_out) == has_ended);
    if (is_chunking) {
        smtp_data_end_chunks(&whole, a + a_out, &made);
        a_out += made;
        smtp_data_end_chunks(&cut, b + b_out, &made);
        b_out += made;
    }
    INVARIANT(a_in == b_in && a_in == c_in && a_out == b_out && a_out == c_out);
    INVARIANT(memcmp(a, b, a_out) == 0 && memcmp(a, c, a_out) == 0);
    check_same(&whole, &cut);

    memset(&expected, 0, sizeof expected);
    reference_judge(c, c_out, limit, is_chunking, &expected);
    expected.octets_in = c_in;
    check_same(&whole, &expected);
    free(a);
    free(b);
    free(c);
}

/* BODY=BINARYMIME: whatever comes, in whatever cuts, is the message, and nothing is wrong with it. */
static void check_binary(const uint8_t *in, size_t size, uint32_t seed)
{
    smtp_data_machine whole, cut;
    uint8_t *a = malloc(size + 2), *b = malloc(size + 2);
    size_t a_in, a_out, b_in, b_out, made;

    smtp_data_begin_binary(&whole);
    smtp_data_begin_binary(&cut);
    INVARIANT(!push_all(&whole, in, size, 0, a, &a_in, &a_out) && !push_all(&cut, in, size, seed, b, &b_in, &b_out));
    smtp_data_end_chunks(&whole, a + a_out, &made);
    smtp_data_end_chunks(&cut, b + b_out, &made);
    INVARIANT(a_in == size && a_out == size && b_out == size);
    INVARIANT(size == 0 || (memcmp(a, in, size) == 0 && memcmp(b, in, size) == 0));
    INVARIANT(whole.fault == SMTP_DATA_FAULT_NONE);
    check_same(&whole, &cut);
    free(a);
    free(b);
}

static void check_stuff(const uint8_t *in, size_t size, uint32_t seed)
{
    size_t capacity = size + size / 2 + 2, at = 0, cut_size = 0, consumed, written;
    uint8_t *whole = malloc(capacity), *stuffed = malloc(2 * size + 16), *back = malloc(2 * size + 16);
    smtp_stuff_state a, b;
    smtp_data_machine m;

    smtp_data_stuff_begin(&a);
    smtp_data_stuff_begin(&b);
    size_t whole_size = smtp_data_stuff(&a, in, size, whole);
    INVARIANT(whole_size <= capacity);
    while (at < size) {
        size_t length = next_cut(&seed, size - at);
        uint8_t *piece = exact_copy(in + at, length), *out = malloc(length + length / 2 + 2);
        size_t made = smtp_data_stuff(&b, piece, length, out);
        INVARIANT(made <= length + length / 2 + 2);
        memcpy(stuffed + cut_size, out, made);
        free(piece);
        free(out);
        at += length;
        cut_size += made;
    }
    INVARIANT(cut_size == whole_size && memcmp(stuffed, whole, whole_size) == 0);
    INVARIANT(a.at_line_start == b.at_line_start && a.after_cr == b.after_cr);
    cut_size += smtp_data_stuff_end(&b, stuffed + cut_size);

    smtp_data_begin(&m, false, 0);
    INVARIANT(smtp_data_push(&m, stuffed, cut_size, back, &consumed, &written));
    INVARIANT(consumed == cut_size);
    bool has_crlf = size == 0 || (size >= 2 && in[size - 2] == '\r' && in[size - 1] == '\n');
    INVARIANT(written == size + (has_crlf ? 0 : 2));
    INVARIANT(size == 0 || memcmp(back, in, size) == 0);
    free(whole);
    free(stuffed);
    free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    uint8_t *in = exact_copy(data + 3, size - 3);
    uint32_t seed = data[2] + 1u;
    check_data(in, size - 3, data[0] & 1, data[1], seed);
    check_binary(in, size - 3, seed);
    check_stuff(in, size - 3, seed);
    free(in);
    return 0;
}
