"""What is in the way at start is one line that names it, exit status 2, and nothing touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from end_to_end.relay import MESSAGE, clean_relay, queue
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, angarium, maildir_route, wait_for

GOOD = '[node]\nspool = "{spool}"\n[[listener]]\naddress = "127.0.0.1:0"\n'


def refusal(config: Path) -> str:
    """The line on stderr of a `serve` that does not start."""
    done = angarium("serve", "--config", str(config))
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("angarium: ")
    return line


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[node\n", "line 1"),
        ("[nodes]\n", "nodes"),
        (GOOD + 'relay_from = ["127.0.0.0/33"]\n', "listener[0].relay_from[0]"),
        (GOOD + "max_errors = 'many'\n", "listener[0].max_errors"),
        (GOOD + "[[route]]\ndomain = '*'\nnext_hop = 'nowhere'\n", "route[0].next_hop"),
        (GOOD + "[pool.default]\nsources = { a = 1 }\n", "pool.default.sources.a"),
        (GOOD + "[queue.default]\nmax_age = 5\n", "queue.default.max_age"),
        (GOOD + "[shaping.default]\nmessage_rate = '100'\n", "shaping.default.message_rate"),
        (GOOD + "[resolver]\nnameservers = ['dns.example']\n", "resolver.nameservers[0]"),
        (GOOD + "[admin]\naddress = '0.0.0.0:8025'\n", "admin.address"),
        ('[node]\nspool = "{spool}"\n', "listener"),
        (GOOD + 'include = "no-such-file.toml"\n', "include"),
        ('[node]\nspool = "relative"\n[[listener]]\naddress = "127.0.0.1:0"\n', "node.spool"),
        ('[node]\nspool = "{spool}"\n[[listener]]\naddress = "localhost"\n', "listener[0].address"),
        ('[node]\nspool = "{spool}"\nuser = "no-such-user"\n[[listener]]\naddress = "127.0.0.1:0"\n', "no-such-user"),
    ],
)
def test_a_bad_configuration_is_refused_with_its_key(tmp_path: Path, text: str, named: str) -> None:
    config = tmp_path / "angarium.toml"
    config.write_text(text.replace("{spool}", f"{tmp_path}/spool"))
    line = refusal(config)
    assert named in line
    assert str(config) in line or named == "no-such-user"
    assert not (tmp_path / "spool").exists()


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "gone.toml") in refusal(tmp_path / "gone.toml")


def test_a_second_daemon_leaves_the_first_ones_mail_alone(tmp_path: Path) -> None:
    route = '[[route]]\ndomain = "*"\nnext_hop = "smtp://127.0.0.1:1"\n'
    with clean_relay(tmp_path, route, workers=2) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE)
        assert f"in use by process {relay.process.pid if relay.process else 0}" in refusal(relay.config_path)
        (tmp_path / "other").mkdir()
        other = RelayProcess(tmp_path / "other", route)
        other.config_path.write_text(other.config_path.read_text().replace("other/spool", "spool"))
        assert "is in use by process" in refusal(other.config_path)
        assert len(queue(relay)) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try to read what is not its own")
def test_a_spool_of_another_user_is_refused(tmp_path: Path) -> None:
    with clean_relay(tmp_path, maildir_route(tmp_path)) as relay:
        config = relay.config_path
    os.chown(tmp_path / "spool", 65534, 65534)
    before = sorted(path.name for path in (tmp_path / "spool").iterdir())
    assert f"spool {tmp_path}/spool" in refusal(config)
    assert sorted(path.name for path in (tmp_path / "spool").iterdir()) == before


def test_a_file_where_the_spool_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("mine")
    config = tmp_path / "angarium.toml"
    config.write_text(GOOD.replace("{spool}", f"{tmp_path}/spool"))
    assert f"spool {tmp_path}/spool" in refusal(config)
    assert (tmp_path / "spool").read_text() == "mine"


def test_it_starts_again_with_the_spool_it_left(tmp_path: Path) -> None:
    for turn in range(3):
        with clean_relay(tmp_path, maildir_route(tmp_path)) as relay:
            with SmtpClient(relay.port) as client:
                client.send(MESSAGE)
            wait_for(lambda turn=turn: len(list(tmp_path.glob("mail/you/new/*"))) == turn + 1, "delivered")
