#include "tls/session.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "tls/context_parts.h"

struct tls_session {
    SSL *ssl;
    const uint8_t *in;          /* the caller's, during tls_session_receive() only */
    size_t in_length;
    octets *out;
    const char *failure;
    char *text;
};

/* A flight of a handshake with a chain of two certificates. */
#define FIRST_OUTPUT_OCTETS 4096
/* A record and its frame. */
#define OUTPUT_OCTETS 512

/* The BIO that OpenSSL reads and writes by: no buffer of its own. */

static int session_bio_read(BIO *bio, char *into, size_t size, size_t *got)
{
    tls_session *self = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (self->in_length == 0) {
        BIO_set_retry_read(bio);
        *got = 0;
        return 0;
    }
    if (size > self->in_length)
        size = self->in_length;
    memcpy(into, self->in, size);
    self->in += size;
    self->in_length -= size;
    *got = size;
    return 1;
}

static int session_bio_write(BIO *bio, const char *data, size_t size, size_t *written)
{
    tls_session *self = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (self->out == NULL)
        self->out = octets_new(SSL_is_init_finished(self->ssl) ? size + OUTPUT_OCTETS : FIRST_OUTPUT_OCTETS);
    if (self->out == NULL || octets_append(&self->out, (const uint8_t *)data, size) != 0)
        return 0;
    *written = size;
    return 1;
}

static long session_bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *session_bio_method(void)
{
    static BIO_METHOD *method;
    if (method == NULL && (method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "angarium")) != NULL) {
        BIO_meth_set_read_ex(method, session_bio_read);
        BIO_meth_set_write_ex(method, session_bio_write);
        BIO_meth_set_ctrl(method, session_bio_control);
    }
    return method;
}

tls_session *tls_session_over(SSL *ssl, char *text)
{
    BIO_METHOD *method = session_bio_method();
    tls_session *self = calloc(1, sizeof(*self));
    BIO *bio = method != NULL && self != NULL ? BIO_new(method) : NULL;
    if (bio == NULL) {
        free(self);
        return NULL;
    }
    self->ssl = ssl;
    self->text = text;
    self->failure = "";
    BIO_set_data(bio, self);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    return self;
}

SSL *tls_session_ssl(const tls_session *self)
{
    return self->ssl;
}

tls_session *tls_session_new(tls_context *context)
{
    SSL *ssl = SSL_new(context->ssl_ctx);
    tls_session *self = ssl != NULL ? tls_session_over(ssl, NULL) : NULL;
    if (self == NULL) {
        SSL_free(ssl);
        ERR_clear_error();
        return NULL;
    }
    SSL_set_accept_state(ssl);
    return self;
}

void tls_session_free(tls_session *self)
{
    if (self == NULL)
        return;
    /* Most peers end the connection without close_notify: that is no reason not to resume the session. */
    if (self->failure[0] == 0)
        SSL_set_shutdown(self->ssl, SSL_get_shutdown(self->ssl) | SSL_SENT_SHUTDOWN);
    SSL_free(self->ssl);
    octets_unref(self->out);
    free(self->text);
    free(self);
}

/* What somebody else left in the thread's queue would be taken for ours. There is hardly ever anything; to clear the empty
 * queue costs eight times what it costs to look. */
static void forget_errors(void)
{
    if (ERR_peek_error() != 0)
        ERR_clear_error();
}

tls_receive_result tls_session_receive(tls_session *self, const uint8_t *in, size_t length,
                                       uint8_t *plain, size_t capacity, size_t *plain_length)
{
    size_t got;
    *plain_length = 0;
    /* OpenSSL takes more octets behind some failures, and would wait for the rest of them. */
    if (self->failure[0] != 0)
        return TLS_RECEIVE_FAILED;
    self->in = in;
    self->in_length = length;
    forget_errors();
    while (*plain_length < capacity) {
        if (SSL_read_ex(self->ssl, plain + *plain_length, capacity - *plain_length, &got) != 1)
            break;
        *plain_length += got;
        /* Nothing left and nothing begun: to ask once more would only make OpenSSL say so. */
        if (self->in_length == 0 && !SSL_has_pending(self->ssl))
            return TLS_RECEIVE_MORE;
    }
    int error = SSL_get_error(self->ssl, 0);
    if (error == SSL_ERROR_WANT_READ && self->in_length == 0)
        return TLS_RECEIVE_MORE;
    if (error == SSL_ERROR_ZERO_RETURN)
        return TLS_RECEIVE_CLOSED;
    self->failure = tls_last_reason();
    return TLS_RECEIVE_FAILED;
}

int tls_session_send(tls_session *self, const uint8_t *plain, size_t length)
{
    size_t written;
    forget_errors();
    if (length == 0 || (SSL_write_ex(self->ssl, plain, length, &written) == 1 && written == length))
        return 0;
    self->failure = tls_last_reason();
    return -1;
}

void tls_session_close(tls_session *self)
{
    if (SSL_is_init_finished(self->ssl) && self->failure[0] == 0) {
        ERR_clear_error();
        SSL_shutdown(self->ssl);
        ERR_clear_error();
    }
}

octets *tls_session_take_output(tls_session *self)
{
    octets *output = self->out;
    self->out = NULL;
    return output;
}

bool tls_session_is_established(const tls_session *self)
{
    return SSL_is_init_finished(self->ssl);
}

bool tls_session_is_resumed(const tls_session *self)
{
    return SSL_session_reused(self->ssl);
}

bool tls_session_has_certificate(const tls_session *self)
{
    return SSL_get_certificate(self->ssl) != NULL;
}

const char *tls_session_failure(const tls_session *self)
{
    return self->failure;
}

const char *tls_session_version(const tls_session *self)
{
    return SSL_get_version(self->ssl);
}

const char *tls_session_cipher(const tls_session *self)
{
    const SSL_CIPHER *cipher = SSL_get_current_cipher(self->ssl);
    const char *name = cipher != NULL ? SSL_CIPHER_standard_name(cipher) : NULL;
    return name != NULL ? name : "";
}

const char *tls_session_cipher_name(const tls_session *self)
{
    const SSL_CIPHER *cipher = SSL_get_current_cipher(self->ssl);
    return cipher != NULL ? SSL_CIPHER_get_name(cipher) : "";
}

int tls_session_cipher_bits(const tls_session *self)
{
    const SSL_CIPHER *cipher = SSL_get_current_cipher(self->ssl);
    return cipher != NULL ? SSL_CIPHER_get_bits(cipher, NULL) : 0;
}

bool tls_session_peer_fingerprint(const tls_session *self, uint8_t *fingerprint)
{
    X509 *peer = SSL_get0_peer_certificate(self->ssl);
    unsigned length = 0;
    return peer != NULL && X509_digest(peer, EVP_sha256(), fingerprint, &length) == 1 && length == 32;
}

bool tls_session_peer_is_verified(const tls_session *self)
{
    return SSL_get0_peer_certificate(self->ssl) != NULL && SSL_get_verify_result(self->ssl) == X509_V_OK;
}

size_t tls_session_peer_subject(const tls_session *self, char *text, size_t size)
{
    X509 *peer = SSL_get0_peer_certificate(self->ssl);
    BIO *bio = peer != NULL ? BIO_new(BIO_s_mem()) : NULL;
    char *data = NULL;
    size_t length = 0;
    /* RFC2253 without raw octets above 127: control octets come out escaped, so the text may go into a log. */
    if (bio != NULL && X509_NAME_print_ex(bio, X509_get_subject_name(peer), 0, XN_FLAG_RFC2253) >= 0) {
        length = (size_t)BIO_get_mem_data(bio, &data);
        if (length > size)
            length = size;
        memcpy(text, data, length);
    }
    BIO_free(bio);
    ERR_clear_error();
    return length;
}

bool tls_session_peer_key_fingerprint(const tls_session *self, uint8_t *fingerprint)
{
    X509 *peer = SSL_get0_peer_certificate(self->ssl);
    unsigned char *der = NULL;
    unsigned made = 0;
    int length = peer != NULL ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(peer), &der) : 0;
    bool is_made = length > 0 && EVP_Digest(der, (size_t)length, fingerprint, &made, EVP_sha256(), NULL) == 1 && made == 32;
    OPENSSL_free(der);
    ERR_clear_error();
    return is_made;
}

static size_t last_entry(const X509_NAME *name, int nid, char *text, size_t size)
{
    int last = -1;
    for (int at = -1; (at = X509_NAME_get_index_by_NID((X509_NAME *)name, nid, at)) >= 0;)
        last = at;
    if (last < 0)
        return 0;
    unsigned char *utf8 = NULL;
    int length = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, last)));
    bool is_good = length > 0 && (size_t)length <= size && memchr(utf8, 0, (size_t)length) == NULL;
    if (is_good)
        memcpy(text, utf8, (size_t)length);
    OPENSSL_free(utf8);
    ERR_clear_error();
    return is_good ? (size_t)length : 0;
}

size_t tls_session_peer_common_name(const tls_session *self, char *text, size_t size)
{
    X509 *peer = SSL_get0_peer_certificate(self->ssl);
    return peer != NULL ? last_entry(X509_get_subject_name(peer), NID_commonName, text, size) : 0;
}

size_t tls_session_peer_issuer_name(const tls_session *self, char *text, size_t size)
{
    X509 *peer = SSL_get0_peer_certificate(self->ssl);
    size_t length = peer != NULL ? last_entry(X509_get_issuer_name(peer), NID_commonName, text, size) : 0;
    return length == 0 && peer != NULL ? last_entry(X509_get_issuer_name(peer), NID_organizationName, text, size) : length;
}

static bool is_printable(const uint8_t *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (text[i] <= ' ' || text[i] > 126)
            return false;
    return true;
}

tls_name_kind tls_session_peer_name(const tls_session *self, size_t index, char *text, size_t size)
{
    X509 *peer = SSL_get0_peer_certificate(self->ssl);
    GENERAL_NAMES *names = peer != NULL ? X509_get_ext_d2i(peer, NID_subject_alt_name, NULL, NULL) : NULL;
    tls_name_kind kind = TLS_NAME_NONE;
    for (int i = 0; kind == TLS_NAME_NONE && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_DNS && name->type != GEN_EMAIL)
            continue;
        const uint8_t *data = ASN1_STRING_get0_data(name->d.ia5);
        size_t length = (size_t)ASN1_STRING_length(name->d.ia5);
        /* A NUL inside would make two different names look the same. */
        if (length == 0 || length >= size || !is_printable(data, length) || index-- > 0)
            continue;
        memcpy(text, data, length);
        text[length] = 0;
        kind = name->type == GEN_DNS ? TLS_NAME_DNS : TLS_NAME_EMAIL;
    }
    GENERAL_NAMES_free(names);
    ERR_clear_error();
    return kind;
}

bool tls_session_exporter(const tls_session *self, uint8_t *into)
{
    static const char LABEL[] = "EXPORTER-Channel-Binding";
    if (!SSL_is_init_finished(self->ssl)
            || (SSL_version(self->ssl) < TLS1_3_VERSION && SSL_get_extms_support(self->ssl) != 1))
        return false;
    bool is_made = SSL_export_keying_material(self->ssl, into, 32, LABEL, sizeof(LABEL) - 1, (const uint8_t *)"", 0, 1) == 1;
    ERR_clear_error();
    return is_made;
}

size_t tls_session_server_end_point(const tls_session *self, uint8_t *into)
{
    X509 *servers = SSL_is_server(self->ssl) ? SSL_get_certificate(self->ssl) : SSL_get0_peer_certificate(self->ssl);
    int digest_nid = NID_undef;
    unsigned length = 0;
    if (servers == NULL || SSL_session_reused(self->ssl) || !SSL_is_init_finished(self->ssl))
        return 0;
    X509_get_signature_info(servers, &digest_nid, NULL, NULL, NULL);
    /* RFC 5929 §4.1: the hash of the certificate's signature; SHA-256 in place of MD5 and SHA-1. */
    const EVP_MD *digest = digest_nid != NID_undef ? EVP_get_digestbynid(digest_nid) : NULL;
    if (digest_nid == NID_md5 || digest_nid == NID_sha1)
        digest = EVP_sha256();
    if (digest == NULL || X509_digest(servers, digest, into, &length) != 1)
        length = 0;
    ERR_clear_error();
    return length;
}
