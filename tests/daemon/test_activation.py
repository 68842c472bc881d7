"""Sockets passed by a service manager: whom they are for, which are taken, and what a listener makes of them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from angarium.inbound.socket_options import SocketOptions
from angarium.model.address import ListenAddress
from angarium.process import activation
from angarium.process.activation import Passed, passed_sockets
from angarium.process.listening import CannotListen, Listening


def environment(count: object, names: str | None = None, pid: int | None = None) -> dict[str, str]:
    made = {"LISTEN_PID": str(os.getpid() if pid is None else pid), "LISTEN_FDS": str(count)}
    return made | ({} if names is None else {"LISTEN_FDNAMES": names})


@pytest.fixture
def descriptors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[socket.socket]]:
    """Five sockets with neighbouring descriptors, as if they began at 3: TCP, unix, UDP, not listening, abstract."""
    made = [socket.create_server(("127.0.0.1", 0))]
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_STREAM):
        made.append(socket.socket(socket.AF_UNIX, kind))
    made[1].bind(str(tmp_path / "in.sock"))
    made[4].bind(f"\0angarium-test-{os.getpid()}")
    for index in (1, 4):
        made[index].listen()
    first = 200
    for index, sock in enumerate(made):
        os.dup2(sock.fileno(), first + index, inheritable=True)
    monkeypatch.setattr(activation, "FIRST_FD", first)
    yield made
    for index, sock in enumerate(made):
        sock.close()
        with contextlib.suppress(OSError):
            os.close(first + index)


def test_listening_stream_sockets_are_taken_with_their_names(descriptors: list[socket.socket]) -> None:
    passed = passed_sockets(environment(5, "smtp:unknown:a:b:c"))
    assert [(each.name, str(each.address)) for each in passed] == [
        ("smtp", f"127.0.0.1:{descriptors[0].getsockname()[1]}"),
        ("", f"unix:{descriptors[1].getsockname()}"),
    ]
    assert not any(os.get_inheritable(each.sock.fileno()) for each in passed)
    for each in passed:
        each.sock.close()


@pytest.mark.parametrize(
    "variables",
    [
        {},
        environment(5, pid=os.getppid()),
        environment("-1"),
        environment("two"),
        {"LISTEN_FDS": "5"},
    ],
)
def test_what_is_not_for_this_process_is_left_alone(
    descriptors: list[socket.socket], variables: dict[str, str]
) -> None:
    assert passed_sockets(variables) == []
    assert not {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} & set(variables)
    os.fstat(200)


def passed(name: str = "", *, reuse: bool = False) -> Passed:
    sock = socket.socket()
    if reuse:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return Passed(name, ListenAddress(*sock.getsockname()), sock)


def test_a_socket_serves_the_listener_of_its_address_and_is_shared() -> None:
    given = passed()
    listening = Listening(3, [given])
    assert listening.open([given.address]) == [given.address]
    assert all(listening.of_worker(number)[given.address] is given.sock for number in range(3))
    assert listening.is_shared(given.address)
    assert listening.unused == []
    listening.close_all()


def test_a_socket_serves_the_listener_of_its_name_whatever_the_address() -> None:
    given, other = passed("front"), passed()
    here = ListenAddress("0.0.0.0", 25)
    listening = Listening(2, [other, given])
    listening.open([here], {here: SocketOptions(name="front")})
    assert listening.of_worker(1)[here] is given.sock
    assert listening.actual(here) == given.address
    assert listening.unused == [other]
    listening.close_all()


def test_a_name_that_was_not_passed_is_refused() -> None:
    here = ListenAddress("127.0.0.1", 0)
    listening = Listening(1, [passed("back")])
    with pytest.raises(CannotListen, match='the service manager passed no socket "front"'):
        listening.open([here], {here: SocketOptions(name="front")})
    assert listening.addresses == []
    listening.close_all()


def test_with_reuseport_every_worker_gets_its_own() -> None:
    given = passed(reuse=True)
    listening = Listening(3, [given])
    listening.open([given.address])
    sockets = [listening.of_worker(number)[given.address] for number in range(3)]
    assert sockets[0] is given.sock
    assert len({sock.fileno() for sock in sockets}) == 3
    assert len({sock.getsockname() for sock in sockets}) == 1
    assert not listening.is_shared(given.address)
    listening.close_all()


def test_a_listener_that_goes_and_comes_back_finds_its_socket_again() -> None:
    given = passed()
    listening = Listening(1, [given])
    listening.open([given.address])
    listening.close([given.address])
    assert listening.unused == [given]
    listening.open([given.address])
    assert listening.of_worker(0)[given.address] is given.sock
    listening.close_all()
    assert given.sock.fileno() == -1


def test_the_name_of_a_passed_unix_socket_is_never_removed(tmp_path: Path) -> None:
    path = str(tmp_path / "in.sock")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    os.chmod(path, 0o600)
    address = ListenAddress(path=path)
    listening = Listening(2, [Passed("", address, sock)])
    listening.open([address])
    listening.open([address], {address: SocketOptions(mode="0666")})
    assert os.stat(path).st_mode & 0o777 == 0o600       # it is the service manager's, SocketMode=
    listening.close_all()
    assert stat.S_ISSOCK(os.stat(path).st_mode)


def test_mode_and_owner_of_a_unix_socket_follow_its_options(tmp_path: Path) -> None:
    address = ListenAddress(path=str(tmp_path / "in.sock"))
    listening = Listening(1)
    listening.open([address], {address: SocketOptions(mode="0660", owner=f":{os.getgid()}")})
    assert os.stat(address.path).st_mode & 0o777 == 0o660
    listening.open([address], {address: SocketOptions(mode="0600")})
    assert os.stat(address.path).st_mode & 0o777 == 0o600
    listening.close_all()


def test_an_owner_that_does_not_exist_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    address = ListenAddress(path=str(tmp_path / "in.sock"))
    with pytest.raises(CannotListen, match='there is no such account: "nobody-at-all"'):
        Listening(1).open([address], {address: SocketOptions(owner="nobody-at-all")})
    assert not os.path.exists(address.path)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mode": "rw"}, "three octal digits"),
        ({"mode": "0888"}, "three octal digits"),
        ({"mode": "4755"}, "three octal digits"),
        ({"owner": "a:"}, 'expected "user"'),
        ({"owner": "a b"}, 'expected "user"'),
        ({"name": "a:b"}, "no name of a socket"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SocketOptions(**options)
