#include "tls/context.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "tls/context_parts.h"

static const char CIPHERS_12[] =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
static const char CIPHERS_13[] = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
static const char GROUPS[] = "X25519:P-256:P-384";

/* As long as a key seals tickets (process: every 12 hours); the key before it opens them for as long again. */
#define TICKET_LIFETIME_S (12 * 3600)

static int take_any_certificate(X509_STORE_CTX *store, void *arg)
{
    /* The verdict is kept with the session (SSL_get_verify_result); the handshake never fails for it: most clients
     * that show a certificate show one for something else. */
    (void)arg;
    X509_verify_cert(store);
    return 1;
}

static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_length, const unsigned char *in,
                       unsigned in_length, void *arg)
{
    (void)ssl;
    (void)arg;
    for (unsigned at = 0; at < in_length && at + 1 + in[at] <= in_length; at += 1 + in[at]) {
        if (in[at] == 4 && memcmp(in + at + 1, "smtp", 4) == 0) {
            *out = in + at + 1;
            *out_length = 4;
            return SSL_TLSEXT_ERR_OK;
        }
    }
    /* A client that asks for other protocols only is a browser or the like that was led here (RFC 7301 §3.2). */
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int compare_names(const void *a, const void *b)
{
    const tls_name *one = a, *other = b;
    int result = strcmp(one->text, other->text);
    if (result != 0)
        return result;
    return (one->certificate > other->certificate) - (one->certificate < other->certificate);
}

/* The first of the names equal to `text`, or NULL. */
static const tls_name *find_name(const tls_context *self, const char *text)
{
    size_t low = 0, high = self->name_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(self->names[middle].text, text) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < self->name_count && strcmp(self->names[low].text, text) == 0 ? &self->names[low] : NULL;
}

static int choose_certificate(SSL *ssl, int *alert, void *arg)
{
    const tls_context *self = arg;
    const char *asked = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    char name[256];
    size_t length = asked != NULL ? strlen(asked) : 0;
    (void)alert;
    if (length == 0 || length >= sizeof(name) - 1)
        return SSL_TLSEXT_ERR_OK;
    for (size_t i = 0; i <= length; i++)
        name[i] = (char)tolower((unsigned char)asked[i]);
    if (name[length - 1] == '.')
        name[length - 1] = 0;
    const tls_name *found = find_name(self, name);
    char *dot = strchr(name, '.');
    if (found == NULL && dot != NULL && dot != name) {
        /* RFC 6125 §6.4.3: the wildcard stands for the whole leftmost label and for one only. */
        dot[-1] = '*';
        found = find_name(self, dot - 1);
    }
    if (found == NULL)
        return SSL_TLSEXT_ERR_OK;
    SSL_certs_clear(ssl);
    const char *text = found->text;
    for (; found < self->names + self->name_count && strcmp(found->text, text) == 0; found++) {
        const tls_certificate *certificate = &self->certificates[found->certificate];
        /* No override: the first of a kind wins, as everywhere. */
        SSL_use_cert_and_key(ssl, certificate->leaf, certificate->key, certificate->chain, 0);
    }
    ERR_clear_error();
    return SSL_TLSEXT_ERR_OK;
}

static int seal_or_open_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                               int is_sealing)
{
    const tls_context *self = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    tls_ticket_key key;
    tls_ticket_age age = TLS_TICKET_CURRENT;
    int result = -1;
    if (is_sealing) {
        if (!tls_ticket_keys_current(self->tickets, &key))
            return 0;
        memcpy(name, key.name, TLS_TICKET_NAME_OCTETS);
        if (RAND_bytes(iv, 16) != 1)
            goto out;
    } else {
        age = tls_ticket_keys_find(self->tickets, name, &key);
        if (age == TLS_TICKET_UNKNOWN)
            return 0;           /* a full handshake */
    }
    char digest[] = "SHA256";
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key.mac_key, sizeof(key.mac_key)),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    if (EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key.cipher_key, iv, is_sealing) != 1
            || EVP_MAC_CTX_set_params(mac, parameters) != 1)
        goto out;
    result = age == TLS_TICKET_PREVIOUS ? 2 : 1;    /* 2: and give it a new one */
out:
    OPENSSL_cleanse(&key, sizeof(key));
    return result;
}

bool tls_profile_apply(SSL_CTX *ctx)
{
    return SSL_CTX_set_cipher_list(ctx, CIPHERS_12) == 1 && SSL_CTX_set_ciphersuites(ctx, CIPHERS_13) == 1
        && SSL_CTX_set1_groups_list(ctx, GROUPS) == 1;
}

tls_context *tls_context_new(bool is_tls13_only, const tls_ticket_keys *tickets)
{
    tls_context *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return NULL;
    self->tickets = tickets;
    self->ssl_ctx = SSL_CTX_new(TLS_server_method());
    SSL_CTX *ctx = self->ssl_ctx;
    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, is_tls13_only ? TLS1_3_VERSION : TLS1_2_VERSION) != 1
            || !tls_profile_apply(ctx)) {
        tls_context_free(self);
        return NULL;
    }
    SSL_CTX_set_app_data(ctx, self);
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    /* Buffers of a record, 16 KiB each, only while there is one: what a session costs while it waits. */
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    /* A record is taken from the caller's buffer at once, not its head first. */
    SSL_CTX_set_read_ahead(ctx, 1);
    /* Workers share no memory of sessions: tickets or nothing. */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_timeout(ctx, TICKET_LIFETIME_S);
    SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"angarium", 8);
    if (tickets != NULL) {
        SSL_CTX_set_num_tickets(ctx, 1);
        SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, seal_or_open_ticket);
    } else {
        SSL_CTX_set_num_tickets(ctx, 0);
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    }
    SSL_CTX_set_alpn_select_cb(ctx, choose_alpn, NULL);
    SSL_CTX_set_tlsext_servername_callback(ctx, choose_certificate);
    SSL_CTX_set_tlsext_servername_arg(ctx, self);
    return self;
}

void tls_context_free(tls_context *self)
{
    if (self == NULL)
        return;
    SSL_CTX_free(self->ssl_ctx);
    for (size_t i = 0; i < self->certificate_count; i++) {
        X509_free(self->certificates[i].leaf);
        sk_X509_pop_free(self->certificates[i].chain, X509_free);
        EVP_PKEY_free(self->certificates[i].key);
    }
    for (size_t i = 0; i < self->name_count; i++)
        free(self->names[i].text);
    free(self->certificates);
    free(self->names);
    free(self);
}

static int no_passphrase(char *buffer, int size, int is_writing, void *arg)
{
    (void)buffer, (void)size, (void)is_writing, (void)arg;
    return -1;
}

STACK_OF(X509) *tls_read_certificates(const uint8_t *pem, size_t length)
{
    BIO *bio = BIO_new_mem_buf(pem, (int)length);
    STACK_OF(X509) *found = sk_X509_new_null();
    X509 *certificate = NULL;
    while (bio != NULL && found != NULL && (certificate = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL) {
        if (!sk_X509_push(found, certificate)) {
            X509_free(certificate);
            break;
        }
    }
    BIO_free(bio);
    /* The end of the text reads as "no start line"; whatever else stopped it is damage. */
    bool is_whole = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    if (found != NULL && sk_X509_num(found) > 0 && is_whole) {
        ERR_clear_error();
        return found;
    }
    sk_X509_pop_free(found, X509_free);
    return NULL;
}

EVP_PKEY *tls_read_key(const uint8_t *pem, size_t length)
{
    BIO *bio = BIO_new_mem_buf(pem, (int)length);
    EVP_PKEY *key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    BIO_free(bio);
    return key;
}

static bool add_name(tls_context *self, const unsigned char *text, int length)
{
    /* A NUL or a control octet in a name is an attack on somebody, not a name. */
    for (int i = 0; i < length; i++)
        if (text[i] <= ' ' || text[i] > 126)
            return true;
    if (length <= 0 || length > 255)
        return true;
    tls_name *grown = realloc(self->names, (self->name_count + 1) * sizeof(*grown));
    if (grown == NULL)
        return false;
    self->names = grown;
    char *copy = malloc((size_t)length + 1);
    if (copy == NULL)
        return false;
    for (int i = 0; i < length; i++)
        copy[i] = (char)tolower(text[i]);
    copy[length] = 0;
    self->names[self->name_count].text = copy;
    self->names[self->name_count++].certificate = self->certificate_count - 1;
    return true;
}

/* The DNS names of the certificate; its common name when it has none (RFC 6125 §6.4.4). */
static bool add_names(tls_context *self, X509 *leaf)
{
    bool is_good = true, has_names = false;
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; is_good && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_DNS)
            continue;
        has_names = true;
        is_good = add_name(self, ASN1_STRING_get0_data(name->d.dNSName), ASN1_STRING_length(name->d.dNSName));
    }
    GENERAL_NAMES_free(names);
    X509_NAME *subject = X509_get_subject_name(leaf);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (is_good && !has_names && at >= 0) {
        unsigned char *text = NULL;
        int length = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
        if (length > 0)
            is_good = add_name(self, text, length);
        OPENSSL_free(text);
    }
    return is_good;
}

tls_load_result tls_context_add(tls_context *self, const uint8_t *cert, size_t cert_length,
                                const uint8_t *key, size_t key_length)
{
    ERR_clear_error();
    tls_certificate *grown = realloc(self->certificates, (self->certificate_count + 1) * sizeof(*grown));
    if (grown == NULL)
        return TLS_LOAD_NO_MEMORY;
    self->certificates = grown;
    tls_certificate *added = &grown[self->certificate_count];
    memset(added, 0, sizeof(*added));
    STACK_OF(X509) *chain = tls_read_certificates(cert, cert_length);
    if (chain == NULL)
        return TLS_LOAD_BAD_CERTIFICATE;
    added->leaf = sk_X509_shift(chain);
    added->chain = chain;
    self->certificate_count++;                      /* freed with the context from here on */
    added->key = tls_read_key(key, key_length);
    if (added->key == NULL)
        return TLS_LOAD_BAD_KEY;
    if (X509_check_private_key(added->leaf, added->key) != 1)
        return TLS_LOAD_MISMATCH;
    /* OpenSSL's own verdict on keys too short for its security level and the like, for each certificate; then the first
     * of its kind goes where it came from. */
    SSL *trial = SSL_new(self->ssl_ctx);
    if (trial == NULL)
        return TLS_LOAD_NO_MEMORY;
    SSL_certs_clear(trial);
    bool is_usable = SSL_use_cert_and_key(trial, added->leaf, added->key, added->chain, 1) == 1;
    SSL_free(trial);
    if (!is_usable)
        return TLS_LOAD_BAD_CERTIFICATE;
    SSL_CTX_use_cert_and_key(self->ssl_ctx, added->leaf, added->key, added->chain, 0);
    ERR_clear_error();
    return add_names(self, added->leaf) ? TLS_LOAD_OK : TLS_LOAD_NO_MEMORY;
}

tls_load_result tls_context_seal(tls_context *self)
{
    if (self->name_count)
        qsort(self->names, self->name_count, sizeof(*self->names), compare_names);
    return self->certificate_count ? TLS_LOAD_OK : TLS_LOAD_BAD_CERTIFICATE;
}

tls_load_result tls_context_ask_certificate(tls_context *self, const uint8_t *ca, size_t ca_length)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_length = 0;
    ERR_clear_error();
    if (EVP_Digest(ca, ca_length, digest, &digest_length, EVP_sha256(), NULL) != 1)
        return TLS_LOAD_NO_MEMORY;
    SSL_CTX_set_session_id_context(self->ssl_ctx, digest, digest_length);
    SSL_CTX_set_verify(self->ssl_ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(self->ssl_ctx, take_any_certificate, NULL);
    if (ca_length == 0)
        return TLS_LOAD_OK;
    STACK_OF(X509) *authorities = tls_read_certificates(ca, ca_length);
    if (authorities == NULL)
        return TLS_LOAD_BAD_CERTIFICATE;
    X509_STORE *store = SSL_CTX_get_cert_store(self->ssl_ctx);
    for (int i = 0; i < sk_X509_num(authorities); i++) {
        X509_STORE_add_cert(store, sk_X509_value(authorities, i));
        SSL_CTX_add_client_CA(self->ssl_ctx, sk_X509_value(authorities, i));
    }
    sk_X509_pop_free(authorities, X509_free);
    ERR_clear_error();
    return TLS_LOAD_OK;
}

int64_t tls_context_expires_utc_s(const tls_context *self, size_t index)
{
    struct tm parts;
    if (index >= self->certificate_count || ASN1_TIME_to_tm(X509_get0_notAfter(self->certificates[index].leaf), &parts) != 1)
        return -1;
    return (int64_t)timegm(&parts);
}

const char *tls_last_reason(void)
{
    unsigned long code = ERR_peek_error(), last = ERR_peek_last_error();
    /* What went wrong on the way to this verdict (a key of a TLSA record that fits no signature, say) explains nothing. */
    if (ERR_GET_LIB(last) == ERR_LIB_SSL && ERR_GET_REASON(last) == SSL_R_CERTIFICATE_VERIFY_FAILED)
        code = last;
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    return text != NULL ? text : "unknown";
}
