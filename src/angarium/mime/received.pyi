"""The Received field, as octets."""

def received_field(
    helo: bytes, address: bytes, hostname: bytes, protocol: bytes, message_id: bytes, forward_path: bytes, utc_ms: int,
    tls_version: bytes | None = None, tls_cipher: bytes = b"", priority: bytes | None = None, solicit: bytes = b"",
) -> bytes:
    """One Received field with its CRLF, folded (RFC 5321 §4.4).

    address       "192.0.2.1", "IPv6:2001:db8::1", or empty for a unix socket.
    protocol      "SMTP", "ESMTP", "ESMTPS", "UTF8SMTP" or "UTF8SMTPS" (RFC 3848, RFC 6531 §3.7.3).
    message_id    13 characters.
    forward_path  of the only recipient; empty when there are several: others must not be told (§7.2).
    tls_version   "TLSv1.3", and the cipher's name with it, as a comment; None: in clear.
    priority      the value of MT-PRIORITY (RFC 6710 §7), None: none was said.
    solicit       the keywords of SOLICIT, a comment behind the protocol (RFC 3865 §2.6); more than 900 octets are left out, for
                  they do not fit into a line (RFC 5322 §2.1.1).
    Values must be free of CR, LF and NUL. Raises ValueError for an id of another length.
    """
