/* A TLS session of ours against a client of OpenSSL's, in memory: messages at every cut, damage in every octet, names, keys of
 * tickets. What it says is judged with sanitizers: nothing may be read or kept that is not ours. */
#include "check.h"

#include "octets/octets.h"
#include "tls/context.h"
#include "tls/session.h"
#include "tls/ticket_keys.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

enum { PLAIN = 64 << 10, WIRE = 256 << 10 };

typedef struct text { uint8_t data[8192]; size_t length; } text;

static void keep(BIO *bio, text *into)
{
    char *data;
    into->length = (size_t)BIO_get_mem_data(bio, &data);
    memcpy(into->data, data, into->length);
    BIO_free(bio);
}

static void make_certificate(const char *name, bool is_rsa, text *cert, text *key)
{
    EVP_PKEY *pair = is_rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
    X509 *leaf = X509_new();
    char names[300] = "DNS:";
    strcat(names, name);
    X509_set_version(leaf, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(leaf), 1);
    X509_gmtime_adj(X509_getm_notBefore(leaf), -60);
    X509_gmtime_adj(X509_getm_notAfter(leaf), 3600);
    X509_set_pubkey(leaf, pair);
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

typedef struct client { SSL *ssl; BIO *in, *out; } client;

static client client_new(SSL_CTX *ctx, const char *name)
{
    client self = {SSL_new(ctx), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem())};
    SSL_set_bio(self.ssl, self.in, self.out);
    SSL_set_connect_state(self.ssl);
    if (name != NULL)
        SSL_set_tlsext_host_name(self.ssl, name);
    return self;
}

/* What the client has to send goes to the server in pieces of `step`, what that says goes back. The last result. */
static tls_receive_result exchange(client *self, tls_session *server, size_t step, uint8_t *plain, size_t *plain_length)
{
    static uint8_t wire[WIRE], opened[PLAIN + TLS_PLAIN_SLACK];
    tls_receive_result result = TLS_RECEIVE_MORE;
    int length = BIO_read(self->out, wire, WIRE);
    for (int at = 0; at < length && result == TLS_RECEIVE_MORE; at += (int)step) {
        size_t piece = (size_t)(length - at) < step ? (size_t)(length - at) : step, got;
        /* A copy of its own, so that a sanitizer sees whoever reads on behind it. */
        uint8_t *copy = malloc(piece);
        memcpy(copy, wire + at, piece);
        result = tls_session_receive(server, copy, piece, opened, piece + TLS_PLAIN_SLACK, &got);
        free(copy);
        if (plain != NULL && *plain_length + got <= PLAIN) {
            memcpy(plain + *plain_length, opened, got);
            *plain_length += got;
        }
    }
    octets *output = tls_session_take_output(server);
    if (output != NULL) {
        BIO_write(self->in, output->data, (int)output->length);
        octets_unref(output);
    }
    return result;
}

static bool handshake(client *self, tls_session *server, size_t step)
{
    for (int turn = 0; turn < 6; turn++) {
        SSL_do_handshake(self->ssl);
        if (exchange(self, server, step, NULL, NULL) != TLS_RECEIVE_MORE)
            return false;
        if (tls_session_is_established(server) && SSL_is_init_finished(self->ssl))
            return true;
    }
    return false;
}

static void test_messages_at_every_cut(tls_context *context, SSL_CTX *ctx)
{
    static uint8_t said[40000], heard[PLAIN];
    static const size_t steps[] = {1, 2, 5, 100, 1000, 16384, 16500, WIRE};
    for (size_t i = 0; i < sizeof(said); i++)
        said[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < COUNT(steps); i++) {
        tls_session *server = tls_session_new(context);
        client other = client_new(ctx, "mx.example");
        size_t length = 0;
        char back[100];
        CHECK(handshake(&other, server, steps[i]), "step %zu", steps[i]);
        SSL_write(other.ssl, said, sizeof(said));
        CHECK(exchange(&other, server, steps[i], heard, &length) == TLS_RECEIVE_MORE, "step %zu", steps[i]);
        CHECK(length == sizeof(said) && memcmp(said, heard, length) == 0, "step %zu: %zu octets", steps[i], length);
        CHECK(tls_session_send(server, (const uint8_t *)"220 hello\r\n", 11) == 0, "send");
        exchange(&other, server, 1, NULL, NULL);
        CHECK(SSL_read(other.ssl, back, sizeof(back)) == 11 && memcmp(back, "220 hello", 9) == 0, "the reply");
        SSL_shutdown(other.ssl);
        CHECK(exchange(&other, server, steps[i], NULL, NULL) == TLS_RECEIVE_CLOSED, "close_notify, step %zu", steps[i]);
        tls_session_close(server);
        exchange(&other, server, 1, NULL, NULL);
        CHECK(SSL_read(other.ssl, back, 1) <= 0 && SSL_get_shutdown(other.ssl) & SSL_RECEIVED_SHUTDOWN, "closed");
        SSL_free(other.ssl);
        tls_session_free(server);
    }
}

static void test_damage_is_never_taken_for_words(tls_context *context, SSL_CTX *ctx)
{
    static uint8_t wire[WIRE], opened[PLAIN];
    for (int at = 0; at < 60; at++) {
        tls_session *server = tls_session_new(context);
        client other = client_new(ctx, NULL);
        size_t got;
        handshake(&other, server, WIRE);
        SSL_write(other.ssl, "MAIL FROM:<a@x.example>\r\n", 25);
        int length = BIO_read(other.out, wire, WIRE);
        if (at < length) {
            wire[at] ^= 0x20;
            tls_receive_result result = tls_session_receive(server, wire, (size_t)length, opened, sizeof(opened), &got);
            CHECK(got == 0, "octet %d", at);
            CHECK(result == TLS_RECEIVE_FAILED || (result == TLS_RECEIVE_MORE && (at == 3 || at == 4)), "octet %d", at);
            octets_unref(tls_session_take_output(server));
        }
        SSL_free(other.ssl);
        tls_session_free(server);
    }
    tls_session *server = tls_session_new(context);
    size_t got;
    CHECK(tls_session_receive(server, (const uint8_t *)"EHLO x\r\n", 8, opened, sizeof(opened), &got) == TLS_RECEIVE_FAILED
          && got == 0 && tls_session_failure(server)[0] != 0, "words in clear");
    CHECK(tls_session_send(server, (const uint8_t *)"x", 1) != 0, "nothing can be said");
    tls_session_free(server);
}

static volatile bool is_over;
static tls_ticket_keys keys;

static void *rotate(void *arg)
{
    uint8_t secret[TLS_TICKET_SECRET_OCTETS];
    for (int i = 0; i < 200000; i++) {
        memset(secret, i & 255, sizeof(secret));
        tls_ticket_keys_rotate(&keys, secret);
    }
    is_over = true;
    return arg;
}

/* Each key is one octet repeated: one that was read half old, half new would show. */
static void test_keys_are_read_whole(void)
{
    pthread_t writer;
    tls_ticket_key key;
    unsigned long looks = 0, torn = 0;
    CHECK(!tls_ticket_keys_current(&keys, &key), "no key yet");
    pthread_create(&writer, NULL, rotate, NULL);
    while (!is_over) {
        if (!tls_ticket_keys_current(&keys, &key))
            continue;
        looks++;
        for (size_t i = 0; i < sizeof(key); i++)
            torn += ((uint8_t *)&key)[i] != key.name[0];
    }
    pthread_join(writer, NULL);
    CHECK(torn == 0, "%lu of %lu looks", torn, looks);
    uint8_t name[TLS_TICKET_NAME_OCTETS];
    static const tls_ticket_age ages[] = {TLS_TICKET_CURRENT, TLS_TICKET_PREVIOUS, TLS_TICKET_UNKNOWN};
    for (int i = 0; i < 3; i++) {
        memset(name, (199999 - i) & 255, sizeof(name));
        CHECK(tls_ticket_keys_find(&keys, name, &key) == ages[i], "key %d", i);
    }
}

int main(void)
{
    text cert, key, other_cert, other_key;
    make_certificate("mx.example", false, &cert, &key);
    make_certificate("*.wild.example", true, &other_cert, &other_key);
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    test_keys_are_read_whole();
    tls_context *context = tls_context_new(false, &keys);
    CHECK(tls_context_add(context, cert.data, cert.length, key.data, key.length) == TLS_LOAD_OK, "add");
    CHECK(tls_context_add(context, other_cert.data, other_cert.length, other_key.data, other_key.length) == TLS_LOAD_OK,
          "add");
    CHECK(tls_context_seal(context) == TLS_LOAD_OK, "seal");
    CHECK(tls_context_ask_certificate(context, cert.data, cert.length) == TLS_LOAD_OK, "ask");
    test_messages_at_every_cut(context, ctx);
    SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
    test_messages_at_every_cut(context, ctx);
    SSL_CTX_set_max_proto_version(ctx, 0);
    test_damage_is_never_taken_for_words(context, ctx);
    tls_context_free(context);

    context = tls_context_new(true, NULL);
    CHECK(tls_context_add(context, cert.data, cert.length, other_key.data, other_key.length) == TLS_LOAD_MISMATCH, "mismatch");
    for (size_t length = 0; length < cert.length - 1; length += 13)
        CHECK(tls_context_add(context, cert.data, length, key.data, key.length) == TLS_LOAD_BAD_CERTIFICATE, "%zu", length);
    for (size_t length = 0; length < key.length - 1; length += 13)
        CHECK(tls_context_add(context, cert.data, cert.length, key.data, length) == TLS_LOAD_BAD_KEY, "%zu", length);
    tls_context_free(context);
    SSL_CTX_free(ctx);
    return check_report();
}
