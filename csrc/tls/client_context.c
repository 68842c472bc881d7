#include "tls/client_context.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "tls/context_parts.h"

/* SECLEVEL=0: keys and signatures that OpenSSL finds too weak. Not without authentication: an attacker on the way could then take
 * part by doing nothing at all. */
static const char CIPHERS_ANY[] = "HIGH:MEDIUM:!aNULL:!eNULL:!PSK:!SRP:@SECLEVEL=0";

/* Old keys and signatures of which the record itself vouches for the hash; not without encryption or authentication. Not the list of
 * TLS_CLIENT_STRICT: RFC 7672 publishes for servers that take mail from anybody, and mail would wait for some of them. */
static const char CIPHERS_DANE[] = "HIGH:!aNULL:!eNULL:!PSK:!SRP:@SECLEVEL=1";

typedef struct kept_session {
    char *key;
    SSL_SESSION *session;
} kept_session;

struct tls_client_context {
    SSL_CTX *ssl_ctx;
    kept_session kept[TLS_CLIENT_SESSIONS];
};

/* Sessions lie where a hash of their key says: bounded without a list, and who pushes another out costs it one full handshake. */
static kept_session *place_of(tls_client_context *self, const char *key)
{
    uint64_t hash = 0xcbf29ce484222325u;        /* FNV-1a */
    for (const char *at = key; *at; at++)
        hash = (hash ^ (uint8_t)*at) * 0x100000001b3u;
    return &self->kept[hash % TLS_CLIENT_SESSIONS];
}

static void forget(kept_session *place)
{
    SSL_SESSION_free(place->session);
    free(place->key);
    place->session = NULL;
    place->key = NULL;
}

/* OpenSSL's: a session that may be resumed, perhaps long after the handshake (RFC 8446 §4.6.1). 1: it is ours now. */
static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    tls_client_context *self = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    const char *key = SSL_get_app_data(ssl);
    kept_session *place = place_of(self, key);
    char *copy = SSL_SESSION_is_resumable(session) ? strdup(key) : NULL;
    if (copy == NULL)
        return 0;
    forget(place);
    place->key = copy;
    place->session = session;
    return 1;
}

/* Borrowed. Used again and again until the server gives a newer one: that its tickets tell an observer which connections belong
 * together (RFC 8446 §C.4) is no secret between two mail servers, and many servers give no new one to who has resumed. */
static SSL_SESSION *find_session(tls_client_context *self, const char *key)
{
    kept_session *place = place_of(self, key);
    return place->key != NULL && strcmp(place->key, key) == 0 ? place->session : NULL;
}

static int take_any_certificate(X509_STORE_CTX *store, void *arg)
{
    (void)arg;
    X509_verify_cert(store);            /* the verdict stays with the session */
    return 1;
}

static bool apply_profile(SSL_CTX *ctx, tls_client_profile profile)
{
    switch (profile) {
    case TLS_CLIENT_STRICT:
        return tls_profile_apply(ctx);
    case TLS_CLIENT_DANE:
        return SSL_CTX_dane_enable(ctx) == 1 && SSL_CTX_set_cipher_list(ctx, CIPHERS_DANE) == 1;
    default:
        return SSL_CTX_set_cipher_list(ctx, CIPHERS_ANY) == 1;
    }
}

tls_client_context *tls_client_context_new(tls_client_profile profile)
{
    tls_client_context *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return NULL;
    SSL_CTX *ctx = self->ssl_ctx = SSL_CTX_new(TLS_client_method());
    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1
            || !apply_profile(ctx, profile)) {
        tls_client_context_free(self);
        return NULL;
    }
    SSL_CTX_set_app_data(ctx, self);
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    if (profile == TLS_CLIENT_ANY) {
        SSL_CTX_set_options(ctx, SSL_OP_LEGACY_SERVER_CONNECT);
        SSL_CTX_set_cert_verify_callback(ctx, take_any_certificate, NULL);
    }
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    /* Buffers of a record, 16 KiB each, only while there is one. */
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(ctx, 1);             /* a record from the caller's buffer at once */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, keep_session);
    return self;
}

void tls_client_context_free(tls_client_context *self)
{
    if (self == NULL)
        return;
    SSL_CTX_free(self->ssl_ctx);
    for (size_t i = 0; i < TLS_CLIENT_SESSIONS; i++)
        forget(&self->kept[i]);
    free(self);
}

tls_load_result tls_client_context_trust(tls_client_context *self, const uint8_t *ca, size_t ca_length)
{
    ERR_clear_error();
    if (ca_length == 0)
        return SSL_CTX_set_default_verify_paths(self->ssl_ctx) == 1 ? TLS_LOAD_OK : TLS_LOAD_NO_MEMORY;
    STACK_OF(X509) *authorities = tls_read_certificates(ca, ca_length);
    if (authorities == NULL)
        return TLS_LOAD_BAD_CERTIFICATE;
    X509_STORE *store = SSL_CTX_get_cert_store(self->ssl_ctx);
    /* The operator may well trust one server's own certificate, or one authority that another has signed. */
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(self->ssl_ctx), X509_V_FLAG_PARTIAL_CHAIN);
    for (int i = 0; i < sk_X509_num(authorities); i++)
        X509_STORE_add_cert(store, sk_X509_value(authorities, i));
    sk_X509_pop_free(authorities, X509_free);
    ERR_clear_error();
    return TLS_LOAD_OK;
}

tls_load_result tls_client_context_show(tls_client_context *self, const uint8_t *cert, size_t cert_length,
                                        const uint8_t *key, size_t key_length)
{
    ERR_clear_error();
    STACK_OF(X509) *chain = tls_read_certificates(cert, cert_length);
    if (chain == NULL)
        return TLS_LOAD_BAD_CERTIFICATE;
    X509 *leaf = sk_X509_shift(chain);
    EVP_PKEY *pair = tls_read_key(key, key_length);
    tls_load_result result = TLS_LOAD_OK;
    if (pair == NULL)
        result = TLS_LOAD_BAD_KEY;
    else if (X509_check_private_key(leaf, pair) != 1)
        result = TLS_LOAD_MISMATCH;
    else if (SSL_CTX_use_cert_and_key(self->ssl_ctx, leaf, pair, chain, 1) != 1)
        result = TLS_LOAD_BAD_CERTIFICATE;
    EVP_PKEY_free(pair);
    X509_free(leaf);
    sk_X509_pop_free(chain, X509_free);
    return result;
}

static bool is_numeric(const char *name)
{
    unsigned char address[16];
    return inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
}

/* Takes `ssl` over, whatever comes of it: from here on `is_good` says whether it is prepared. */
static tls_session *begin(tls_client_context *context, SSL *ssl, bool is_good, const char *key)
{
    char *copy = strdup(key);
    tls_session *self = is_good && copy != NULL ? tls_session_over(ssl, copy) : NULL;
    if (self == NULL) {
        SSL_free(ssl);
        free(copy);
        ERR_clear_error();
        return NULL;
    }
    SSL_set_app_data(ssl, copy);
    SSL_set_connect_state(ssl);
    SSL_SESSION *before = find_session(context, key);
    if (before != NULL && (before = SSL_SESSION_dup(before)) != NULL) {
        SSL_set_session(ssl, before);       /* a copy: under TLS 1.3 OpenSSL spoils what was used once */
        SSL_SESSION_free(before);
    }
    SSL_do_handshake(ssl);              /* says ClientHello and waits */
    ERR_clear_error();
    return self;
}

static bool is_name(const char *name)
{
    return name[0] != 0 && strlen(name) < TLS_CLIENT_NAME_OCTETS;
}

tls_session *tls_session_connect(tls_client_context *context, const char *name, const char *key)
{
    ERR_clear_error();
    SSL *ssl = SSL_new(context->ssl_ctx);
    bool is_good = ssl != NULL && is_name(name);
    if (is_good && is_numeric(name)) {
        is_good = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
    } else if (is_good) {
        /* RFC 6125 §6.4.3: a wildcard is a whole label. SNI has no dot at its end (RFC 6066 §3). */
        SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        is_good = SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
    }
    return begin(context, ssl, is_good, key);
}

tls_session *tls_session_connect_dane(tls_client_context *context, const char *base, const char *const *more_names,
                                      size_t more_names_count, const tls_dane_record *records, size_t record_count,
                                      const char *key)
{
    ERR_clear_error();
    SSL *ssl = SSL_new(context->ssl_ctx);
    /* Sets SNI and the first name to look for. */
    bool is_good = ssl != NULL && is_name(base) && !is_numeric(base) && SSL_dane_enable(ssl, base) == 1;
    size_t usable = 0;
    if (is_good) {
        SSL_dane_set_flags(ssl, DANE_FLAG_NO_DANE_EE_NAMECHECKS);
        SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    }
    for (size_t i = 0; is_good && i < more_names_count; i++)
        is_good = is_name(more_names[i]) && SSL_add1_host(ssl, more_names[i]) == 1;
    for (size_t i = 0; is_good && i < record_count; i++)
        if (tls_dane_is_usable(&records[i]))
            usable += SSL_dane_tlsa_add(ssl, records[i].usage, records[i].selector, records[i].matching, records[i].data,
                                        records[i].length) > 0;
    return begin(context, ssl, is_good && usable > 0, key);
}

const char *tls_session_distrust(const tls_session *self)
{
    SSL *ssl = tls_session_ssl(self);
    long verdict = SSL_get_verify_result(ssl);
    if (SSL_is_init_finished(ssl) && SSL_get0_peer_certificate(ssl) == NULL)
        return "no certificate";
    return verdict == X509_V_OK ? "" : X509_verify_cert_error_string(verdict);
}

size_t tls_client_context_kept(const tls_client_context *self)
{
    size_t count = 0;
    for (size_t i = 0; i < TLS_CLIENT_SESSIONS; i++)
        count += self->kept[i].session != NULL;
    return count;
}
