"""Exim with us as its smarthost."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import clean_relay
from interop.exim import Exim
from interop.test_tls_clients import relay_under_tls
from relay_process import wait_for

MESSAGE = b"From: me@x.example\nSubject: hello\n\nbody\n.\n..dots\n"


@pytest.fixture
def root() -> Iterator[Path]:
    """Its user must get at it, which pytest's own directories do not allow."""
    with tempfile.TemporaryDirectory(prefix="exim-", dir="/var/tmp") as text:
        yield Path(text)


def test_exim_sends_by_bdat_in_one_pipelined_group(tmp_path: Path, root: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        talk = Exim(root, relay.port).send(MESSAGE, "a@y.example", "b@y.example")
        (delivery,) = hop.wait_for_count(1)
        assert delivery.to == ["a@y.example", "b@y.example"]
        assert delivery.message.endswith(b"\r\n\r\nbody\r\n.\r\n..dots\r\n")
        assert "SMTP+> BDAT" in talk, talk
        assert " Completed" in talk, talk


def test_exim_sends_by_data_without_chunking(tmp_path: Path, root: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        talk = Exim(root, relay.port, "hosts_try_chunking =").send(MESSAGE, "a@y.example")
        (delivery,) = hop.wait_for_count(1)
        assert delivery.message.endswith(b"\r\n\r\nbody\r\n.\r\n..dots\r\n")
        assert "SMTP>> DATA" in talk, talk


def test_exim_sends_under_tls(tmp_path: Path, root: Path) -> None:
    with relay_under_tls(tmp_path) as (relay, hop):
        talk = Exim(root, relay.port, "hosts_require_tls = *").send(MESSAGE, "a@y.example")
        hop.wait_for_count(1)
        assert "SMTP>> STARTTLS" in talk, talk
        assert wait_for(lambda: relay.events("received"), "it is logged")[0]["protocol"] == "ESMTPS"


def test_exim_is_told_when_it_may_not_relay(tmp_path: Path, root: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route, listener='relay_to = ["y.example"]') as relay:
        talk = Exim(root, relay.port).send(MESSAGE, "a@y.example", "b@z.example")
        (delivery,) = hop.wait_for_count(1)
        assert delivery.to == ["a@y.example"]
        assert "550 5.7.1 Relaying denied" in talk, talk
