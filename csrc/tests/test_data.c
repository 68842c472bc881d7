/* Message data: RFC 5321 §4.1.1.4, §4.5.2, RFC 3030. Every row is read whole, cut in two everywhere, octet by
 * octet; out is allocated at the promised capacity, so that a sanitizer sees a store past it. */
#include "smtp/data.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

#define STRING(text) text, sizeof(text) - 1
#define X16 "xxxxxxxxxxxxxxxx"

enum {
    ENDED = 1, HAS_8BIT = 2, HAS_DOT_LINE = 4, ENDS_WITH_CRLF = 8, TLS_OPTIONAL = 16,
    NORMAL = ENDED | ENDS_WITH_CRLF,
};
#define NO_FAULT SMTP_DATA_FAULT_NONE
#define LF SMTP_DATA_FAULT_BARE_LF
#define CR SMTP_DATA_FAULT_BARE_CR
#define NUL SMTP_DATA_FAULT_NUL
#define LONG SMTP_DATA_FAULT_LINE_TOO_LONG

typedef struct data_row {
    const char *in;
    size_t in_size;
    const char *out;
    size_t out_size;
    uint32_t line_limit;
    unsigned flags;
    smtp_data_fault fault;
    uint64_t fault_offset;
    uint32_t received_count;
    uint32_t longest_line;
    const char *reason;
} data_row;

static const data_row data_rows[] = {
    {STRING(".\r\n"), STRING(""), 0, ENDED, NO_FAULT, 0, 0, 0, "empty message: the CRLF of DATA begins a line"},
    {STRING("\r\n.\r\n"), STRING("\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 2, "one empty line"},
    {STRING("a\r\n.\r\n"), STRING("a\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 3, "one line"},
    {STRING("a\r\n.\r\nQUIT\r\n"), STRING("a\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 3, "nothing behind the end is touched"},
    {STRING("a\r\n.\r\n\xff\n\r"), STRING("a\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 3, "nor judged"},
    {STRING("..\r\n.\r\n"), STRING(".\r\n"), 0, NORMAL | HAS_DOT_LINE, NO_FAULT, 0, 0, 3, "un-stuffed dot"},
    {STRING("...a\r\n.\r\n"), STRING("..a\r\n"), 0, NORMAL | HAS_DOT_LINE, NO_FAULT, 0, 0, 5, "one dot goes"},
    {STRING(".a\r\n.\r\n"), STRING("a\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 3, "unstuffed sender: §4.5.2 drops it"},
    {STRING("a.\r\n.b.\r\n.\r\n"), STRING("a.\r\nb.\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 4, "dots elsewhere stay"},
    {STRING("a\r\n. \r\n.\r\n"), STRING("a\r\n \r\n"), 0, NORMAL, NO_FAULT, 0, 0, 3, "dot and space is no end"},
    {STRING("a\r\n"), STRING("a\r\n"), 0, ENDS_WITH_CRLF, NO_FAULT, 0, 0, 3, "not ended"},
    {STRING("a\r\n.\r"), STRING("a\r\n"), 0, ENDS_WITH_CRLF, NO_FAULT, 0, 0, 3, "one octet missing, CR held back"},

    /* Smuggling: whatever a lenient server takes for the end is data and a fault. */
    {STRING("a\n.\n\r\n.\r\n"), STRING("a\n.\n\r\n"), 0, NORMAL, LF, 1, 0, 6, "LF . LF"},
    {STRING("a\n.\r\n.\r\n"), STRING("a\n.\r\n"), 0, NORMAL, LF, 1, 0, 5, "LF . CRLF"},
    {STRING("a\r\n.\n\r\n.\r\n"), STRING("a\r\n\n\r\n"), 0, NORMAL, LF, 3, 0, 3, "CRLF . LF: a dot and more octets"},
    {STRING("a\r.\r\r\n.\r\n"), STRING("a\r.\r\r\n"), 0, NORMAL, CR, 1, 0, 6, "CR . CR"},
    {STRING("a\r\n.\r\r\n.\r\n"), STRING("a\r\n\r\r\n"), 0, NORMAL, CR, 3, 0, 3, "CRLF . CR"},
    {STRING("a\r\n.\rb\r\n.\r\n"), STRING("a\r\n\rb\r\n"), 0, NORMAL, CR, 3, 0, 4, "CRLF . CR b: the held CR comes out"},
    {STRING("a\r\n.\r.\r\n.\r\n"), STRING("a\r\n\r.\r\n"), 0, NORMAL, CR, 3, 0, 4, "CRLF . CR . CRLF"},
    {STRING("a\r.\r\n.\r\n"), STRING("a\r.\r\n"), 0, NORMAL, CR, 1, 0, 5, "CR . CRLF"},
    {STRING("a\n\r.\r\n.\r\n"), STRING("a\n\r.\r\n"), 0, NORMAL, LF, 1, 0, 6, "LFCR"},
    {STRING("a\r\r\n.\r\n"), STRING("a\r\r\n"), 0, NORMAL, CR, 1, 0, 4, "CR CRLF still ends the line"},
    {STRING("a\r\n.\0\r\n.\r\n"), STRING("a\r\n\0\r\n"), 0, NORMAL, NUL, 3, 0, 3, "CRLF . NUL CRLF"},

    /* Faults: the first one stands, and reading goes on to the true end. */
    {STRING("a\0b\nc\r\n.\r\n"), STRING("a\0b\nc\r\n"), 0, NORMAL, NUL, 1, 0, 7, "NUL before LF"},
    {STRING("a\nb\0c\r\n.\r\n"), STRING("a\nb\0c\r\n"), 0, NORMAL, LF, 1, 0, 7, "LF before NUL"},
    {STRING("\n.\r\n"), STRING("\n.\r\n"), 0, ENDS_WITH_CRLF, LF, 0, 0, 4, "LF first: no line starts behind it"},
    {STRING("a\xc3\xa9\r\n.\r\n"), STRING("a\xc3\xa9\r\n"), 0, NORMAL | HAS_8BIT, NO_FAULT, 0, 0, 5, "8-bit"},
    {STRING(X16 X16 "\x80" X16 "\r\n.\r\n"), STRING(X16 X16 "\x80" X16 "\r\n"), 0, NORMAL | HAS_8BIT, NO_FAULT,
     0, 0, 51, "8-bit in the middle of a long run"},
    {STRING(X16 "xxxxxxxxx\r\n.\r\n\x80\x80\x80"), STRING(X16 "xxxxxxxxx\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 27,
     "8-bit in the same 16 octets as the end, but behind it"},
    {STRING("\x80" X16 "\r\n.\r\n"), STRING("\x80" X16 "\r\n"), 0, NORMAL | HAS_8BIT, NO_FAULT, 0, 0, 19,
     "8-bit in a block without line end"},
    {STRING(X16 "\x80\r\nabcdefghijklmn\r\n.\r\n"), STRING(X16 "\x80\r\nabcdefghijklmn\r\n"), 0,
     NORMAL | HAS_8BIT, NO_FAULT, 0, 0, 19, "8-bit in the same 16 octets as the line end, before it"},
    {STRING(X16 X16 "\0" X16 "\r\n.\r\n"), STRING(X16 X16 "\0" X16 "\r\n"), 0, NORMAL, NUL, 32, 0, 51,
     "NUL on a block edge"},
    {STRING(X16 X16 "\n" X16 "\r\n.\r\n"), STRING(X16 X16 "\n" X16 "\r\n"), 0, NORMAL, LF, 32, 0, 51,
     "bare LF on a block edge"},
    {STRING(X16 X16 "\r" X16 "\r\n.\r\n"), STRING(X16 X16 "\r" X16 "\r\n"), 0, NORMAL, CR, 32, 0, 51,
     "bare CR on a block edge"},

    /* Line length, CRLF counted, after un-stuffing. */
    {STRING("1234\r\n.\r\n"), STRING("1234\r\n"), 6, NORMAL, NO_FAULT, 0, 0, 6, "at the limit"},
    {STRING("12345\r\n.\r\n"), STRING("12345\r\n"), 6, NORMAL, LONG, 6, 0, 7, "one over: its LF"},
    {STRING("..234\r\n.\r\n"), STRING(".234\r\n"), 6, NORMAL | HAS_DOT_LINE, NO_FAULT, 0, 0, 6, "the stuffed dot is free"},
    {STRING("a\r\n1234567890\r\n.\r\n"), STRING("a\r\n1234567890\r\n"), 6, NORMAL, LONG, 9, 0, 12, "second line"},
    {STRING("1234567\0" "9\r\n.\r\n"), STRING("1234567\0" "9\r\n"), 6, NORMAL, LONG, 6, 0, 11,
     "a NUL behind the limit comes second"},
    {STRING("12345\n789\r\n.\r\n"), STRING("12345\n789\r\n"), 6, NORMAL, LF, 5, 0, 11, "an LF inside the limit comes first"},
    {STRING("12345\r789\r\n.\r\n"), STRING("12345\r789\r\n"), 6, NORMAL, CR, 5, 0, 11, "a CR inside the limit comes first"},
    {STRING("123456\r89\r\n.\r\n"), STRING("123456\r89\r\n"), 6, NORMAL, LONG, 6, 0, 11, "a CR at the limit comes second"},
    {STRING("1234567890"), STRING("1234567890"), 6, 0, LONG, 6, 0, 10, "told before the line ends"},

    /* Received fields, in the header section only. */
    {STRING("Received: a\r\n\tb\r\nreCEIVED:c\r\nX: y\r\n\r\nReceived: d\r\n.\r\n"),
     STRING("Received: a\r\n\tb\r\nreCEIVED:c\r\nX: y\r\n\r\nReceived: d\r\n"), 0, NORMAL, NO_FAULT, 0, 2, 13,
     "two, and one in the body"},
    /* RFC 8689 §3: the field TLS-Required, in the header section only. */
    {STRING("TLS-Required: No\r\n.\r\n"), STRING("TLS-Required: No\r\n"), 0, NORMAL | TLS_OPTIONAL, NO_FAULT, 0, 0, 18, "TLS-Required"},
    {STRING("a: b\r\ntls-rEQUIRED:nO \t\r\n\r\n.\r\n"), STRING("a: b\r\ntls-rEQUIRED:nO \t\r\n\r\n"), 0, NORMAL | TLS_OPTIONAL, NO_FAULT, 0, 0, 19, "any case, and space behind it"},
    {STRING("TLS-Required: Yes\r\n.\r\n"), STRING("TLS-Required: Yes\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 19, "another value"},
    {STRING("TLS-Required: Not\r\n.\r\n"), STRING("TLS-Required: Not\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 19, "more than the value"},
    {STRING("TLS-Required: N o\r\n.\r\n"), STRING("TLS-Required: N o\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 19, "less than the value"},
    {STRING("TLS-Required:\r\n.\r\n"), STRING("TLS-Required:\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 15, "no value"},
    {STRING("TLS-Required \t: No\r\n.\r\n"), STRING("TLS-Required \t: No\r\n"), 0, NORMAL | TLS_OPTIONAL, NO_FAULT, 0, 0, 20, "space before the colon, as RFC 5322 §4.5.8 has it"},
    {STRING("TLS-Required:\r\n No\r\nTo: x\r\n.\r\n"), STRING("TLS-Required:\r\n No\r\nTo: x\r\n"), 0, NORMAL | TLS_OPTIONAL, NO_FAULT, 0, 0, 15, "folded before the value"},
    {STRING("TLS-Required: \r\n\t\r\n  nO \r\n \r\n\r\nbody\r\n.\r\n"), STRING("TLS-Required: \r\n\t\r\n  nO \r\n \r\n\r\nbody\r\n"), 0, NORMAL | TLS_OPTIONAL, NO_FAULT, 0, 0, 16, "folded on both sides, in lines of white space too"},
    {STRING("TLS-Required: No\r\n\r\n\r\n.\r\n"), STRING("TLS-Required: No\r\n\r\n\r\n"), 0, NORMAL | TLS_OPTIONAL, NO_FAULT, 0, 0, 18, "the header ends behind it"},
    {STRING("To: x\r\nTLS-Required: No\r\nTLS-Required: Yes\r\n.\r\n"), STRING("To: x\r\nTLS-Required: No\r\nTLS-Required: Yes\r\n"), 0, NORMAL | TLS_OPTIONAL, NO_FAULT, 0, 0, 19, "another behind it"},
    {STRING("TLS-Required: No\r\n way\r\n.\r\n"), STRING("TLS-Required: No\r\n way\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 18, "the folded line says more"},
    {STRING("TLS-Required: N\r\n o\r\n.\r\n"), STRING("TLS-Required: N\r\n o\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 17, "folded inside the value"},
    {STRING("TLS-Required:\r\nNo\r\n.\r\n"), STRING("TLS-Required:\r\nNo\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 15, "the next line is no folded one"},
    {STRING("TLS-Required:\r\n\r\nNo\r\n.\r\n"), STRING("TLS-Required:\r\n\r\nNo\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 15, "the header ends before the value"},
    {STRING("TLS-Required:\r\nTo: x\r\n No\r\n.\r\n"), STRING("TLS-Required:\r\nTo: x\r\n No\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 15, "another field is folded"},
    {STRING("To: x\r\n\tTLS-Required: No\r\n.\r\n"), STRING("To: x\r\n\tTLS-Required: No\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 19, "a folded line of another field"},
    {STRING("X-TLS-Required: No\r\n.\r\n"), STRING("X-TLS-Required: No\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 20, "another field"},
    {STRING("TLS-Requiredd: No\r\nTo: x\r\n.\r\n"), STRING("TLS-Requiredd: No\r\nTo: x\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 19, "a longer name"},
    {STRING("\r\nTLS-Required: No\r\n.\r\n"), STRING("\r\nTLS-Required: No\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 18, "in the body"},
    {STRING("a: b\r\n TLS-Required: No\r\n.\r\n"), STRING("a: b\r\n TLS-Required: No\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 19, "in a folded line"},
    {STRING("T\r\nReceived: x\r\n.\r\n"), STRING("T\r\nReceived: x\r\n"), 0, NORMAL, NO_FAULT, 0, 1, 13, "a field behind a short T"},
    {STRING("Received\r\nReceived-SPF: x\r\nX-Received: y\r\n.\r\n"),
     STRING("Received\r\nReceived-SPF: x\r\nX-Received: y\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 17, "other fields"},
    {STRING("Received:\r\n.\r\n"), STRING("Received:\r\n"), 0, NORMAL, NO_FAULT, 0, 1, 11, "empty field"},
    {STRING("ReceivedReceived: x\r\n.\r\n"), STRING("ReceivedReceived: x\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 21,
     "no second chance in one line"},
    {STRING(".Received: x\r\n.\r\n"), STRING("Received: x\r\n"), 0, NORMAL, NO_FAULT, 0, 1, 13,
     "as it reads after un-stuffing"},
    {STRING("\r\nReceived: x\r\n.\r\n"), STRING("\r\nReceived: x\r\n"), 0, NORMAL, NO_FAULT, 0, 0, 13,
     "no header section"},
};

static const data_row chunk_rows[] = {
    {STRING(""), STRING(""), 0, 0, NO_FAULT, 0, 0, 0, "empty"},
    {STRING("a\r\n.\r\nb\r\n"), STRING("a\r\n.\r\nb\r\n"), 0, ENDS_WITH_CRLF | HAS_DOT_LINE, NO_FAULT, 0, 0, 3,
     "a dot ends nothing"},
    {STRING("..a\r\n"), STRING("..a\r\n"), 0, ENDS_WITH_CRLF | HAS_DOT_LINE, NO_FAULT, 0, 0, 5, "nothing is un-stuffed"},
    {STRING("a\r\nb"), STRING("a\r\nb"), 0, 0, NO_FAULT, 0, 0, 3, "last line without CRLF"},
    {STRING("a\r"), STRING("a\r"), 0, 0, CR, 1, 0, 2, "a CR at the end is bare"},
    {STRING("a\n"), STRING("a\n"), 0, 0, LF, 1, 0, 2, "bare LF"},
    {STRING("12345"), STRING("12345"), 4, 0, LONG, 4, 0, 5, "an unfinished line may be too long"},
    {STRING("Received: x"), STRING("Received: x"), 0, 0, NO_FAULT, 0, 1, 11, "Received without line end"},
    {STRING("\r\n"), STRING("\r\n"), 0, ENDS_WITH_CRLF, NO_FAULT, 0, 0, 2, "empty line"},
};

/* Pushes `first` octets, then pieces of `step`, and compares all that came out. */
static void check_cut(const data_row *row, bool is_chunking, size_t first, size_t step)
{
    smtp_data_machine m;
    uint8_t *all = malloc(row->in_size + 16);
    size_t at = 0, total = 0, piece = first;
    bool has_ended = false;

    smtp_data_begin(&m, is_chunking, row->line_limit);
    while (at < row->in_size && !has_ended) {
        size_t length = piece < row->in_size - at ? piece : row->in_size - at;
        size_t consumed, written;
        uint8_t *in = malloc(length + (length == 0)), *out = malloc(length + 2);
        memcpy(in, row->in + at, length);
        has_ended = smtp_data_push(&m, in, length, out, &consumed, &written);
        CHECK(written <= length + 2 && consumed <= length, "%s: capacity", row->reason);
        CHECK(has_ended || consumed == length, "%s: all is consumed", row->reason);
        memcpy(all + total, out, written);
        free(in);
        free(out);
        at += consumed;
        total += written;
        piece = step;
    }
    if (is_chunking) {
        uint8_t out[2];
        size_t written;
        smtp_data_end_chunks(&m, out, &written);
        memcpy(all + total, out, written);
        total += written;
    }

    unsigned flags = (has_ended ? ENDED : 0) | (m.has_8bit ? HAS_8BIT : 0) | (m.has_dot_line ? HAS_DOT_LINE : 0)
        | (m.ends_with_crlf ? ENDS_WITH_CRLF : 0) | (m.is_tls_optional ? TLS_OPTIONAL : 0);
    CHECK(total == row->out_size && memcmp(all, row->out, total) == 0, "%s, cut %zu/%zu: octets", row->reason,
          first, step);
    CHECK(flags == row->flags, "%s, cut %zu/%zu: flags %u", row->reason, first, step, flags);
    CHECK(m.fault == row->fault && m.fault_offset == row->fault_offset, "%s, cut %zu/%zu: fault %d at %d",
          row->reason, first, step, m.fault, (int)m.fault_offset);
    CHECK(m.received_count == row->received_count && m.longest_line == row->longest_line,
          "%s, cut %zu/%zu: received %u, longest %u", row->reason, first, step, m.received_count, m.longest_line);
    CHECK(m.octets_in == at && m.octets_out == total, "%s, cut %zu/%zu: counts", row->reason, first, step);
    if (has_ended) {
        size_t consumed, written;
        CHECK(smtp_data_push(&m, (const uint8_t *)"x", 1, all, &consumed, &written) && consumed == 0 && written == 0,
              "%s: the end is the end", row->reason);
    }
    free(all);
}

static void check_rows(const data_row *rows, size_t count, bool is_chunking)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t cut = 0; cut <= rows[i].in_size; cut++)
            check_cut(&rows[i], is_chunking, cut, rows[i].in_size + 1);
        for (size_t step = 1; step <= 3; step++)
            check_cut(&rows[i], is_chunking, step, step);
    }
}

static void test_begin_forgets_all(void)
{
    smtp_data_machine m, fresh;
    uint8_t out[64];
    size_t consumed, written;

    memset(&m, 0, sizeof m);
    memset(&fresh, 0, sizeof fresh);
    smtp_data_begin(&m, false, 10);
    smtp_data_push(&m, (const uint8_t *)"\x80\n..", 4, out, &consumed, &written);
    smtp_data_begin(&m, false, 10);
    smtp_data_begin(&fresh, false, 10);
    CHECK(memcmp(&m, &fresh, sizeof m) == 0, "as new");
}

static const struct { const char *in; size_t in_size; const char *out; size_t out_size; const char *reason; }
stuff_rows[] = {
    {STRING(""), STRING(".\r\n"), "empty message"},
    {STRING("a\r\n"), STRING("a\r\n.\r\n"), "nothing to double"},
    {STRING("a"), STRING("a\r\n.\r\n"), "CRLF is added"},
    {STRING("a\r"), STRING("a\r\r\n.\r\n"), "also behind a CR"},
    {STRING("a\n"), STRING("a\n\r\n.\r\n"), "also behind a bare LF"},
    {STRING("."), STRING("..\r\n.\r\n"), "one dot"},
    {STRING(".\r\n.\r\n.\r\n"), STRING("..\r\n..\r\n..\r\n.\r\n"), "the densest"},
    {STRING("a.\r\n.b\r\n"), STRING("a.\r\n..b\r\n.\r\n"), "only at line starts"},
    {STRING("\r\n.b\r\n"), STRING("\r\n..b\r\n.\r\n"), "behind an empty line"},
    {STRING("a\n.b\r.c\r\n"), STRING("a\n.b\r.c\r\n.\r\n"), "a line starts behind CRLF only"},
    {STRING("aaaaaaaaaaaaaa\r\n.b\r\n"), STRING("aaaaaaaaaaaaaa\r\n..b\r\n.\r\n"), "CRLF ends a block of 16"},
    {STRING(X16 X16 "\r\n." X16 X16 "\n." X16 "\r\n"), STRING(X16 X16 "\r\n.." X16 X16 "\n." X16 "\r\n.\r\n"),
     "in long runs"},
};

static void test_stuffing_for_every_cut(void)
{
    for (size_t i = 0; i < COUNT(stuff_rows); i++) {
        size_t size = stuff_rows[i].in_size;
        for (size_t cut = 0; cut <= size + 1; cut++) {
            smtp_stuff_state state;
            uint8_t all[256];
            size_t at = 0, total = 0, piece = cut > size ? 1 : cut, step = cut > size ? 1 : size + 1;
            smtp_data_stuff_begin(&state);
            do {
                size_t length = piece < size - at ? piece : size - at;
                uint8_t *in = malloc(length + (length == 0)), *out = malloc(length + length / 2 + 2);
                memcpy(in, stuff_rows[i].in + at, length);
                size_t written = smtp_data_stuff(&state, in, length, out);
                CHECK(written <= length + length / 2 + 2, "%s: capacity", stuff_rows[i].reason);
                memcpy(all + total, out, written);
                free(in);
                free(out);
                at += length;
                total += written;
                piece = step;
            } while (at < size);
            total += smtp_data_stuff_end(&state, all + total);
            CHECK(total == stuff_rows[i].out_size && memcmp(all, stuff_rows[i].out, total) == 0, "%s, cut %zu",
                  stuff_rows[i].reason, cut);
        }
    }
}

/* RFC 3030 §3: with BODY=BINARYMIME any octets are message data; hops are counted all the same. */
static void test_binary_has_no_faults(void)
{
    static const char message[] = "Received: x\r\nSubject: y\r\n\r\n\0\n.\r\r\n.\r\n\xff" "a\r";
    enum { SIZE = sizeof message - 1 };

    for (size_t cut = 0; cut <= SIZE; cut++) {
        smtp_data_machine m;
        uint8_t out[SIZE + 4];
        size_t consumed, written, o = 0;
        smtp_data_begin_binary(&m);
        CHECK(!smtp_data_push(&m, (const uint8_t *)message, cut, out, &consumed, &written), "cut %zu", cut);
        o += written;
        CHECK(!smtp_data_push(&m, (const uint8_t *)message + cut, SIZE - cut, out + o, &consumed, &written), "cut %zu", cut);
        o += written;
        smtp_data_end_chunks(&m, out + o, &written);
        o += written;
        CHECK(o == SIZE && memcmp(out, message, SIZE) == 0, "cut %zu: every octet is there", cut);
        CHECK(m.fault == SMTP_DATA_FAULT_NONE && m.has_8bit && m.received_count == 1 && !m.ends_with_crlf, "cut %zu", cut);
    }
}

int main(void)
{
    test_binary_has_no_faults();
    check_rows(data_rows, COUNT(data_rows), false);
    check_rows(chunk_rows, COUNT(chunk_rows), true);
    test_begin_forgets_all();
    test_stuffing_for_every_cut();
    return check_report();
}
