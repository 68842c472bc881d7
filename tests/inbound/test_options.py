"""[[listener]] tables: what is refused, under which key."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from angarium.admission.options import AdmissionOptions
from angarium.inbound.options import ListenerOptions
from angarium.model.units import decode_unit


def decode(**table: Any) -> ListenerOptions:
    return msgspec.convert({"address": "127.0.0.1:2525", **table}, ListenerOptions, dec_hook=decode_unit)


def test_an_address_is_enough() -> None:
    options = decode()
    assert options.address.port == 2525
    assert options.max_message_octets == 50 << 20
    assert options.max_recipients == 1000
    assert options.relay_from == options.proxy_from == []


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"protocol": "uucp"}, "$.protocol"),
        ({"relay_form": []}, "unknown field `relay_form`"),
        ({"relay_from": "127.0.0.0/8"}, "$.relay_from"),
        ({"relay_from": ["127.0.0.0/8", "127.0.0.1/8"]}, "relay_from[1]: 127.0.0.1/8 has host bits set"),
        ({"relay_from": ["localhost"]}, "relay_from[0]: 'localhost'"),
        ({"relay_to": ["a.example", ""]}, 'relay_to[1]: "" is not a domain'),
        ({"relay_to": [".."]}, 'relay_to[0]: ".." is not a domain'),
        ({"relay_to": ["a b.example"]}, "relay_to[0]"),
        ({"relay_to": ["user@a.example"]}, "relay_to[0]"),
        ({"max_message_octets": 1}, "max_message_octets: between"),
        ({"max_recipients": 99}, "max_recipients: between 100"),
        ({"max_line_octets": 999}, "max_line_octets: between 1000"),
        ({"max_sessions": 0}, "max_sessions: between"),
        ({"max_errors": 0}, "max_errors: between"),
        ({"command_timeout": "0s"}, "command_timeout: between"),
        ({"command_timeout": 300}, "$.command_timeout"),
        ({"data_timeout": "2h"}, "data_timeout: between"),
        ({"data_octets_per_s": 0}, "data_octets_per_s: between"),
    ],
)
def test_bad_tables_are_refused_with_their_key(table: dict[str, Any], said: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        decode(**table)
    assert said in str(refused.value)


def test_a_crowd_of_slow_clients_leaves_most_of_a_default_listener_to_others() -> None:
    """The default was as many as the crowd that mail must pass beside: it took every place."""
    crowd = 20_000
    listener, admission = decode(address="127.0.0.1:25"), AdmissionOptions()
    assert admission.max_sessions == 0, "no narrower bound of the machine"
    ends_below = admission.tight.from_percent * 3 // 4  # of a high load
    assert crowd * 100 // listener.max_sessions < ends_below


def test_domains_are_compared_in_lower_case_and_both_forms() -> None:
    domains = ["Example.COM", ".Sub.example", "bücher.example", "xn--caf-dma.example", "my_host"]
    domains.append("[192.0.2.1]")
    options = decode(relay_to=domains)
    assert options.domains == {
        b"example.com", b".sub.example", "bücher.example".encode(), b"xn--bcher-kva.example",
        b"xn--caf-dma.example", "café.example".encode(), b"my_host", b"[192.0.2.1]",
    }  # fmt: skip
