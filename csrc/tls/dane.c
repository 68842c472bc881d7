#include "tls/dane.h"

#include <limits.h>

#include <openssl/err.h>
#include <openssl/x509.h>

enum { USAGE_TA = 2, USAGE_EE = 3 };
enum { SELECTOR_CERTIFICATE = 0, SELECTOR_KEY = 1 };
enum { MATCHING_FULL = 0, MATCHING_SHA256 = 1, MATCHING_SHA512 = 2 };

static bool is_whole(const tls_dane_record *record)
{
    const uint8_t *at = record->data;
    bool is_read;
    if (record->length == 0 || record->length > LONG_MAX)
        return false;
    if (record->selector == SELECTOR_CERTIFICATE) {
        X509 *certificate = d2i_X509(NULL, &at, (long)record->length);
        /* Without a key that can be used OpenSSL could not compare it, nor build a chain to it. */
        is_read = certificate != NULL && X509_get0_pubkey(certificate) != NULL;
        X509_free(certificate);
    } else {
        EVP_PKEY *key = d2i_PUBKEY(NULL, &at, (long)record->length);
        is_read = key != NULL;
        EVP_PKEY_free(key);
    }
    ERR_clear_error();
    return is_read && at == record->data + record->length;
}

bool tls_dane_is_usable(const tls_dane_record *record)
{
    if (record->usage != USAGE_TA && record->usage != USAGE_EE)
        return false;
    if (record->selector > SELECTOR_KEY)
        return false;
    switch (record->matching) {
    case MATCHING_FULL:
        return is_whole(record);
    case MATCHING_SHA256:
        return record->length == 32;
    case MATCHING_SHA512:
        return record->length == 64;
    default:
        return false;
    }
}
