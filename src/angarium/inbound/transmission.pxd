# The transmission type of a message (RFC 3848 §1, RFC 6531 §3.7.3): what Received and the journal call how it came.
cdef inline const char *transmission_type(bint is_ehlo, bint is_smtputf8, bint is_secure, bint is_authenticated) noexcept:
    if is_smtputf8:
        if is_secure:
            return b"UTF8SMTPSA" if is_authenticated else b"UTF8SMTPS"
        return b"UTF8SMTPA" if is_authenticated else b"UTF8SMTP"
    if not is_ehlo:
        return b"SMTP"
    if is_secure:
        return b"ESMTPSA" if is_authenticated else b"ESMTPS"
    return b"ESMTPA" if is_authenticated else b"ESMTP"


cdef inline const char *lmtp_transmission_type(bint is_smtputf8, bint is_secure, bint is_authenticated) noexcept:
    if is_smtputf8:
        if is_secure:
            return b"UTF8LMTPSA" if is_authenticated else b"UTF8LMTPS"
        return b"UTF8LMTPA" if is_authenticated else b"UTF8LMTP"
    if is_secure:
        return b"LMTPSA" if is_authenticated else b"LMTPS"
    return b"LMTPA" if is_authenticated else b"LMTP"
