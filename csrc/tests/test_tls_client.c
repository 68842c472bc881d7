/* A TLS client of ours against our own server sessions, in memory: verdicts by name and by authority, both profiles, every cut,
 * resumption that stays bounded, damage, and a server that never speaks TLS. */
#include "check.h"

#include "octets/octets.h"
#include "tls/client_context.h"
#include "tls/context.h"
#include "tls/session.h"
#include "tls/ticket_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

enum { PLAIN = 64 << 10 };

typedef struct text { uint8_t data[8192]; size_t length; } text;

static void keep(BIO *bio, text *into)
{
    char *data;
    into->length = (size_t)BIO_get_mem_data(bio, &data);
    memcpy(into->data, data, into->length);
    BIO_free(bio);
}

static void make_certificate(const char *names, int bits, text *cert, text *key)
{
    EVP_PKEY *pair = bits ? EVP_RSA_gen((unsigned)bits) : EVP_EC_gen("P-256");
    X509 *leaf = X509_new();
    X509_set_version(leaf, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(leaf), 1);
    X509_gmtime_adj(X509_getm_notBefore(leaf), -60);
    X509_gmtime_adj(X509_getm_notAfter(leaf), 3600);
    X509_set_pubkey(leaf, pair);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(leaf), "O", MBSTRING_ASC, (const uint8_t *)names, -1, -1, 0);
    X509_set_issuer_name(leaf, X509_get_subject_name(leaf));
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);
    X509_add_ext(leaf, extension, -1);
    X509_EXTENSION_free(extension);
    X509_sign(leaf, pair, EVP_sha256());
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, leaf);
    keep(bio, cert);
    bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(bio, pair, NULL, NULL, 0, NULL, NULL);
    keep(bio, key);
    X509_free(leaf);
    EVP_PKEY_free(pair);
}

typedef struct ends {
    tls_session *client, *server;
    tls_receive_result client_result, server_result;
    uint8_t heard[PLAIN];           /* by the client */
    size_t heard_length;
} ends;

/* What `from` has to say goes to `to` in pieces of `step`, each a copy of its own so that a sanitizer sees reads behind it. */
static bool carry(tls_session *from, tls_session *to, size_t step, tls_receive_result *result, uint8_t *heard, size_t *length)
{
    static uint8_t opened[PLAIN + TLS_PLAIN_SLACK];
    octets *output = tls_session_take_output(from);
    if (output == NULL)
        return false;
    for (size_t at = 0; at < output->length && *result == TLS_RECEIVE_MORE; at += step) {
        size_t piece = output->length - at < step ? output->length - at : step, got;
        uint8_t *copy = malloc(piece);
        memcpy(copy, output->data + at, piece);
        *result = tls_session_receive(to, copy, piece, opened, piece + TLS_PLAIN_SLACK, &got);
        free(copy);
        if (heard != NULL && *length + got <= PLAIN) {
            memcpy(heard + *length, opened, got);
            *length += got;
        }
    }
    octets_unref(output);
    return true;
}

static void talk(ends *self, size_t step)
{
    bool is_moving = true;
    for (int turn = 0; is_moving && turn < 20; turn++) {
        is_moving = carry(self->client, self->server, step, &self->server_result, NULL, NULL);
        is_moving |= carry(self->server, self->client, step, &self->client_result, self->heard, &self->heard_length);
    }
}

static bool connect_ends(ends *self, tls_client_context *client, tls_context *server, const char *name, const char *key, size_t step)
{
    memset(self, 0, sizeof(*self));
    self->client = tls_session_connect(client, name, key);
    self->server = tls_session_new(server);
    talk(self, step);
    return self->client_result == TLS_RECEIVE_MORE && self->server_result == TLS_RECEIVE_MORE
        && tls_session_is_established(self->client) && tls_session_is_established(self->server);
}

static void part(ends *self)
{
    tls_session_free(self->client);
    tls_session_free(self->server);
}

static tls_client_context *trusting(tls_client_profile profile, const text *ca)
{
    tls_client_context *self = tls_client_context_new(profile);
    CHECK(tls_client_context_trust(self, ca != NULL ? ca->data : NULL, ca != NULL ? ca->length : 0) == TLS_LOAD_OK, "trust");
    return self;
}

static void test_names(const text *ca, tls_context *server)
{
    static const struct { const char *name; bool is_it; } names[] = {
        {"mx.example", true}, {"MX.EXAMPLE", true}, {"a.wild.example", true}, {"192.0.2.1", true}, {"2001:db8::1", true},
        {"mx.example.net", false}, {"example", false}, {"a.b.wild.example", false}, {"wild.example", false},
        {"192.0.2.2", false}, {"2001:db8::2", false},
    };
    for (size_t i = 0; i < COUNT(names); i++) {
        ends two;
        tls_client_context *strict = trusting(TLS_CLIENT_STRICT, ca), *any = trusting(TLS_CLIENT_ANY, ca);
        bool is_up = connect_ends(&two, strict, server, names[i].name, names[i].name, 4096);
        CHECK(is_up == names[i].is_it, "%s", names[i].name);
        CHECK((tls_session_distrust(two.client)[0] == 0) == names[i].is_it, "%s: %s", names[i].name,
              tls_session_distrust(two.client));
        if (!names[i].is_it)
            CHECK(two.server_result == TLS_RECEIVE_FAILED, "%s: the server is told", names[i].name);
        part(&two);
        CHECK(connect_ends(&two, any, server, names[i].name, names[i].name, 4096), "%s", names[i].name);
        CHECK(tls_session_peer_is_verified(two.client) == names[i].is_it, "%s", names[i].name);
        part(&two);
        tls_client_context_free(strict);
        tls_client_context_free(any);
    }
    tls_client_context *strict = trusting(TLS_CLIENT_STRICT, ca);
    char long_name[TLS_CLIENT_NAME_OCTETS + 1];
    memset(long_name, 'a', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = 0;
    CHECK(tls_session_connect(strict, "", "x") == NULL && tls_session_connect(strict, long_name, "x") == NULL, "no names");
    tls_client_context_free(strict);
}

static void test_strangers(const text *other, tls_context *server)
{
    ends two;
    tls_client_context *strict = trusting(TLS_CLIENT_STRICT, other), *system = trusting(TLS_CLIENT_STRICT, NULL);
    tls_client_context *any = trusting(TLS_CLIENT_ANY, NULL);
    CHECK(!connect_ends(&two, strict, server, "mx.example", "x", 4096) && two.client_result == TLS_RECEIVE_FAILED, "another's");
    CHECK(tls_session_send(two.client, (const uint8_t *)"MAIL", 4) != 0, "nothing can be said");
    part(&two);
    CHECK(!connect_ends(&two, system, server, "mx.example", "x", 4096), "the system does not know it");
    part(&two);
    CHECK(connect_ends(&two, any, server, "mx.example", "x", 4096) && !tls_session_peer_is_verified(two.client), "any");
    part(&two);
    tls_client_context_free(strict);
    tls_client_context_free(system);
    tls_client_context_free(any);
}

static void test_octets_at_every_cut(const text *ca, tls_context *server)
{
    static uint8_t said[40000];
    static const size_t steps[] = {1, 3, 100, 16400, PLAIN};
    for (size_t i = 0; i < sizeof(said); i++)
        said[i] = (uint8_t)(i * 11);
    for (size_t i = 0; i < COUNT(steps); i++) {
        ends two;
        tls_client_context *strict = trusting(TLS_CLIENT_STRICT, ca);
        CHECK(connect_ends(&two, strict, server, "mx.example", "x", steps[i]), "step %zu", steps[i]);
        tls_session_send(two.server, said, sizeof(said));
        talk(&two, steps[i]);
        CHECK(two.heard_length == sizeof(said) && memcmp(said, two.heard, sizeof(said)) == 0, "step %zu", steps[i]);
        tls_session_close(two.server);
        talk(&two, steps[i]);
        CHECK(two.client_result == TLS_RECEIVE_CLOSED, "close_notify, step %zu", steps[i]);
        part(&two);
        tls_client_context_free(strict);
    }
}

static void test_resumption(const text *ca, tls_context *server)
{
    ends two;
    tls_client_context *strict = trusting(TLS_CLIENT_STRICT, ca);
    for (int i = 0; i < 4; i++) {
        CHECK(connect_ends(&two, strict, server, "mx.example", "mx.example:25", 4096), "turn %d", i);
        CHECK(tls_session_is_resumed(two.client) == (i > 0), "turn %d: %zu kept, %s", i, tls_client_context_kept(strict), tls_session_version(two.client));
        CHECK(tls_session_peer_is_verified(two.client), "turn %d", i);
        part(&two);
    }
    CHECK(connect_ends(&two, strict, server, "mx.example", "mx.example:26", 4096) && !tls_session_is_resumed(two.client),
          "another port is another server");
    part(&two);
    for (int i = 0; i < 2 * TLS_CLIENT_SESSIONS; i++) {
        char key[32];
        snprintf(key, sizeof(key), "host%d:25", i);
        connect_ends(&two, strict, server, "mx.example", key, 4096);
        part(&two);
    }
    size_t kept = tls_client_context_kept(strict);
    CHECK(kept > TLS_CLIENT_SESSIONS / 2 && kept <= TLS_CLIENT_SESSIONS, "%zu kept", kept);
    tls_client_context_free(strict);
}

static bool connect_by_records(ends *self, tls_client_context *client, tls_context *server, const tls_dane_record *records,
                               size_t count)
{
    memset(self, 0, sizeof(*self));
    self->client = tls_session_connect_dane(client, "mx.example", NULL, 0, records, count, "x");
    if (self->client == NULL)
        return false;
    self->server = tls_session_new(server);
    talk(self, 4096);
    return self->client_result == TLS_RECEIVE_MORE && tls_session_is_established(self->client);
}

static void test_records(const text *cert, tls_context *server)
{
    BIO *bio = BIO_new_mem_buf(cert->data, (int)cert->length);
    X509 *leaf = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    uint8_t *der = NULL, digest[32], other[64] = {0};
    unsigned digest_length;
    int der_length = i2d_X509(leaf, &der);
    X509_digest(leaf, EVP_sha256(), digest, &digest_length);
    const tls_dane_record good = {3, 0, 1, digest, 32}, whole = {3, 0, 0, der, (size_t)der_length}, bad = {3, 0, 2, other, 64};
    const struct { const char *reason; tls_dane_record records[2]; size_t count; bool is_it; } rows[] = {
        {"digest", {good}, 1, true}, {"whole", {whole}, 1, true}, {"another", {bad}, 1, false},
        {"any of two", {{3, 0, 1, other, 32}, good}, 2, true},
        {"RFC 7671 §9: of two digests the stronger one", {bad, good}, 2, false}, {"none", {good}, 0, false}, {"useless", {{1, 0, 1, digest, 32}}, 1, false},
        {"useless beside good", {{1, 0, 1, digest, 32}, good}, 2, true}, {"useless beside bad", {{0, 0, 1, digest, 32}, bad}, 2, false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        ends two;
        tls_client_context *dane = tls_client_context_new(TLS_CLIENT_DANE);
        CHECK(connect_by_records(&two, dane, server, rows[i].records, rows[i].count) == rows[i].is_it, "%s", rows[i].reason);
        if (two.client != NULL)
            CHECK(tls_session_peer_is_verified(two.client) == rows[i].is_it, "%s", rows[i].reason);
        part(&two);
        tls_client_context_free(dane);
    }
    for (uint8_t usage = 0; usage < 5; usage++)
        for (uint8_t selector = 0; selector < 4; selector++)
            for (uint8_t matching = 0; matching < 5; matching++)
                for (size_t length = 0; length <= 64; length++) {
                    const tls_dane_record record = {usage, selector, matching, other, length};
                    bool is_good = (usage == 2 || usage == 3) && selector < 2
                        && ((matching == 1 && length == 32) || (matching == 2 && length == 64));
                    CHECK(tls_dane_is_usable(&record) == is_good, "%d %d %d, %zu octets", usage, selector, matching, length);
                }
    for (size_t length = 0; length < (size_t)der_length; length++) {
        uint8_t *copy = malloc(length ? length : 1);
        memcpy(copy, der, length);
        const tls_dane_record record = {3, 0, 0, copy, length};
        CHECK(!tls_dane_is_usable(&record), "%zu octets of a certificate", length);
        free(copy);
    }
    OPENSSL_free(der);
    X509_free(leaf);
    BIO_free(bio);
}

static void test_own_certificate(const text *ca, const text *own, const text *own_key, const text *foreign_key, tls_context *asking)
{
    ends two;
    tls_client_context *strict = trusting(TLS_CLIENT_STRICT, ca);
    uint8_t fingerprint[32];
    CHECK(tls_client_context_show(strict, own->data, own->length, foreign_key->data, foreign_key->length) == TLS_LOAD_MISMATCH,
          "another's key");
    CHECK(tls_client_context_show(strict, own->data, 20, own_key->data, own_key->length) == TLS_LOAD_BAD_CERTIFICATE, "cut");
    CHECK(tls_client_context_show(strict, own->data, own->length, own_key->data, 20) == TLS_LOAD_BAD_KEY, "cut");
    CHECK(tls_client_context_show(strict, own->data, own->length, own_key->data, own_key->length) == TLS_LOAD_OK, "show");
    CHECK(connect_ends(&two, strict, asking, "mx.example", "x", 4096), "asked");
    CHECK(tls_session_peer_fingerprint(two.server, fingerprint), "shown");
    part(&two);
    tls_client_context_free(strict);
}

static void test_damage_and_clear_text(const text *ca, tls_context *server)
{
    static uint8_t opened[PLAIN];
    static const char clear[] = "220 mx.example ESMTP\r\n";
    tls_client_context *any = trusting(TLS_CLIENT_ANY, ca);
    tls_session *client = tls_session_connect(any, "mx.example", "x");
    size_t got;
    CHECK(tls_session_receive(client, (const uint8_t *)clear, sizeof(clear) - 1, opened, sizeof(opened), &got)
          == TLS_RECEIVE_FAILED && got == 0 && tls_session_failure(client)[0] != 0, "clear text");
    tls_session_free(client);
    for (size_t at = 0; at < 1200; at += 7) {
        ends two;
        memset(&two, 0, sizeof(two));
        two.client = tls_session_connect(any, "mx.example", "y");
        two.server = tls_session_new(server);
        carry(two.client, two.server, PLAIN, &two.server_result, NULL, NULL);
        octets *flight = tls_session_take_output(two.server);
        if (flight != NULL && at < flight->length) {
            flight->data[at] ^= 0x20;
            tls_session_receive(two.client, flight->data, flight->length, opened, sizeof(opened), &got);
            CHECK(got == 0, "octet %zu", at);
            CHECK(!tls_session_is_established(two.client) || at < 11, "octet %zu", at);
        }
        octets_unref(flight);
        part(&two);
    }
    tls_client_context_free(any);
}

int main(void)
{
    static tls_ticket_keys keys;
    text cert, key, other, other_key, weak, weak_key;
    uint8_t secret[TLS_TICKET_SECRET_OCTETS] = {1};
    make_certificate("DNS:mx.example,DNS:*.wild.example,IP:192.0.2.1,IP:2001:db8::1", 0, &cert, &key);
    make_certificate("DNS:mx.example", 2048, &other, &other_key);
    make_certificate("DNS:mx.example", 1024, &weak, &weak_key);
    tls_ticket_keys_rotate(&keys, secret);
    tls_context *server = tls_context_new(false, &keys);
    CHECK(tls_context_add(server, cert.data, cert.length, key.data, key.length) == TLS_LOAD_OK, "add");
    CHECK(tls_context_seal(server) == TLS_LOAD_OK, "seal");
    test_names(&cert, server);
    test_strangers(&other, server);
    test_octets_at_every_cut(&cert, server);
    test_resumption(&cert, server);
    test_records(&cert, server);
    test_damage_and_clear_text(&cert, server);
    CHECK(tls_context_ask_certificate(server, other.data, other.length) == TLS_LOAD_OK, "ask");
    test_own_certificate(&cert, &other, &other_key, &weak_key, server);
    tls_context_free(server);
    tls_client_context *strict = tls_client_context_new(TLS_CLIENT_STRICT);
    for (size_t length = 1; length < cert.length - 1; length += 13)
        CHECK(tls_client_context_trust(strict, cert.data, length) == TLS_LOAD_BAD_CERTIFICATE, "%zu", length);
    tls_client_context_free(strict);
    return check_report();
}
