"""Which names and addresses are this machine."""

from __future__ import annotations

import pytest

from angarium.routing.ourselves import Ourselves

ROWS: list[tuple[list[tuple[str, int]], str, bool, str]] = [
    ([], "127.0.0.1", False, "who listens nowhere cannot be reached"),
    ([("192.0.2.1", 25)], "192.0.2.1", True, "a listener's own address"),
    ([("192.0.2.1", 25)], "192.0.2.2", False, "not its neighbour"),
    ([("192.0.2.1", 2525)], "192.0.2.1", False, "mail exchangers are dialled at 25"),
    ([("2001:DB8:0::1", 25)], "2001:db8::1", True, "another spelling of IPv6"),
    ([("0.0.0.0", 25)], "127.0.0.1", True, "any address of the machine"),
    ([("0.0.0.0", 25)], "127.8.9.10", True, "all of 127/8 is local"),
    ([("0.0.0.0", 25)], "192.0.2.1", False, "not one of other machines"),
    ([("0.0.0.0", 2525)], "127.0.0.1", False, "any address, but another port"),
    ([("0.0.0.0", 25)], "2001:db8::1", False, "IPv4 only"),
    ([("::", 25)], "127.0.0.1", False, "a listener on :: takes IPv6 only"),
    ([("::", 25), ("0.0.0.0", 25)], "127.0.0.1", True, "both families"),
    ([("::", 25)], "2001:db8::1", False, "not another machine's"),
]


@pytest.mark.parametrize(("listening", "address", "is_ours", "reason"), ROWS, ids=[row[3] for row in ROWS])
def test_address_is_ours_if_a_connection_would_reach_us(
    listening: list[tuple[str, int]], address: str, is_ours: bool, reason: str
) -> None:
    assert Ourselves([], listening).has_address(address) is is_ours


def test_names_compare_without_case_and_final_dot() -> None:
    ourselves = Ourselves(["MX1.Example.com."])
    assert ourselves.has_name("mx1.example.com")
    assert not ourselves.has_name("mx2.example.com")
