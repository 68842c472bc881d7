"""The commands from outside: what they print, what they return, how they refuse."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from relay_process import RelayProcess, angarium, maildir_route, wait_for

from angarium import __version__
from angarium.cli.main import COMMANDS

LISTENER = '[[listener]]\naddress = "127.0.0.1:2525"\n'


def test_help_lists_every_command() -> None:
    done = angarium("--help")
    assert done.returncode == 0
    for name, (_, line) in COMMANDS.items():
        assert f"  {name:8} {line}\n" in done.stdout


@pytest.mark.parametrize("command", [*COMMANDS, "queue list", "queue show", "queue retry", "queue delete"])
def test_help_of_each_command_explains_itself(command: str) -> None:
    done = angarium(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: angarium {command} ")
    if " " not in command:
        assert "example" in done.stdout
        assert f"angarium {command}" in done.stdout.partition("example")[2]
    assert max(len(line) for line in done.stdout.splitlines()) <= 120


def test_help_loads_no_command(tmp_path: Path) -> None:
    """It must be there at once: nothing of the daemon is imported for it."""
    import subprocess
    import sys

    code = (
        "import sys; from angarium.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.modules if name.split('.')[0] in "
        "('uvloop', 'dns', 'starlette', 'uvicorn', 'asyncio', 'msgspec')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_version() -> None:
    assert angarium("--version").stdout == f"angarium {__version__}\n"


@pytest.mark.parametrize(
    "words", [(), ("bogus",), ("queue",), ("queue", "retry"), ("send",), ("serve", "--bogus")]
)
def test_wrong_usage_is_status_2(words: tuple[str, ...]) -> None:
    done = angarium(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr


@pytest.mark.parametrize("order", ["show", "retry", "delete"])
@pytest.mark.parametrize("id_", ["", "02TR4P4", "02TR4P4JG000U", "../status", "02TR4P4JG0001?all=true"])
def test_what_is_no_id_is_said_without_asking_the_relay(order: str, id_: str) -> None:
    done = angarium("queue", order, id_)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].endswith(
        f"error: argument ID: {id_!r} is not an id: 13 digits and letters as listed"
    )


def test_check_says_good_or_what_is_wrong(tmp_path: Path) -> None:
    config = tmp_path / "angarium.toml"
    config.write_text(LISTENER)
    good = angarium("check", cwd=tmp_path)
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith("angarium.toml: good\n")
    config.write_text(LISTENER + "colour = 1\n")
    bad = angarium("check", "--config", str(config))
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == f"angarium: {config}: listener[0].colour: unknown key\n"


def test_check_warns_of_what_may_not_be_meant_and_takes_it(tmp_path: Path) -> None:
    own = LISTENER + '[shaping.domain."bank.example"]\ntls = "required"\n[shaping.tenant.shop]\ntls = "none"\n'
    (tmp_path / "angarium.toml").write_text(own)
    done = angarium("check", cwd=tmp_path)
    line = own.splitlines().index('tls = "none"') + 1
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "angarium.toml: good")
    assert done.stderr.startswith(f'warning: angarium.toml:{line} shaping.tenant.shop.tls: "none" holds before ')


def test_without_a_configuration_the_places_are_named(tmp_path: Path) -> None:
    done = angarium("check", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "angarium: no configuration: neither angarium.toml nor /etc/angarium/angarium.toml exists; "
        "name one with --config\n"
    )


@pytest.mark.parametrize("words", [("status",), ("queue", "list"), ("reload",)])
def test_without_a_relay_that_is_said(tmp_path: Path, words: tuple[str, ...]) -> None:
    config = tmp_path / "angarium.toml"
    config.write_text(f'[node]\nspool = "{tmp_path}/spool"\n' + LISTENER)
    done = angarium(*words, "--config", str(config))
    assert done.returncode == 2
    assert done.stderr == (
        f"angarium: no relay answers at unix:{tmp_path}/spool/admin.sock: No such file or directory\n"
    )


def test_something_else_at_the_admin_address_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        done = angarium("status", "--admin", address)
        thread.join()
    assert (done.returncode, done.stderr) == (2, f"angarium: {address} does not answer like angarium\n")


def test_a_bad_admin_address_is_refused() -> None:
    done = angarium("status", "--admin", "localhost")
    assert done.returncode == 2
    assert done.stderr.startswith('angarium: --admin: "localhost" is not an address with a port')


def test_send_makes_or_takes_a_message(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path)) as relay:
        server = ("--server", f"127.0.0.1:{relay.port}")
        made = angarium(
            "send",
            *server,
            "--from",
            "me@x.example",
            "--to",
            "a@x.example",
            "--subject",
            "Grüße",
            "--body",
            "ä",
        )
        assert made.returncode == 0, made.stderr
        assert made.stdout.startswith("250 2.0.0 ")
        (tmp_path / "m.eml").write_text("Subject: from a file\n\none\n.two\n")
        file = angarium("send", *server, "--to", "b@x.example", str(tmp_path / "m.eml"), "--quiet")
        assert (file.returncode, file.stdout) == (0, "")
        stdin = angarium(
            "send", *server, "--to", "c@x.example", "--to", "c2@x.example", input_text="Subject: in\n\nx\n"
        )
        assert stdin.returncode == 0
        wait_for(lambda: len(list(tmp_path.glob("mail/*/new/*"))) == 4, "all are delivered")
        (delivered,) = tmp_path.glob("mail/b/new/*")
        assert delivered.read_bytes().endswith(b"Subject: from a file\n\none\n.two\n")


def test_send_tells_what_the_server_says(tmp_path: Path) -> None:
    listener = 'address = "127.0.0.1:0"\nrelay_to = ["ours.example"]\n'
    with RelayProcess(tmp_path, maildir_route(tmp_path), listener=listener) as relay:
        server = ("--server", f"127.0.0.1:{relay.port}", "--from", "me@x.example", "--body", "x")
        some = angarium("send", *server, "--to", "a@ours.example", "--to", "b@theirs.example")
        assert some.returncode == 1
        assert some.stderr.startswith("angarium: b@theirs.example: 55")
        none = angarium("send", *server, "--to", "b@theirs.example")
        assert (none.returncode, none.stdout) == (2, "")
        assert "b@theirs.example: 55" in none.stderr
    gone = angarium("send", *server, "--to", "a@ours.example")
    assert gone.returncode == 2
    assert gone.stderr.endswith("Connection refused\n")


@pytest.mark.parametrize("option", ["--to", "--from"])
@pytest.mark.parametrize("text", ["", "a\nb@x", "<a@b>", "a@b> SIZE=1", "a b@x", '"a"@b> x', "a\x1b[31m@b"])
def test_what_is_no_mailbox_is_said_without_asking_the_server(option: str, text: str) -> None:
    done = angarium("send", "--to", "a@b.example", option, text, "--body", "x", "--server", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].endswith(
        f"error: argument {option}: {text!r} is not a mailbox such as bob@example.com"
    )


@pytest.mark.parametrize(
    "words",
    [
        ("check", "--config", "/nowhere/\x1b[31m"),
        ("send", "--to", "a@b.example", "--body", "x", "--server", "h\x1b[31m:25"),
        ("send", "--to", "a@b.example", "/nowhere/\x1b[31m"),
        ("status", "--admin", "\x1b[31m"),
        ("\x1b[31m",),
        ("reload", "\x1b[31m"),
    ],
)
def test_no_control_octet_gets_to_the_operators_terminal(words: tuple[str, ...]) -> None:
    done = angarium(*words)
    assert done.returncode == 2
    assert "\x1b" not in done.stderr and "\\x1b[31m" in done.stderr


def test_what_a_server_says_is_one_line_without_control_octets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as lines:
                connection.sendall(b"220 x\r\n")
                for line in lines:
                    refused = b"550-5.7.1 \x1b[31mred\r\n550 5.7.1 more\r\n"
                    connection.sendall({b"mail": refused, b"QUIT": b"221 bye\r\n"}.get(line[:4], b"250 ok\r\n"))

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        done = angarium("send", "--server", address, "--from", "a@b.example", "--to", "a@b.example", "--body", "x")
        thread.join()
    assert done.stderr == f"angarium: {address}: 550 5.7.1 \\x1b[31mred 5.7.1 more\n"


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    """`angarium queue list | head -1`"""
    import os
    import subprocess
    import sys

    config = tmp_path / "angarium.toml"
    config.write_text(LISTENER)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "angarium.cli.main", "check", "--config", str(config)],
        stdout=writer,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
