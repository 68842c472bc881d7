"""What came of TLS with one host, as a value, in the words of RFC 8460 §4; and what OpenSSL says, put into them."""

from __future__ import annotations

from typing import Literal

import msgspec

ResultType = Literal[
    "",                             # success
    "starttls-not-supported",       # §4.3.1
    "certificate-host-mismatch",
    "certificate-expired",
    "certificate-not-trusted",
    "validation-failure",           # §4.3.3
    "tlsa-invalid",                 # §4.3.2.1
    "dnssec-invalid",
    "dane-required",
    "sts-policy-fetch-error",       # §4.3.2.2
    "sts-policy-invalid",
    "sts-webpki-invalid",
]  # fmt: skip


class ReportedPolicy(msgspec.Struct, frozen=True):
    """strings: the policy as it was published, a line each. domain: whose it is. mx: hosts that it names."""

    type: Literal["tlsa", "sts", "no-policy-found"]
    domain: str
    strings: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()


class TlsOutcome(msgspec.Struct, frozen=True):
    """One connection, or one try to make it.

    domain   of the mail that it was made for, A-labels in lower case: who is told.
    result   "": TLS came about as the policy asks. reason: for people, printable ASCII.
    mx, ip   of the host. sender: the address that we had.
    """

    domain: str
    policy: ReportedPolicy
    result: ResultType = ""
    mx: str = ""
    ip: str = ""
    sender: str = ""
    reason: str = ""


def result_of_certificate(reason: str) -> ResultType:
    """reason: OpenSSL's, of a certificate that does not do (X509_verify_cert_error_string)."""
    text = reason.lower()
    if "mismatch" in text:
        return "certificate-host-mismatch"
    if "expired" in text or "not yet valid" in text:
        return "certificate-expired"
    if "dane" in text or "certificate" not in text:
        return "validation-failure"
    return "certificate-not-trusted"


def result_of_fetch(reason: str) -> ResultType:
    """reason: why a policy of MTA-STS cannot be had (sts_fetch.py), or read (sts_policy.py)."""
    if "certificate" in reason:
        return "sts-webpki-invalid"
    return "sts-policy-fetch-error"
