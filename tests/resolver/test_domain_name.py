"""What is a domain name for the DNS, and what U-labels become."""

import pytest

from angarium.resolver.domain_name import is_host_name, to_a_labels

ACCEPTED = [
    (b"example.com", "example.com", "plain"),
    (b"EXAMPLE.Com", "example.com", "case does not count, RFC 4343"),
    (b"example.com.", "example.com", "the root's dot is dropped"),
    (b"localhost", "localhost", "one label is a name"),
    (b"_dmarc.example.com", "_dmarc.example.com", "underscores are seen in mail hosts"),
    (b"xn--bcher-kva.example", "xn--bcher-kva.example", "an A-label passes as it is"),
    ("bücher.example".encode(), "xn--bcher-kva.example", "RFC 5891 §4: U-label to A-label"),
    ("BÜCHER.example".encode(), "xn--bcher-kva.example", "UTS #46 maps case"),
    ("例え。テスト".encode(), "xn--r8jz45g.xn--zckzah", "UTS #46: the ideographic full stop"),
    (b"a" * 63 + b".example", "a" * 63 + ".example", "63 octets a label, RFC 1035 §2.3.4"),
    (b"3com.com", "3com.com", "RFC 1123 §2.1: a label may start with a digit"),
]
REFUSED = [
    (b"", "nothing"),
    (b".", "the root has no mail"),
    (b"a..b", "empty label"),
    (b".example.com", "empty first label"),
    (b"-a.example", "RFC 1123 §2.1: no hyphen in front"),
    (b"a-.example", "nor behind"),
    (b"a b.example", "space"),
    (b"a\\032b.example", "an escape of zone files is not one of names"),
    (b"a\nb.example", "control octet"),
    (b"192.0.2.1", "an address without brackets is not a domain, RFC 5321 §4.1.3"),
    (b"[192.0.2.1]", "nor is one with"),
    (b"a" * 64 + b".example", "label over 63 octets"),
    (b"a." * 127 + b"example", "name over 253 octets"),
    (b"\xff\xfe.example", "not UTF-8"),
    ("a\u0085.example".encode(), "a control character"),
    (("ü" * 60 + ".example").encode(), "A-label over 63 octets"),
]


@pytest.mark.parametrize(("domain", "name", "reason"), ACCEPTED, ids=[row[2] for row in ACCEPTED])
def test_domain_becomes_a_labels_in_lower_case(domain: bytes, name: str, reason: str) -> None:
    assert to_a_labels(domain) == name


@pytest.mark.parametrize(("domain", "reason"), REFUSED, ids=[row[1] for row in REFUSED])
def test_what_is_no_domain_is_refused(domain: bytes, reason: str) -> None:
    with pytest.raises(ValueError):
        to_a_labels(domain)


def test_newline_behind_a_name_is_not_overlooked() -> None:
    assert not is_host_name("example.com\n")
