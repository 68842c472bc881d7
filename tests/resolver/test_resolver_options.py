"""[resolver] as an operator writes it."""

from pathlib import Path

import msgspec
import pytest

from angarium.model.units import decode_unit
from angarium.resolver.options import Nameserver, ResolverOptions, nameservers_of, parse_nameserver

ACCEPTED = [
    ("127.0.0.1", Nameserver("127.0.0.1", 53)),
    ("127.0.0.1:5353", Nameserver("127.0.0.1", 5353)),
    ("::1", Nameserver("::1", 53)),
    ("[::1]", Nameserver("::1", 53)),
    ("[2001:db8::1]:5353", Nameserver("2001:db8::1", 5353)),
]
REFUSED = ["", "dns.example.com", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "[::1", "[::1]x", "[::1]53",
           "1.2.3:53"]


@pytest.mark.parametrize(("text", "nameserver"), ACCEPTED)
def test_nameserver_is_read(text: str, nameserver: Nameserver) -> None:
    assert parse_nameserver(text) == nameserver


@pytest.mark.parametrize("text", REFUSED)
def test_nameserver_that_is_no_address_is_refused_with_its_index(text: str) -> None:
    with pytest.raises(ValueError, match=r"^nameservers\[1\]: "):
        ResolverOptions(nameservers=["127.0.0.1", text])


REFUSED_TABLES = [
    ({"timeout": "0s"}, "timeout: 0s is not between 50ms and 1m"),
    ({"tries": 0}, "tries: 0 is not between 1 and 10"),
    ({"min_ttl": "10m"}, "min_ttl: 10m is not between 1s and 5m"),
    ({"min_ttl": "1m", "max_ttl": "30s"}, "max_ttl: 30s is not between 1m and 7d"),
    ({"trust_ad": True}, "trust_ad: needs nameservers"),
    ({"server": ["127.0.0.1"]}, "unknown field `server`"),
]


@pytest.mark.parametrize(("table", "text"), REFUSED_TABLES)
def test_bad_value_is_refused_with_its_key(table: dict[str, object], text: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(table, ResolverOptions, dec_hook=decode_unit)
    assert text in str(caught.value)


def test_without_nameservers_those_of_resolv_conf_are_taken(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("# nameserver 192.0.2.9\nsearch example.com\nnameserver 192.0.2.1\nnameserver nonsense\n"
                    "nameserver 2001:db8::1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n")
    found = nameservers_of(ResolverOptions(), conf)
    assert [str(server) for server in found] == ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"]


def test_without_resolv_conf_the_loopback_is_asked(tmp_path: Path) -> None:
    assert nameservers_of(ResolverOptions(), tmp_path / "none") == (Nameserver("127.0.0.1", 53),)


def test_configured_nameservers_win_over_resolv_conf(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 192.0.2.1\n")
    assert nameservers_of(ResolverOptions(nameservers=["[::1]:5353"]), conf) == (Nameserver("::1", 5353),)
