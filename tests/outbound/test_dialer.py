"""Which host is tried when: RFC 5321 §5.1, with a memory of the broken ones."""

from __future__ import annotations

import asyncio
import os

import pytest

from angarium.events.journal import Journal
from angarium.model.plan import Host, Site, Source
from angarium.outbound.dialer import BROKEN_HOSTS_MAX, Dialer, remote_name
from angarium.outbound.options import OutboundOptions

ANY = Source("default")


def dialer() -> Dialer:
    return Dialer(asyncio.new_event_loop(), OutboundOptions(), Journal(os.open(os.devnull, os.O_WRONLY)))


def names(found: list[tuple[Host, str]]) -> list[str]:
    return [f"{host.name}/{address}" for host, address in found]


def test_by_rising_preference_with_all_addresses_of_a_host_together() -> None:
    site = Site(
        "s", "smtp", (Host("c", ("3",), 25, 20), Host("a", ("1", "2"), 25, 10), Host("d", ("4",), 25, 20))
    )
    for _ in range(20):
        found = names(dialer().targets(site, ANY))
        assert found[:2] == ["a/1", "a/2"]
        assert sorted(found[2:]) == ["c/3", "d/4"]


def test_equal_hosts_are_shuffled() -> None:
    site = Site("s", "smtp", tuple(Host(name, ("1",), 25, 10) for name in "abcd"))
    assert len({tuple(names(dialer().targets(site, ANY))) for _ in range(200)}) > 12


def test_broken_hosts_come_last_but_are_not_given_up() -> None:
    site = Site("s", "smtp", (Host("a", ("1",), 25, 10), Host("b", ("2",), 25, 20)))
    here = dialer()
    here.remember_broken(("a", "1", 25))
    assert names(here.targets(site, ANY)) == ["b/2", "a/1"]
    here.broken[("a", "1", 25)] = 0.0
    assert names(here.targets(site, ANY)) == ["a/1", "b/2"]


def test_memory_of_broken_hosts_is_bounded() -> None:
    here = dialer()
    for number in range(BROKEN_HOSTS_MAX + 10):
        here.remember_broken((str(number), "", 25))
    assert len(here.broken) == BROKEN_HOSTS_MAX


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("192.0.2.7", ["a/192.0.2.1"]),
        ("2001:db8::7", ["a/2001:db8::1"]),
        ("", ["a/2001:db8::1", "a/192.0.2.1"]),
    ],
)
def test_only_addresses_of_the_family_of_the_source(address: str, kept: list[str]) -> None:
    site = Site("s", "smtp", (Host("a", ("2001:db8::1", "192.0.2.1")),))
    assert names(dialer().targets(site, Source("x", address))) == kept


def test_remote_name() -> None:
    assert remote_name("mx.example", "192.0.2.1", 25) == "mx.example[192.0.2.1]:25"
    assert remote_name("192.0.2.1", "192.0.2.1", 25) == "[192.0.2.1]:25"
