"""A relay on sockets that somebody else has bound: it serves them with all workers, and never closes them for good."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from end_to_end.activated import ActivatedRelay
from relay_process import maildir_route, wait_for


def server(*, reuse: bool = False) -> socket.socket:
    sock = socket.socket()
    if reuse:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(100)
    return sock


def greeting(address: tuple[str, int] | str) -> bytes:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(20)
        client.connect(address)
        return client.recv(200)


@pytest.mark.parametrize("reuse", [False, True])
def test_a_passed_socket_is_served_by_all_workers(tmp_path: Path, reuse: bool) -> None:
    with server(reuse=reuse) as sock:
        port = sock.getsockname()[1]
        listener = f'address = "127.0.0.1:{port}"\nrelay_from = ["127.0.0.0/8"]\n'
        config = maildir_route(tmp_path)
        with ActivatedRelay(tmp_path, {"smtp": sock}, config=config, workers=2, listener=listener) as relay:
            assert relay.port == port
            assert all(greeting(("127.0.0.1", port)).startswith(b"220 mx.test") for _ in range(20))
            sessions = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(40)]
            wait_for(lambda: all(one.recv(4) == b"220 " for one in sessions[:1]), "a greeting")
            for one in sessions:
                one.close()
            assert relay.stop() == 0
        # Ours is closed; whoever bound it still has it, and the next start finds who came meanwhile.
        again = ActivatedRelay(tmp_path, {"smtp": sock}, config=config, workers=2, listener=listener)
        with socket.create_connection(("127.0.0.1", port), 20) as early, again as relay:
            early.settimeout(20)
            assert early.recv(200).startswith(b"220 ")
            assert relay.stop() == 0


def test_by_name_and_over_a_reload(tmp_path: Path) -> None:
    path = str(tmp_path / "front.sock")
    with server() as front, socket.socket(socket.AF_UNIX) as local, server() as spare:
        local.bind(path)
        local.listen(10)
        here = front.getsockname()
        listener = 'address = "0.0.0.0:25"\nsocket = { name = "front" }\nrelay_from = ["127.0.0.0/8"]\n'
        more = f'[[listener]]\naddress = "unix:{path}"\n'
        sockets = {"front": front, "local": local, "spare": spare}
        with ActivatedRelay(tmp_path, sockets, config=more, workers=2, listener=listener) as relay:
            assert f"127.0.0.1:{here[1]}, unix:{path}" in relay.started()
            unused = relay.events("socket-unused")
            assert [event["name"] for event in unused] == ["spare"]
            assert greeting(here).startswith(b"220 ")
            assert greeting(path).startswith(b"220 ")
            relay.write_config("")                      # without the unix listener
            assert relay.command("reload").returncode == 0
            relay.write_config(more)
            assert relay.command("reload").returncode == 0
            assert greeting(path).startswith(b"220 ")
            assert relay.stop() == 0
        assert Path(path).is_socket()


def test_a_name_that_is_not_passed_ends_the_start(tmp_path: Path) -> None:
    listener = 'address = "127.0.0.1:0"\nsocket = { name = "front" }\n'
    relay = ActivatedRelay(tmp_path, {}, listener=listener)
    relay.sockets = {"back": (sock := server())}
    relay.launch()
    assert relay.wait() == 2
    assert 'the service manager passed no socket "front"' in relay.errors()
    sock.close()
