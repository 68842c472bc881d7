"""Next hops as operators write them."""

import pytest

from angarium.routing.next_hop import NextHop, parse_next_hop

ACCEPTED = [
    ("mx", NextHop("mx", "mx"), "by MX"),
    ("smtp://192.0.2.1:26", NextHop("smtp://192.0.2.1:26", "smtp", "192.0.2.1", 26, is_numeric=True), "IPv4"),
    ("smtp://[FE80::1]:25", NextHop("smtp://[fe80::1]:25", "smtp", "fe80::1", 25, is_numeric=True), "IPv6"),
    ("smtp://[::1]", NextHop("smtp://[::1]:25", "smtp", "::1", 25, is_numeric=True), "SMTP has its own port"),
    ("smtp://Relay.Example", NextHop("smtp://relay.example:25", "smtp", "relay.example", 25), "name"),
    ("smtp://ü.example", NextHop("smtp://xn--tda.example:25", "smtp", "xn--tda.example", 25), "U-label"),
    ("lmtp://127.0.0.1:24", NextHop("lmtp://127.0.0.1:24", "lmtp", "127.0.0.1", 24, is_numeric=True), "LMTP"),
    ("lmtp+unix:/run/lmtp", NextHop("lmtp+unix:/run/lmtp", "lmtp+unix", path="/run/lmtp"), "unix socket"),
    ("maildir:/srv/{domain}/{local}",
     NextHop("maildir:/srv/{domain}/{local}", "maildir", path="/srv/{domain}/{local}"), "Maildir"),
    ("maildir:/srv/all", NextHop("maildir:/srv/all", "maildir", path="/srv/all"), "one Maildir for all"),
]
REFUSED = [
    ("", "nothing"),
    ("MX", "case counts"),
    ("relay.example", "without a protocol"),
    ("smtp:relay.example", "slashes missing"),
    ("http://relay.example", "not a mail protocol"),
    ("smtp://", "no host"),
    ("smtp://:25", "no host but a port"),
    ("smtp://relay.example:", "no port behind the colon"),
    ("smtp://relay.example:0", "port 0"),
    ("smtp://relay.example:65536", "port too large"),
    ("smtp://relay.example:+25", "a sign"),
    ("smtp://relay.example/", "a path"),
    ("smtp://user@relay.example", "a user"),
    ("smtp://2001:db8::1:25", "IPv6 without brackets: where does the port start?"),
    ("smtp://[::1", "bracket not closed"),
    ("smtp://[::1]25", "colon missing"),
    ("smtp://[relay.example]:25", "a name in brackets"),
    ("smtp://192.0.2.256:25", "an address that is none"),
    ("smtp://a b.example:25", "space"),
    ("lmtp://relay.example", "LMTP has no port of its own, RFC 2033 §5"),
    ("lmtp+unix:run/lmtp", "relative path"),
    ("lmtp+unix:/" + "x" * 107, "longer than a socket's name may be"),
    ("maildir:mail/{local}", "relative path"),
    ("maildir:/srv/{user}", "unknown placeholder"),
    ("maildir:/srv/{local", "half a placeholder"),
    ("maildir:/srv/../{local}", "dots lead out"),
    ("maildir:/srv/\n{local}", "control character"),
]


@pytest.mark.parametrize(("text", "next_hop", "reason"), ACCEPTED, ids=[row[2] for row in ACCEPTED])
def test_next_hop_is_read(text: str, next_hop: NextHop, reason: str) -> None:
    assert parse_next_hop(text) == next_hop


@pytest.mark.parametrize(("text", "reason"), REFUSED, ids=[row[1] for row in REFUSED])
def test_bad_next_hop_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError):
        parse_next_hop(text)


@pytest.mark.parametrize("text", [row[0] for row in ACCEPTED])
def test_normal_form_is_a_fixed_point(text: str) -> None:
    once = parse_next_hop(text)
    assert parse_next_hop(once.text) == once
