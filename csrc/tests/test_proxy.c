/* PROXY headers: a table of good and bad ones, each also cut at every octet. Sections are of HAProxy's proxy-protocol.txt. */
#include "check.h"

#include "smtp/proxy.h"

#include <arpa/inet.h>
#include <string.h>

#define V2 "\r\n\r\n\0\r\nQUIT\n"
#define TEXT(literal) literal, sizeof(literal) - 1

typedef struct row {
    const char *data;
    size_t length;
    proxy_result result;
    const char *client;                 /* NULL: local */
    uint16_t port;
} row;

static const row rows[] = {
    /* §2.1 */
    {TEXT("PROXY TCP4 192.0.2.1 198.51.100.7 56324 25\r\n"), PROXY_OK, "::ffff:192.0.2.1", 56324},
    {TEXT("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"), PROXY_OK, "::ffff:255.255.255.255", 65535},
    {TEXT("PROXY TCP6 2001:db8::1 2001:db8::2 1 25\r\n"), PROXY_OK, "2001:db8::1", 1},
    {TEXT("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
     PROXY_OK, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535},
    {TEXT("PROXY TCP6 ::ffff:192.0.2.1 ::1 0 25\r\n"), PROXY_OK, "::ffff:192.0.2.1", 0},
    {TEXT("PROXY UNKNOWN\r\n"), PROXY_OK, NULL, 0},
    {TEXT("PROXY UNKNOWN ffff::1 what ever it says\r\n"), PROXY_OK, NULL, 0},
    {TEXT("PROXY TCP4 192.0.2.1 198.51.100.7 56324 25\n"), PROXY_BAD, NULL, 0},
    {TEXT("PROXY TCP4 192.0.2.1 198.51.100.7 56324 25\r\r\n"), PROXY_BAD, NULL, 0},
    {TEXT("PROXY TCP4 192.0.2.1\n 198.51.100.7 56324 25\r\n"), PROXY_BAD, NULL, 0},
    {TEXT("PROXY TCP4 192.0.2.1 198.51.100.7 56324 25 \r\n"), PROXY_BAD, NULL, 0},
    {TEXT("PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n"), PROXY_BAD, NULL, 0},
    {TEXT("PROXY TCP4  192.0.2.1 198.51.100.7 56324 25\r\n"), PROXY_BAD, NULL, 0},
    {TEXT("PROXY TCP4 192.0.2.01 198.51.100.7 56324 25\r\n"), PROXY_BAD, NULL, 0},
    {TEXT("PROXY TCP4 192.0.2.1 198.51.100.7 056324 25\r\n"), PROXY_BAD, NULL, 0},
    {TEXT("PROXY TCP4 192.0.2.1 198.51.100.7 65536 25\r\n"), PROXY_BAD, NULL, 0},
    {TEXT("PROXY TCP4 192.0.2.1 198.51.100.7 -1 25\r\n"), PROXY_BAD, NULL, 0},
    {TEXT("PROXY TCP4 2001:db8::1 2001:db8::2 1 25\r\n"), PROXY_BAD, NULL, 0},
    {TEXT("PROXY TCP6 192.0.2.1 192.0.2.2 1 25\r\n"), PROXY_BAD, NULL, 0},
    {TEXT("PROXY TCP6 fe80::1%eth0 ::1 1 25\r\n"), PROXY_BAD, NULL, 0},
    {TEXT("PROXY UDP4 192.0.2.1 198.51.100.7 1 25\r\n"), PROXY_BAD, NULL, 0},
    {TEXT("proxy TCP4 192.0.2.1 198.51.100.7 1 25\r\n"), PROXY_BAD, NULL, 0},
    {TEXT("PROXYTCP4 192.0.2.1 198.51.100.7 1 25\r\n"), PROXY_BAD, NULL, 0},
    {TEXT("PROXY\r\n"), PROXY_BAD, NULL, 0},
    {TEXT("PROXY UNKNOWN a line of more than one hundred and seven octets a line of more than one hundred and seven octet\r\n"),
     PROXY_BAD, NULL, 0},
    {TEXT("EHLO client.example\r\n"), PROXY_BAD, NULL, 0},
    {TEXT("GET / HTTP/1.1\r\n"), PROXY_BAD, NULL, 0},
    /* §2.2 */
    {TEXT(V2 "\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x07\xdc\x04\0\x19"), PROXY_OK, "::ffff:192.0.2.1", 56324},
    {TEXT(V2 "\x21\x11\0\x10\xc0\0\x02\x01\xc6\x33\x64\x07\xdc\x04\0\x19\x04\0\x01z"), PROXY_OK, "::ffff:192.0.2.1", 56324},
    {TEXT(V2 "\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\0\x01\0\x19"),
     PROXY_OK, "2001:db8::1", 1},
    {TEXT(V2 "\x20\0\0\0"), PROXY_OK, NULL, 0},
    {TEXT(V2 "\x20\x12\0\x02zz"), PROXY_OK, NULL, 0},
    {TEXT(V2 "\x21\0\0\x05zzzzz"), PROXY_OK, NULL, 0},
    {TEXT(V2 "\x22\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x07\xdc\x04\0\x19"), PROXY_BAD, NULL, 0},    /* command 2 */
    {TEXT(V2 "\x11\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x07\xdc\x04\0\x19"), PROXY_BAD, NULL, 0},    /* version 1 */
    {TEXT(V2 "\x21\x12\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x07\xdc\x04\0\x19"), PROXY_BAD, NULL, 0},    /* UDP */
    {TEXT(V2 "\x21\x41\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x07\xdc\x04\0\x19"), PROXY_BAD, NULL, 0},    /* no such family */
    {TEXT(V2 "\x21\x11\0\x0b\xc0\0\x02\x01\xc6\x33\x64\x07\xdc\x04\0\x19"), PROXY_BAD, NULL, 0},    /* too short for them */
    {TEXT(V2 "\x21\x21\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x07\xdc\x04\0\x19"), PROXY_BAD, NULL, 0},
    {TEXT(V2 "\x21\x11\0\x10\xc0\0\x02\x01\xc6\x33\x64\x07\xdc\x04\0\x19\x04\0\x02z"), PROXY_BAD, NULL, 0}, /* TLV too long */
    {TEXT(V2 "\x21\x11\0\x0e\xc0\0\x02\x01\xc6\x33\x64\x07\xdc\x04\0\x19\x04\0"), PROXY_BAD, NULL, 0},      /* half a TLV */
    {TEXT(V2 "\x21\x11\x08\0"), PROXY_BAD, NULL, 0},                                                 /* over PROXY_OCTETS_MAX */
    {TEXT("\r\n\r\n\0\r\nQUIX\n\x21\x11\0\x0c"), PROXY_BAD, NULL, 0},
};

static void verdict_is_right_and_the_same_for_every_cut(void)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        const row *each = &rows[i];
        proxy_header header, cut;
        uint8_t followed[256];
        proxy_result result = proxy_header_parse((const uint8_t *)each->data, each->length, &header);
        CHECK(result == each->result, "row %zu: %d", i, result);
        for (size_t length = 0; length < each->length; length++) {
            proxy_result early = proxy_header_parse((const uint8_t *)each->data, length, &cut);
            CHECK(early == PROXY_PARTIAL || (early == PROXY_BAD && result == PROXY_BAD), "row %zu cut at %zu: %d", i, length,
                  early);
        }
        if (result != PROXY_OK)
            continue;
        uint8_t client[16] = {0};
        if (each->client != NULL)
            inet_pton(AF_INET6, each->client, client);
        CHECK(header.is_local == (each->client == NULL) && memcmp(header.address, client, 16) == 0 && header.port == each->port,
              "row %zu: client", i);
        CHECK(header.length == each->length, "row %zu: length %zu", i, header.length);
        memcpy(followed, each->data, each->length);
        memcpy(followed + each->length, "EHLO x\r\n", 8);
        CHECK(proxy_header_parse(followed, each->length + 8, &cut) == PROXY_OK && memcmp(&cut, &header, sizeof cut) == 0,
              "row %zu: what follows is the client's", i);
    }
}

static void both_versions_tell_where_the_client_came_to(void)
{
    static const struct {
        const char *data;
        size_t length;
        const char *destination;
    } told[] = {
        {TEXT("PROXY TCP4 192.0.2.1 198.51.100.7 56324 587\r\n"), "::ffff:198.51.100.7"},
        {TEXT("PROXY TCP6 2001:db8::1 2001:db8::2 1 587\r\n"), "2001:db8::2"},
        {TEXT(V2 "\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x07\xdc\x04\x02\x4b"), "::ffff:198.51.100.7"},
        {TEXT(V2 "\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02"
              "\0\x01\x02\x4b"), "2001:db8::2"},
    };
    for (size_t i = 0; i < COUNT(told); i++) {
        proxy_header header;
        uint8_t wanted[16];
        inet_pton(AF_INET6, told[i].destination, wanted);
        CHECK(proxy_header_parse((const uint8_t *)told[i].data, told[i].length, &header) == PROXY_OK, "row %zu", i);
        CHECK(memcmp(header.destination, wanted, 16) == 0 && header.destination_port == 587, "row %zu: destination", i);
    }
}

int main(void)
{
    both_versions_tell_where_the_client_came_to();
    verdict_is_right_and_the_same_for_every_cut();
    return check_report();
}
