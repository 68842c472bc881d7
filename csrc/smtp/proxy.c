/* PROXY headers; see proxy.h. */
#include "smtp/proxy.h"

#include <arpa/inet.h>
#include <string.h>

enum {
    V1_OCTETS_MAX = 107,                /* proxy-protocol.txt §2.1, with CRLF */
    V2_FIXED_OCTETS = 16,
    V2_IPV4_OCTETS = 12, V2_IPV6_OCTETS = 36, V2_UNIX_OCTETS = 216,
    TLV_OCTETS = 3,
};

static const uint8_t v2_signature[12] = "\r\n\r\n\0\r\nQUIT\n";
static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* --- version 1 --- */

/* The next word of the line, behind one space; false: none. */
static bool next_word(const uint8_t **at, const uint8_t *end, char *out, size_t size)
{
    size_t length = 0;
    if (*at == end || *(*at)++ != ' ')
        return false;
    while (*at < end && **at != ' ') {
        if (length + 1 >= size || **at < 0x21 || **at > 0x7e)
            return false;
        out[length++] = (char)*(*at)++;
    }
    out[length] = 0;
    return length > 0;
}

static bool port_of(const char *text, uint16_t *out)
{
    uint32_t value = 0;
    if (text[0] == '0' && text[1] != 0)
        return false;                   /* no leading zeros: §2.1 */
    for (; *text != 0; text++) {
        if (*text < '0' || *text > '9' || (value = value * 10 + (uint32_t)(*text - '0')) > 65535)
            return false;
    }
    *out = (uint16_t)value;
    return true;
}

static bool address_of(const char *text, int family, uint8_t out[16])
{
    memcpy(out, mapped_prefix, sizeof mapped_prefix);
    return inet_pton(family, text, family == AF_INET ? out + 12 : out) == 1;
}

static proxy_result parse_v1(const uint8_t *data, size_t length, proxy_header *out)
{
    static const char keyword[] = "PROXY";
    const uint8_t *end = data, *at = data + sizeof keyword - 1;
    char family[8], source[INET6_ADDRSTRLEN + 1], destination[INET6_ADDRSTRLEN + 1], ports[2][6];

    size_t known = length < sizeof keyword - 1 ? length : sizeof keyword - 1;
    if (memcmp(data, keyword, known) != 0)
        return PROXY_BAD;
    size_t limit = length < V1_OCTETS_MAX ? length : V1_OCTETS_MAX;
    const uint8_t *cr = memchr(data, '\r', limit);
    if (cr == NULL || cr + 1 == data + limit)
        return limit == V1_OCTETS_MAX || memchr(data, '\n', limit) != NULL ? PROXY_BAD : PROXY_PARTIAL;
    end = cr;
    if (cr[1] != '\n' || end < at || memchr(data, '\n', (size_t)(cr - data)) != NULL)
        return PROXY_BAD;
    out->length = (size_t)(cr - data) + 2;
    if (!next_word(&at, end, family, sizeof family))
        return PROXY_BAD;
    if (strcmp(family, "UNKNOWN") == 0) {
        out->is_local = true;           /* the rest of the line is to be ignored: §2.1 */
        return PROXY_OK;
    }
    int kind = strcmp(family, "TCP4") == 0 ? AF_INET : strcmp(family, "TCP6") == 0 ? AF_INET6 : AF_UNSPEC;
    if (kind == AF_UNSPEC || !next_word(&at, end, source, sizeof source)
        || !next_word(&at, end, destination, sizeof destination) || !next_word(&at, end, ports[0], sizeof ports[0])
        || !next_word(&at, end, ports[1], sizeof ports[1]) || at != end)
        return PROXY_BAD;
    if (!address_of(source, kind, out->address) || !address_of(destination, kind, out->destination)
        || !port_of(ports[0], &out->port) || !port_of(ports[1], &out->destination_port))
        return PROXY_BAD;
    return PROXY_OK;
}

/* --- version 2 --- */

static uint16_t load16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static bool tlvs_are_whole(const uint8_t *at, size_t length)
{
    while (length >= TLV_OCTETS) {
        size_t part = TLV_OCTETS + (size_t)load16(at + 1);
        if (part > length)
            return false;
        at += part;
        length -= part;
    }
    return length == 0;
}

static proxy_result parse_v2(const uint8_t *data, size_t length, proxy_header *out)
{
    size_t known = length < sizeof v2_signature ? length : sizeof v2_signature;
    if (memcmp(data, v2_signature, known) != 0)
        return PROXY_BAD;
    if (length < V2_FIXED_OCTETS)
        return PROXY_PARTIAL;
    uint8_t command = data[12], kind = data[13];
    size_t rest = load16(data + 14), addresses;
    out->length = V2_FIXED_OCTETS + rest;
    if (command >> 4 != 2 || (command & 15) > 1 || out->length > PROXY_OCTETS_MAX)
        return PROXY_BAD;
    bool is_local = (command & 15) == 0;
    switch (kind) {
    case 0x00: addresses = 0; break;
    case 0x11: addresses = V2_IPV4_OCTETS; break;
    case 0x21: addresses = V2_IPV6_OCTETS; break;
    case 0x31: addresses = V2_UNIX_OCTETS; break;
    default:
        if (!is_local)
            return PROXY_BAD;           /* datagrams, and what is not assigned */
        addresses = 0;
    }
    if (!is_local && rest < addresses)
        return PROXY_BAD;
    if (length < out->length)
        return PROXY_PARTIAL;
    const uint8_t *at = data + V2_FIXED_OCTETS;
    /* LOCAL and UNSPEC: addresses and all are to be ignored, §2.2 */
    if (!is_local && kind != 0x00 && !tlvs_are_whole(at + addresses, rest - addresses))
        return PROXY_BAD;
    out->is_local = is_local || kind == 0x00 || kind == 0x31;
    if (out->is_local)
        return PROXY_OK;
    if (kind == 0x11) {
        memcpy(out->address, mapped_prefix, sizeof mapped_prefix);
        memcpy(out->address + 12, at, 4);
        memcpy(out->destination, mapped_prefix, sizeof mapped_prefix);
        memcpy(out->destination + 12, at + 4, 4);
        out->port = load16(at + 8);
        out->destination_port = load16(at + 10);
    } else {
        memcpy(out->address, at, 16);
        memcpy(out->destination, at + 16, 16);
        out->port = load16(at + 32);
        out->destination_port = load16(at + 34);
    }
    return PROXY_OK;
}

proxy_result proxy_header_parse(const uint8_t *data, size_t length, proxy_header *out)
{
    *out = (proxy_header){0};
    if (length == 0)
        return PROXY_PARTIAL;
    proxy_result result = data[0] == v2_signature[0] ? parse_v2(data, length, out) : parse_v1(data, length, out);
    if (result != PROXY_OK)
        *out = (proxy_header){0};
    return result;
}
