/* The octets of crc, headers, records, indexes, envelopes, states and ids: golden values and refusals. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "spool/bytes.h"
#include "spool/crc32c.h"
#include "spool/envelope.h"
#include "spool/format.h"
#include "spool/spool.h"
#include "spool/state.h"

static void crc_matches_rfc_3720_vectors(void)
{
    uint8_t data[48];
    memset(data, 0, 32);
    CHECK(crc32c(0, data, 32) == 0x8a9136aau, "32 zeros");
    memset(data, 255, 32);
    CHECK(crc32c(0, data, 32) == 0x62a8ab43u, "32 ones");
    for (int i = 0; i < 32; i++)
        data[i] = (uint8_t)i;
    CHECK(crc32c(0, data, 32) == 0x46dd794eu, "0 to 31");
    for (int i = 0; i < 32; i++)
        data[i] = (uint8_t)(31 - i);
    CHECK(crc32c(0, data, 32) == 0x113fdb5cu, "31 to 0");
    CHECK(crc32c(0, "123456789", 9) == 0xe3069283u, "check value");
}

static void crc_implementations_agree_and_continue(void)
{
    enum { SIZE = 20000 };
    uint8_t *data = malloc(SIZE);
    uint32_t seed = 1;
    for (int i = 0; i < SIZE; i++)
        data[i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
    const size_t lengths[] = {0, 1, 7, 8, 9, 511, 3071, 3072, 3073, 6144, 9999, SIZE - 8};
    for (size_t i = 0; i < COUNT(lengths); i++)
        for (size_t start = 0; start < 8; start++) {
            uint32_t whole = crc32c(7, data + start, lengths[i]);
            CHECK(whole == crc32c_tables(7, data + start, lengths[i]), "length %zu start %zu", lengths[i], start);
            size_t cut = lengths[i] / 3;
            CHECK(whole == crc32c(crc32c(7, data + start, cut), data + start + cut, lengths[i] - cut), "cut at %zu", cut);
        }
    free(data);
}

static const spool_segment_header header = {
    .version = 1, .use = SPOOL_SEGMENT_LIVE, .shard = 3, .salt = 0x11223344, .serial = 7, .incarnation = 9,
    .segment_octets = 1 << 20, .created_utc_s = 1700000000, .generation = 5,
};

static void header_survives_either_copy_torn(void)
{
    uint8_t block[SPOOL_HEADER_OCTETS], old[SPOOL_HEADER_OCTETS];
    spool_segment_header out, before = header;
    before.generation = 4;
    before.use = SPOOL_SEGMENT_FREE;
    spool_header_encode(block, &header);
    spool_header_encode(old, &before);
    CHECK(spool_header_decode(block, &out) == 0 && out.serial == 7 && out.generation == 5 && out.shard == 3
          && out.salt == header.salt && out.segment_octets == 1 << 20, "round trip");

    memcpy(block, old, SPOOL_SECTOR_OCTETS);                   /* only the second half of the write arrived */
    CHECK(spool_header_decode(block, &out) == 0 && out.generation == 5, "newer second copy counts");
    spool_header_encode(block, &header);
    memcpy(block + SPOOL_HEADER_COPY_OFFSET, old + SPOOL_HEADER_COPY_OFFSET, SPOOL_SECTOR_OCTETS);
    CHECK(spool_header_decode(block, &out) == 0 && out.generation == 5, "newer first copy counts");
    memset(block, 0xee, SPOOL_SECTOR_OCTETS);
    CHECK(spool_header_decode(block, &out) == 0 && out.generation == 4, "damaged first copy: the other");
    memset(block + SPOOL_HEADER_COPY_OFFSET, 0, SPOOL_SECTOR_OCTETS);
    CHECK(spool_header_decode(block, &out) == -EBADMSG, "both damaged");
}

static void header_of_another_version_is_named(void)
{
    uint8_t block[SPOOL_HEADER_OCTETS];
    spool_segment_header out, later = header;
    later.version = 2;
    spool_header_encode(block, &later);
    CHECK(spool_header_decode(block, &out) == -EPROTO && out.version == 2, "version 2");
    block[12] ^= 1, block[SPOOL_HEADER_COPY_OFFSET + 12] ^= 1;      /* a flipped bit is damage, not another version */
    CHECK(spool_header_decode(block, &out) == -EBADMSG, "flipped version");
}

static void record_layout_is_the_documented_one(void)
{
    static const uint8_t golden[40] = {
        'A', 'n', 'g', 'R', 0x4e, 0x14, 0x99, 0x24, 0x44, 0x33, 0x22, 0x11, 5, 0, 0, 0,
        1, 8, 0, 0, 0x10, 0, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a, 0, 0, 0, 3, 'h', 'e', 'l', 'l', 'o', 0, 0, 0,
    };
    uint8_t out[40];
    memset(out, 0xff, sizeof out);
    spool_record record = {.salt = 0x11223344, .length = 5, .kind = SPOOL_BODY, .batch_offset = 4096, .aux = 16,
                           .id = 0x030000000a0b0c0dull};
    spool_record_encode(out, &record, (const uint8_t *)"hello");
    CHECK(memcmp(out, golden, sizeof golden) == 0, "crc %02x %02x %02x %02x", out[4], out[5], out[6], out[7]);
    spool_record back;
    CHECK(spool_record_decode(out, &back) && back.kind == SPOOL_BODY && back.batch_offset == 4096 && back.aux == 16
          && back.id == record.id && back.length == 5, "decode");
    CHECK(back.crc == crc32c(spool_record_crc_header(out), out + 32, 5), "crc in two steps");
}

static void index_refuses_what_cannot_be(void)
{
    spool_index_entry entries[2] = {{4096, 100, 1, SPOOL_BODY}, {4096 + 136, 50, 1, SPOOL_ENVELOPE}};
    uint8_t payload[16 + 40];
    uint32_t count;
    spool_index_encode(payload, entries, 2);
    CHECK(spool_index_check(payload, sizeof payload, 1 << 20, &count) && count == 2, "good");
    CHECK(spool_index_at(payload, 1).offset == 4232, "second");
    CHECK(!spool_index_check(payload, sizeof payload - 1, 1 << 20, &count), "short");
    CHECK(!spool_index_check(payload, sizeof payload, 4240, &count), "record beyond the segment");
    static const spool_index_entry bad[] = {
        {4104, 1, 1, SPOOL_BODY},       /* overlaps the first */
        {4233, 1, 1, SPOOL_BODY},       /* not 8-aligned */
        {4232, 1, 1, SPOOL_FOOTER},     /* no record of a message */
        {4232, 0xffffffff, 1, SPOOL_BODY},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        entries[1] = bad[i];
        spool_index_encode(payload, entries, 2);
        CHECK(!spool_index_check(payload, sizeof payload, 1 << 20, &count), "row %zu", i);
    }
}

static spool_span span(const char *text)
{
    return (spool_span){(const uint8_t *)text, (uint32_t)strlen(text)};
}

static void envelope_round_trip(void)
{
    octets *data = octets_new(1);
    CHECK(spool_envelope_begin(&data, span("a@x.example"), span("QQ314159"), span("helo.example"), span("192.0.2.1"),
                               span("127.0.0.1:25")) == 0, "begin");
    CHECK(spool_envelope_add_recipient(&data, span("b@y.example"), 2, span("rfc822;b@y.example"), 3) == 0, "first");
    CHECK(spool_envelope_add_recipient(&data, span("postmaster"), 10, span(""), 0) == 0, "second");
    CHECK(spool_envelope_add_recipient(&data, span("bad\r\n@y"), 6, span(""), 0) == -EINVAL, "CR LF");
    CHECK(spool_envelope_add_recipient(&data, (spool_span){(const uint8_t *)"a\0b", 3}, 0, span(""), 0) == -EINVAL, "NUL");
    CHECK(spool_envelope_add_recipient(&data, span("b@y"), 4, span(""), 0) == -EINVAL, "domain outside");
    CHECK(spool_envelope_finish(&data, 42, 1700000000123, SPOOL_ENVELOPE_8BIT, 1000, NULL, 0) == 0, "finish");
    spool_envelope_set_single_chunk(data->data, (spool_chunk){7, 4096, 1000});

    spool_envelope view;
    spool_recipient recipient;
    CHECK(spool_envelope_open(data->data, data->length, &view) == 0, "open");
    CHECK(view.id == 42 && view.received_utc_ms == 1700000000123 && view.message_octets == 1000, "numbers");
    CHECK(view.flags == (SPOOL_ENVELOPE_8BIT | SPOOL_ENVELOPE_INLINE), "inline is set by finish");
    CHECK(view.recipient_count == 2 && view.chunk_count == 1 && spool_envelope_chunk(&view, 0).offset == 4096, "counts");
    CHECK(view.reverse_path.length == 11 && view.listener.length == 12 && memcmp(view.envid.data, "QQ314159", 8) == 0, "texts");
    const uint8_t *cursor = view.recipients;
    CHECK(spool_envelope_next_recipient(&view, &cursor, &recipient) && recipient.notify == 3 && recipient.domain_offset == 2
          && recipient.orcpt.length == 18, "first");
    CHECK(spool_envelope_next_recipient(&view, &cursor, &recipient) && recipient.forward_path.length == 10, "second");
    CHECK(!spool_envelope_next_recipient(&view, &cursor, &recipient), "end");
    for (size_t cut = 0; cut < data->length; cut++)
        CHECK(spool_envelope_open(data->data, cut, &view) == -EBADMSG, "cut at %zu", cut);
    data->data[0] = 2;
    CHECK(spool_envelope_open(data->data, data->length, &view) == -EBADMSG, "version");
    octets_unref(data);
}

static void envelope_of_streamed_message_keeps_its_chunks(void)
{
    const spool_chunk chunks[2] = {{1, 4096, 262144}, {2, 8192, 17}};
    octets *data = octets_new(1);
    spool_envelope view;
    CHECK(spool_envelope_begin(&data, span(""), span(""), span(""), span(""), span("")) == 0, "begin");
    CHECK(spool_envelope_add_recipient(&data, span("b@y"), 2, span(""), 0) == 0, "recipient");
    CHECK(spool_envelope_finish(&data, 1, 2, SPOOL_ENVELOPE_INLINE, 262161, chunks, 2) == 0, "finish");
    CHECK(spool_envelope_open(data->data, data->length, &view) == 0 && view.reverse_path.length == 0, "open");
    CHECK(!(view.flags & SPOOL_ENVELOPE_INLINE) && spool_envelope_chunk(&view, 1).segment_serial == 2, "chunks");
    octets_unref(data);
}

static void envelope_attributes_are_found_by_key(void)
{
    octets *data = octets_new(1);
    spool_envelope view;
    spool_attribute attribute;
    spool_span text;
    char lengthy[4097];
    memset(lengthy, 't', 4096);
    lengthy[4096] = 0;
    CHECK(spool_envelope_begin(&data, span("a@x"), span(""), span(""), span(""), span("")) == 0, "begin");
    CHECK(spool_envelope_add_recipient(&data, span("b@y"), 2, span(""), 0) == 0, "recipient");
    CHECK(spool_envelope_has_recipient(data, span("b@y"), 16, 1) && !spool_envelope_has_recipient(data, span("b@y"), 16, 0), "found");
    CHECK(!spool_envelope_has_recipient(data, span("a@x"), 16, 9) && !spool_envelope_has_recipient(data, span("b@"), 16, 9), "others");
    CHECK(spool_envelope_add_attribute(&data, SPOOL_ATTRIBUTE_PRIORITY, span("-3")) == 0, "first");
    CHECK(spool_envelope_add_attribute(&data, 65535, span("")) == 0, "a key of a later version");
    CHECK(spool_envelope_add_attribute(&data, SPOOL_ATTRIBUTE_PRIORITY, span("9")) == 0, "twice");
    CHECK(spool_envelope_add_attribute(&data, SPOOL_ATTRIBUTE_TENANT, span("a\nb")) == -EINVAL, "LF");
    CHECK(spool_envelope_add_recipient(&data, span("c@y"), 2, span(""), 0) == -EINVAL, "a recipient behind attributes");
    CHECK(spool_envelope_finish(&data, 1, 2, 0, 3, NULL, 0) == 0, "finish");
    CHECK(spool_envelope_open(data->data, data->length, &view) == 0 && view.recipient_count == 1, "open");
    CHECK(spool_envelope_find_attribute(&view, SPOOL_ATTRIBUTE_PRIORITY, &text) && text.length == 2, "the first counts");
    CHECK(!spool_envelope_find_attribute(&view, SPOOL_ATTRIBUTE_TENANT, &text), "refused ones are not there");
    const uint8_t *cursor = view.end;
    int count = 0;
    while (spool_envelope_next_attribute(&view, &cursor, &attribute))
        count++;
    CHECK(count == 3, "%d attributes", count);
    for (size_t cut = 0; cut < data->length; cut++)
        CHECK(spool_envelope_open(data->data, cut, &view) == -EBADMSG, "cut at %zu", cut);
    data->data[54] ^= 1;
    CHECK(spool_envelope_open(data->data, data->length, &view) == -EBADMSG, "a length that does not fit");

    CHECK(spool_envelope_begin(&data, span("a@x"), span(""), span(""), span(""), span("")) == 0, "begin again");
    for (int i = 0; i < 15; i++)
        CHECK(spool_envelope_add_attribute(&data, 100, span(lengthy)) == 0, "attribute %d", i);
    size_t before = data->length;
    CHECK(spool_envelope_add_attribute(&data, 100, span(lengthy)) == -EINVAL && data->length == before, "more than 16 bits can say");
    octets_unref(data);
}

static void state_round_trip_and_limits(void)
{
    char lengthy[301];
    memset(lengthy, 'r', 300);
    lengthy[300] = 0;
    octets *data = octets_new(1);
    spool_state view;
    spool_recipient_state out, in = {.status = SPOOL_STATUS_FAILED, .flags = 3, .attempts = 17,
        .next_attempt_utc_s = 1ull << 33, .reply_code = 550, .enhanced_class = 5, .enhanced_subject = 1,
        .enhanced_detail = 10, .reply_text = span("no\r\nuser\x7f"), .remote_host = span("mx.example[192.0.2.1]:25")};
    CHECK(spool_state_begin(&data) == 0 && spool_state_append(&data, &in) == 0, "append");
    in.reply_text = in.remote_host = span(lengthy);
    CHECK(spool_state_append(&data, &in) == 0, "long texts are cut");
    in.status = 4;
    CHECK(spool_state_append(&data, &in) == -EINVAL, "unknown status");
    CHECK(spool_state_open(data->data, data->length, &view) == 0 && view.recipient_count == 2, "open");
    const uint8_t *cursor = view.entries;
    CHECK(spool_state_next(&view, &cursor, &out) && out.status == SPOOL_STATUS_FAILED && out.attempts == 17 && out.flags == 3
          && out.next_attempt_utc_s == 1ull << 33 && out.reply_code == 550 && out.enhanced_class == 5
          && out.enhanced_subject == 1 && out.enhanced_detail == 10, "numbers");
    CHECK(out.reply_text.length == 9 && memcmp(out.reply_text.data, "no??user?", 9) == 0, "control octets");
    CHECK(spool_state_next(&view, &cursor, &out) && out.reply_text.length == 200 && out.remote_host.length == 100, "cut");
    CHECK(!spool_state_next(&view, &cursor, &out), "end");
    for (size_t cut = 0; cut < data->length; cut++)
        CHECK(spool_state_open(data->data, cut, &view) == -EBADMSG, "cut at %zu", cut);
    octets_unref(data);
}

static void id_text(void)
{
    static const struct { uint64_t id; const char *text; } rows[] = {
        {0, "0000000000000"}, {1, "0000000000001"}, {UINT64_MAX, "FZZZZZZZZZZZZ"}, {1ull << 56, "0200000000000"},
    };
    char text[13];
    uint64_t id;
    for (size_t i = 0; i < COUNT(rows); i++) {
        spool_id_encode(rows[i].id, text);
        CHECK(memcmp(text, rows[i].text, 13) == 0, "row %zu", i);
        CHECK(spool_id_decode(rows[i].text, 13, &id) && id == rows[i].id, "row %zu", i);
    }
    CHECK(spool_id_decode("fzzzzzzzzzzzz", 13, &id) && id == UINT64_MAX, "lower case");
    CHECK(!spool_id_decode("G000000000000", 13, &id), "more than 64 bits");
    CHECK(!spool_id_decode("000000000000U", 13, &id), "no such digit");
    CHECK(!spool_id_decode("000000000000", 12, &id), "short");
    CHECK(!spool_id_decode("00000000000\0000", 13, &id), "NUL");
}

int main(void)
{
    crc_matches_rfc_3720_vectors();
    crc_implementations_agree_and_continue();
    header_survives_either_copy_torn();
    header_of_another_version_is_named();
    record_layout_is_the_documented_one();
    index_refuses_what_cannot_be();
    envelope_round_trip();
    envelope_of_streamed_message_keeps_its_chunks();
    envelope_attributes_are_found_by_key();
    state_round_trip_and_limits();
    id_text();
    CHECK(octets_live_count() == 0, "%ld buffers leaked", octets_live_count());
    return check_report();
}
