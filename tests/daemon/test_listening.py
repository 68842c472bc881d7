"""Listening sockets: one per worker, nobody else's port, and nothing left behind."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from angarium.model.address import ListenAddress
from angarium.process.listening import CannotListen, Listening, listen_alone

ANY = ListenAddress("127.0.0.1", 0)


def test_every_worker_has_its_own_socket_on_one_port() -> None:
    listening = Listening(3)
    assert listening.open([ANY]) == [ANY]
    sockets = [listening.of_worker(number)[ANY] for number in range(3)]
    assert len({sock.fileno() for sock in sockets}) == 3
    assert {sock.getsockname()[1] for sock in sockets} == {listening.actual(ANY).port}
    with socket.create_connection(("127.0.0.1", listening.actual(ANY).port)):
        pass
    listening.close_all()
    assert listening.addresses == []


def test_a_unix_socket_is_shared_and_its_name_goes_away(tmp_path: Path) -> None:
    address = ListenAddress(path=str(tmp_path / "in.sock"))
    listening = Listening(2)
    listening.open([address])
    assert listening.of_worker(0)[address] is listening.of_worker(1)[address]
    assert listening.actual(address) == address
    listening.close([address])
    assert not os.path.exists(address.path)


def test_a_name_left_by_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    path = str(tmp_path / "in.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    listen_alone(ListenAddress(path=path), mode=0o600).close()
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_unix_socket_in_use_and_a_file_are_not_taken_over(tmp_path: Path) -> None:
    path = ListenAddress(path=str(tmp_path / "in.sock"))
    with listen_alone(path), pytest.raises(CannotListen, match=r"cannot listen on unix:.*: it is in use"):
        Listening(1).open([path])
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(CannotListen, match="it is in use"):
        Listening(1).open([ListenAddress(path=str(file))])
    assert file.read_text() == "precious"


def test_all_addresses_are_opened_or_none(tmp_path: Path) -> None:
    path = ListenAddress(path=str(tmp_path / "in.sock"))
    listening = Listening(2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = ListenAddress("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(CannotListen, match=f"cannot listen on {busy}: it is in use"):
            listening.open([path, ANY, busy])
    assert listening.addresses == []
    assert not os.path.exists(path.path)


def test_what_is_open_stays_open_when_asked_again() -> None:
    listening = Listening(1)
    listening.open([ANY])
    before = listening.of_worker(0)[ANY]
    assert listening.open([ANY]) == []
    assert listening.of_worker(0)[ANY] is before
    listening.close_all()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (ListenAddress("192.0.2.1", 2525), "this machine has no such address"),
        (ListenAddress(path="/no/such/place"), "No such file or directory"),
    ],
)
def test_the_reason_is_said_in_words(address: ListenAddress, reason: str) -> None:
    with pytest.raises(CannotListen, match=reason):
        Listening(1).open([address])


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 on this machine")
def test_the_ipv6_wildcard_leaves_ipv4_to_a_listener_of_its_own() -> None:
    six = ListenAddress("::", 0)
    listening = Listening(1)
    listening.open([six])
    four = ListenAddress("0.0.0.0", listening.actual(six).port)
    listening.open([four])
    assert listening.of_worker(0)[four].getsockname()[1] == listening.actual(six).port
    listening.close_all()
