/* A TLS session of a server against whatever a client sends. The first octet chooses.
 *
 * Even: the rest is what comes, in cuts. No octet of it is told as plain text before a handshake is over, and none here ever is; once it has
 * failed it stays so, with a reason, and nothing can be said.
 *
 * Odd: a client of OpenSSL's, with names of hosts and protocols of the input's, and octets of its flights damaged. Undamaged, the handshake
 * comes about exactly when the protocols, if any, have "smtp" among them (RFC 7301), and the certificate is the one of the name, as a slow
 * reading of RFC 6125 §6.4 has it. Damaged, what is told is a part of what was said, from its start.
 */
#include "tls/context.h"
#include "tls/session.h"

#include <ctype.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "fuzz.h"

enum { WIRE = 64 << 10, OUTPUT_MOST = 64 << 10 };

static const char SAID[] = "EHLO client.example\r\nMAIL FROM:<a@x.example>\r\n";
static const char WILD_TAIL[] = ".wild.example";

static tls_ticket_keys tickets;
static tls_context *context;
static SSL_CTX *clients;

static uint8_t *pem_of(BIO *bio, size_t *length)
{
    char *data;
    *length = (size_t)BIO_get_mem_data(bio, &data);
    uint8_t *copy = exact_copy((const uint8_t *)data, *length);
    BIO_free(bio);
    return copy;
}

static void add_certificate(const char *subject, const char *names)
{
    EVP_PKEY *pair = EVP_EC_gen("P-256");
    X509 *leaf = X509_new();
    size_t cert_length, key_length;
    BIO *cert_bio = BIO_new(BIO_s_mem()), *key_bio = BIO_new(BIO_s_mem());

    X509_set_version(leaf, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(leaf), 1);
    X509_gmtime_adj(X509_getm_notBefore(leaf), -60);
    X509_gmtime_adj(X509_getm_notAfter(leaf), 365 * 86400);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(leaf), "CN", MBSTRING_ASC, (const uint8_t *)subject, -1, -1, 0);
    X509_set_pubkey(leaf, pair);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);
    X509_add_ext(leaf, extension, -1);
    X509_EXTENSION_free(extension);
    INVARIANT(X509_sign(leaf, pair, EVP_sha256()) > 0);
    PEM_write_bio_X509(cert_bio, leaf);
    PEM_write_bio_PrivateKey(key_bio, pair, NULL, NULL, 0, NULL, NULL);
    uint8_t *cert = pem_of(cert_bio, &cert_length), *key = pem_of(key_bio, &key_length);
    INVARIANT(tls_context_add(context, cert, cert_length, key, key_length) == TLS_LOAD_OK);
    free(cert);
    free(key);
    X509_free(leaf);
    EVP_PKEY_free(pair);
}

static void prepare(void)
{
    uint8_t secret[TLS_TICKET_SECRET_OCTETS] = {1, 2, 3};
    tls_ticket_keys_rotate(&tickets, secret);
    context = tls_context_new(false, &tickets);
    add_certificate("exact", "DNS:mx.example");
    add_certificate("wild", "DNS:*.wild.example");
    INVARIANT(tls_context_seal(context) == TLS_LOAD_OK);
    INVARIANT(tls_context_ask_certificate(context, NULL, 0) == TLS_LOAD_OK);
    clients = SSL_CTX_new(TLS_client_method());
}

/* What the server says goes to `into`, or nowhere. */
static void drain(tls_session *server, BIO *into)
{
    octets *output = tls_session_take_output(server);
    if (output == NULL)
        return;
    INVARIANT(output->length <= OUTPUT_MOST);
    if (into != NULL)
        BIO_write(into, output->data, (int)output->length);
    octets_unref(output);
}

/* In cuts, each a copy of its own; what is told goes behind plain[0..*plain_length). */
static tls_receive_result receive(tls_session *server, const uint8_t *data, size_t size, uint32_t *seed, BIO *into,
                                  uint8_t *plain, size_t *plain_length)
{
    tls_receive_result result = TLS_RECEIVE_MORE;
    while (size > 0 && result == TLS_RECEIVE_MORE) {
        size_t piece = *seed % 3 == 0 ? size : next_cut(seed, size), got;
        uint8_t *in = exact_copy(data, piece), *out = malloc(piece + TLS_PLAIN_SLACK);
        INVARIANT(out != NULL);
        result = tls_session_receive(server, in, piece, out, piece + TLS_PLAIN_SLACK, &got);
        INVARIANT(got == 0 || tls_session_is_established(server));
        INVARIANT((tls_session_failure(server)[0] != 0) == (result == TLS_RECEIVE_FAILED));
        INVARIANT(*plain_length + got <= WIRE);
        memcpy(plain + *plain_length, out, got);
        *plain_length += got;
        free(in);
        free(out);
        drain(server, into);
        data += piece;
        size -= piece;
        *seed = *seed * 1664525u + 1013904223u;
    }
    return result;
}

static void check_over(tls_session *server)
{
    uint8_t plain[8 + TLS_PLAIN_SLACK];
    size_t got;
    INVARIANT(tls_session_receive(server, (const uint8_t *)"NOOP\r\n", 6, plain, sizeof(plain), &got) == TLS_RECEIVE_FAILED);
    INVARIANT(got == 0);
    tls_session_close(server);
    drain(server, NULL);
}

static void check_octets(const uint8_t *data, size_t size, uint32_t seed)
{
    static uint8_t plain[WIRE];
    size_t length = 0;
    tls_session *server = tls_session_new(context);
    tls_receive_result result = receive(server, data, size, &seed, NULL, plain, &length);
    INVARIANT(length == 0 && !tls_session_is_established(server));
    if (result == TLS_RECEIVE_FAILED) {
        INVARIANT(tls_session_send(server, (const uint8_t *)"220", 3) != 0);
        drain(server, NULL);
        check_over(server);
    }
    tls_session_free(server);
}

static bool has_smtp(const uint8_t *protocols, size_t length)
{
    for (size_t at = 0; at < length; at += 1u + protocols[at])
        if (protocols[at] == 4 && at + 5 <= length && memcmp(protocols + at + 1, "smtp", 4) == 0)
            return true;
    return false;
}

/* One whole label before the tail, a dot at the end or not, any case. */
static bool is_wild(const char *name)
{
    char lower[256];
    size_t length = strlen(name), tail = sizeof(WILD_TAIL) - 1;
    for (size_t i = 0; i <= length; i++)
        lower[i] = (char)tolower((unsigned char)name[i]);
    if (length > 0 && lower[length - 1] == '.')
        lower[--length] = 0;
    return length > tail && strcmp(lower + length - tail, WILD_TAIL) == 0 && strchr(lower, '.') == lower + length - tail;
}

static void check_certificate(SSL *client, const char *name)
{
    char subject[16] = "";
    X509 *leaf = SSL_get0_peer_certificate(client);
    INVARIANT(leaf != NULL);
    X509_NAME_get_text_by_NID(X509_get_subject_name(leaf), NID_commonName, subject, sizeof(subject));
    INVARIANT(strcmp(subject, is_wild(name) ? "wild" : "exact") == 0);
}

/* size of names, names, size of protocols, protocols, then pairs: where and how the client's octets are damaged. */
static void check_client(const uint8_t *data, size_t size, uint32_t seed)
{
    static uint8_t wire[WIRE], plain[WIRE];
    static const char *const TAILS[] = {"", ".", ".wild.example", ".WILD.example.", "mx.example", "MX.Example."};
    char name[256] = "";
    size_t name_length = 0, protocols_length = 0, length = 0, sent = 0;
    bool is_damaged = false, has_failed = false;
    SSL *client = SSL_new(clients);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    tls_session *server = tls_session_new(context);

    SSL_set_bio(client, in, out);
    SSL_set_connect_state(client);
    if (seed & 2)
        SSL_set_max_proto_version(client, TLS1_2_VERSION);
    if (size > 0) {
        name_length = data[0] % 64 < size - 1 ? data[0] % 64 : size - 1;
        memcpy(name, data + 1, name_length);
        strcpy(name + strlen(name), TAILS[data[0] / 64 + (seed >> 2 & 1) * 2]);
        data += name_length + 1;
        size -= name_length + 1;
    }
    if (name[0] != 0)
        SSL_set_tlsext_host_name(client, name);
    if (size > 0) {
        size_t wanted = data[0] < size - 1 ? data[0] : size - 1;
        uint8_t *protocols = exact_copy(data + 1, wanted);
        if (wanted > 0 && SSL_set_alpn_protos(client, protocols, (unsigned)wanted) == 0)
            protocols_length = wanted;
        bool is_for_us = protocols_length == 0 || has_smtp(protocols, protocols_length);
        free(protocols);
        data += wanted + 1;
        size -= wanted + 1;
        has_failed = !is_for_us;
    }
    bool must_fail = has_failed;
    has_failed = false;
    for (int turn = 0; turn < 6 && !has_failed; turn++) {
        if (SSL_do_handshake(client) == 1 && sent == 0)
            sent = SSL_write(client, SAID, sizeof(SAID) - 1) > 0 ? sizeof(SAID) - 1 : 0;
        int flight = BIO_read(out, wire, WIRE);
        for (; size >= 2 && flight > 0 && data[0] != 0; data += 2, size -= 2) {
            wire[data[0] * 3u % (unsigned)flight] ^= data[1];
            is_damaged |= data[1] != 0;
        }
        if (size >= 2) {        /* a zero: the next flight's begin */
            data += 2;
            size -= 2;
        }
        has_failed = flight > 0
            && receive(server, wire, (size_t)flight, &seed, in, plain, &length) == TLS_RECEIVE_FAILED;
    }
    INVARIANT(length <= sent && memcmp(plain, SAID, length) == 0);
    if (has_failed)
        check_over(server);
    if (!is_damaged) {
        INVARIANT(has_failed == must_fail);
        INVARIANT(length == (must_fail ? 0 : sizeof(SAID) - 1));
        if (!must_fail)
            check_certificate(client, name);
    }
    SSL_free(client);
    tls_session_free(server);
    ERR_clear_error();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (context == NULL)
        prepare();
    if (size == 0)
        return 0;
    if (data[0] & 1)
        check_client(data + 1, size - 1, data[0]);
    else
        check_octets(data + 1, size - 1, data[0] * 2654435761u);
    return 0;
}
