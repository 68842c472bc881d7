"""The whole daemon from outside: starting, serving, losing workers, reloading, stopping."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import signal
import smtplib
import socket
from pathlib import Path

import pytest
from relay_process import RelayProcess, angarium, is_alive, maildir_route, wait_for

MESSAGE = b"Subject: x\r\n\r\nhello\r\n"


def send(port: int, to: str = "you@x.example", message: bytes = MESSAGE) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as smtp:
        smtp.sendmail("me@x.example", [to], message)


def mail_of(directory: Path, local: str = "you") -> list[Path]:
    return list(directory.glob(f"mail/{local}/new/*"))


def test_a_message_goes_through_and_sigterm_ends_with_0(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path), workers=2) as relay:
        send(relay.port)
        wait_for(lambda: mail_of(tmp_path), "the message is in the Maildir")
        workers = relay.workers()
        assert len(workers) == 2
        assert relay.stop() == 0
        assert not any(is_alive(pid) for pid in workers)
        assert "Traceback" not in relay.errors()
        assert not (tmp_path / "spool/admin.sock").exists()


def test_too_few_descriptors_for_all_sessions_are_told_and_the_relay_runs(tmp_path: Path) -> None:
    listener = 'address = "127.0.0.1:0"\nrelay_from = ["127.0.0.0/8"]\n'
    relay = RelayProcess(tmp_path, maildir_route(tmp_path), workers=2, listener=listener)
    relay.prefix = ("/bin/sh", "-c", 'ulimit -n 3000 && exec "$@"', "sh")
    with relay:
        (told,) = wait_for(lambda: relay.events("descriptors-few"), "it is told")
        assert (told["limit"], told["wanted"], told["sessions"]) == (3000, 27_000, 50_000)
        send(relay.port)
        wait_for(lambda: mail_of(tmp_path), "mail in the Maildir")
        relay.listener = listener + "max_sessions = 2000\n"  # a thousand for each worker: enough
        relay.write_config(maildir_route(tmp_path))
        assert relay.command("reload").returncode == 0
        relay.listener += f'[[listener]]\naddress = "unix:{tmp_path}/socket"\n'
        relay.write_config(maildir_route(tmp_path))
        assert relay.command("reload").returncode == 0
        wait_for(lambda: len(relay.events("reloaded")) == 2, "both reloads")
        _, again = wait_for(lambda: len(found := relay.events("descriptors-few")) == 2 and found, "told again")
        assert again["sessions"] == 52_000
        assert relay.stop() == 0


def test_ctrl_c_of_the_whole_group_ends_quietly(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path), workers=2) as relay:
        for pid in [*relay.workers(), relay.process.pid]:
            os.kill(pid, signal.SIGINT)
        assert relay.wait() == 0
        assert len(relay.errors().splitlines()) == 1, "only the line that says where it listens"


TLS_REPORTS = """[tls_reports]
enabled = true
organization_name = "x"
contact = "x@x.example"
sender = "x@x.example"
"""


def begin_data(port: int) -> socket.socket:
    """A session in the middle of a message."""
    client = socket.create_connection(("127.0.0.1", port), 20)
    answers = client.makefile("rb")
    answers.readline()
    for command in (b"HELO x", b"MAIL FROM:<me@x.example>", b"RCPT TO:<you@x.example>", b"DATA"):
        client.sendall(command + b"\r\n")
        assert answers.readline()[:1] in b"23"
    return client


def test_a_second_sigterm_ends_what_is_in_hand_and_closes_everything(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path) + TLS_REPORTS) as relay, begin_data(relay.port):
        relay.signal(signal.SIGTERM)
        wait_for(lambda: not is_taken(relay.port), "the worker drains")
        assert relay.stop() == 0
        assert len(relay.errors().splitlines()) == 1, relay.errors()


def is_taken(port: int) -> bool:
    """Whether somebody accepts there and greets."""
    try:
        with socket.create_connection(("127.0.0.1", port), 0.3) as client:
            return client.recv(3) == b"220"
    except OSError:
        return False


def test_what_a_hook_file_raises_is_told_whatever_its_text_is_made_of(tmp_path: Path) -> None:
    hooks = tmp_path / "hooks.py"
    hooks.write_text("def on_connect(client):\n    return None\n")
    config = f'[policy]\nfile = "{hooks}"\n' + maildir_route(tmp_path)
    said = "ValueError: \\udc80 is no text"
    with RelayProcess(tmp_path, config) as relay:
        hooks.write_text(hooks.read_text() + 'raise ValueError("\\udc80 is no text")\n')
        refused = relay.command("reload")
        assert refused.returncode == 2
        assert said in refused.stderr
        assert relay.stop() == 0
        relay.launch()
        assert relay.wait() == 2
        assert said in relay.errors().splitlines()[-1]


def test_a_killed_worker_is_replaced_and_clients_only_wait(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path)) as relay:
        (pid,) = relay.workers()
        os.kill(pid, signal.SIGKILL)
        # The listening socket outlives the worker: this connection is accepted by its successor.
        send(relay.port)
        assert relay.workers() != [pid]
        (died,) = relay.events("worker-died")
        assert died["reason"] == "killed by SIGKILL"


def test_a_worker_that_keeps_dying_ends_the_daemon(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path)) as relay:
        seen: set[int] = set()
        while relay.exit_status() is None and len(seen) < 20:
            for pid in set(relay.workers()) - seen:
                seen.add(pid)
                os.kill(pid, signal.SIGKILL)
        assert relay.wait() == 1
        assert "worker 0 died 5 times in 10 s: killed by SIGKILL" in relay.errors()


def test_workers_do_not_outlive_a_killed_supervisor(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path), workers=2) as relay:
        workers = relay.workers()
        relay.process.kill()
        relay.process.wait()
        wait_for(lambda: not any(is_alive(pid) for pid in workers), "the workers are gone")
        relay.start()
        send(relay.port)


def test_mail_in_the_spool_is_delivered_after_kill_9_of_everything(tmp_path: Path) -> None:
    # Nobody listens at the next hop's port, so mail waits.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = taken.getsockname()[1]
    retry = '[queue.default]\nretry = { first = "1h" }\n'
    away = f'[[route]]\ndomain = "*"\nnext_hop = "smtp://127.0.0.1:{refused}"\n{retry}'
    with RelayProcess(tmp_path, away) as relay:
        for _ in range(10):
            send(relay.port)
        workers = relay.workers()
        relay.process.kill()
        relay.process.wait()
        wait_for(lambda: not any(is_alive(pid) for pid in workers), "the workers are gone")
        relay.write_config(maildir_route(tmp_path))
        relay.start()

        def all_delivered() -> bool:
            # Again and again: the backlog is loaded while the relay serves, and some deferrals were on disk by the
            # time of the kill and others not.
            relay.command("queue", "retry", "--all")
            return len(mail_of(tmp_path)) == 10

        wait_for(all_delivered, "all ten are delivered")


def test_fewer_workers_serve_all_shards(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path), workers=3) as relay:
        assert relay.stop() == 0
    assert {"00", "01", "02"} <= {entry.name for entry in (tmp_path / "spool").iterdir()}
    with RelayProcess(tmp_path, maildir_route(tmp_path), workers=1) as relay:
        send(relay.port)
        wait_for(lambda: mail_of(tmp_path), "the message is delivered")


def test_the_spool_of_a_running_daemon_is_left_alone(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path)) as relay:
        second = angarium("serve", "--config", str(relay.config_path))
        assert second.returncode == 2
        assert second.stderr == f"angarium: spool {tmp_path}/spool is in use by process {relay.process.pid}\n"
        assert second.stdout == ""
        assert relay.command("status").returncode == 0, "its admin socket is still there"


def test_a_port_in_use_is_named_and_nothing_is_touched(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        relay = RelayProcess(tmp_path, listener=f'address = "{address}"')
        done = angarium("serve", "--config", str(relay.config_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"angarium: cannot listen on {address}: it is in use\n"
    assert not (tmp_path / "spool").exists()


def test_a_port_of_another_angarium_of_the_same_user_is_in_use_too(tmp_path: Path) -> None:
    """SO_REUSEPORT would let a second daemon take half of the first one's connections."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with RelayProcess(tmp_path / "a", maildir_route(tmp_path)) as first:
        second = RelayProcess(tmp_path / "b", listener=f'address = "127.0.0.1:{first.port}"')
        done = angarium("serve", "--config", str(second.config_path))
        assert done.returncode == 2
        assert "it is in use" in done.stderr


def test_a_spool_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(mode=0o700)
    (tmp_path / "spool/format").write_text("angarium-spool 9\n")
    relay = RelayProcess(tmp_path)
    done = angarium("serve", "--config", str(relay.config_path))
    assert done.returncode == 2
    assert done.stderr == (
        f"angarium: spool {tmp_path}/spool: format version 9, this program reads version 1\n"
    )
    assert sorted(entry.name for entry in (tmp_path / "spool").iterdir()) == ["format"]


def test_what_stops_a_worker_at_start_is_told_in_one_line(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path)) as relay:
        relay.stop()
    lock = os.open(tmp_path / "spool/00/lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = angarium("serve", "--config", str(relay.config_path))
    finally:
        os.close(lock)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("angarium: spool shard 00 ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("missing", ["no/such/spool", "spool"])
def test_a_missing_directory_is_named(tmp_path: Path, missing: str) -> None:
    config = tmp_path / "angarium.toml"
    config.write_text(f'[node]\nspool = "{tmp_path}/gone/{missing}"\n[[listener]]\naddress = "127.0.0.1:0"\n')
    done = angarium("serve", "--config", str(config))
    assert done.returncode == 2
    assert done.stderr == f"angarium: spool {tmp_path}/gone/{missing}: No such file or directory\n"


def test_reload_applies_routes_and_listeners_without_dropping_a_session(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path), workers=2) as relay:
        before = smtplib.SMTP("127.0.0.1", relay.port, timeout=20)
        before.ehlo()
        extra = f'[[listener]]\naddress = "unix:{tmp_path}/in.sock"\n'
        elsewhere = f'[[route]]\ndomain = "*"\nnext_hop = "maildir:{tmp_path}/elsewhere/{{local}}"\n'
        relay.write_config(extra + elsewhere)
        relay.signal(signal.SIGHUP)
        wait_for(lambda: relay.events("reloaded"), "reloaded")
        before.sendmail("me@x.example", ["you@x.example"], MESSAGE)
        before.quit()
        wait_for(lambda: list(tmp_path.glob("elsewhere/you/new/*")), "delivered by the new route")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{tmp_path}/in.sock")
            client.settimeout(20)
            assert client.recv(1000).startswith(b"220 mx.test")
        relay.write_config(elsewhere)
        assert relay.command("reload").stdout == "reloaded\n"
        assert not (tmp_path / "in.sock").exists()
        send(relay.port)
        wait_for(lambda: len(list(tmp_path.glob("elsewhere/you/new/*"))) == 2, "still served")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("[resolver]\ntimeout = 5\n", "resolver.timeout: expected a duration"),
        (
            "[admin]\naddress = '127.0.0.1:0'\n",
            "admin.address: a change from None to 127.0.0.1:0 needs a restart",
        ),
        ("[[listener]]\naddress = 'unix:/no/such/place'\n", "cannot listen on unix:/no/such/place"),
    ],
)
def test_a_refused_reload_changes_nothing_and_says_why(tmp_path: Path, config: str, reason: str) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path)) as relay:
        relay.write_config(config)
        refused = relay.command("reload")
        assert refused.returncode == 2
        assert refused.stderr.startswith(f"angarium: {relay.config_path}: ")
        assert reason in refused.stderr
        (logged,) = relay.events("reload-refused")
        assert reason in logged["reason"]
        send(relay.port)
        wait_for(lambda: mail_of(tmp_path), "the old route still holds")


def test_a_worker_started_after_a_reload_works_by_the_new_configuration(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path)) as relay:
        relay.write_config(f'[[route]]\ndomain = "*"\nnext_hop = "maildir:{tmp_path}/elsewhere/{{local}}"\n')
        assert relay.command("reload").returncode == 0
        os.kill(relay.workers()[0], signal.SIGKILL)
        send(relay.port)
        wait_for(lambda: list(tmp_path.glob("elsewhere/you/new/*")), "delivered by the new route")


def test_status_metrics_and_health_answer_on_the_admin_socket(tmp_path: Path) -> None:
    with RelayProcess(tmp_path, maildir_route(tmp_path), workers=2) as relay:
        send(relay.port)
        wait_for(lambda: relay.events("delivered"), "delivered")
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(f"{tmp_path}/spool/admin.sock")
        assert os.stat(f"{tmp_path}/spool/admin.sock").st_mode & 0o777 == 0o600
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b'{"status":"ok","workers":2,"workers_ready":2}\n'
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        assert "\nangarium_recipients_delivered_total 1\n" in text
        assert '\nangarium_queue_messages{worker="1"} 0\n' in text
        connection.close()
        status = relay.command("status")
        assert status.returncode == 0
        assert f"listens on 127.0.0.1:{relay.port}\n" in status.stdout


def test_queue_commands_show_and_delete_waiting_mail(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = taken.getsockname()[1]
    with RelayProcess(
        tmp_path, f'[[route]]\ndomain = "*"\nnext_hop = "smtp://127.0.0.1:{refused}"\n', workers=2
    ) as relay:
        for local in ("one", "two", "three"):
            send(relay.port, f"{local}@{local}.example")
        wait_for(lambda: len(relay.events("deferred")) == 3, "all are deferred")
        lines = relay.command("queue", "list").stdout.splitlines()
        assert len(lines) == 3
        (line,) = relay.command("queue", "list", "--domain", "two.example").stdout.splitlines()
        id_ = line.split()[0]
        assert "two.example" in line
        shown = relay.command("queue", "show", id_).stdout
        assert "two@two.example" in shown
        assert "me@x.example" in shown
        assert relay.command("queue", "retry", id_).stdout == (
            "1 recipients of 1 messages are tried now\n"
        )
        done = relay.command("queue", "delete", "--domain", "one.example", "--json")
        assert json.loads(done.stdout)["recipients"] == 1
        assert len(relay.command("queue", "list", "--json").stdout.splitlines()) == 2
        missing = relay.command("queue", "show", "0000000000000")
        assert (missing.returncode, missing.stderr) == (2, "angarium: 0000000000000 is not in the queue\n")


def test_a_second_ctrl_c_does_not_wait_for_sessions(tmp_path: Path) -> None:
    with (
        RelayProcess(tmp_path, maildir_route(tmp_path)) as relay,
        socket.create_connection(("127.0.0.1", relay.port)) as client,
    ):
        replies = client.makefile("rb")
        assert replies.readline().startswith(b"220")
        client.sendall(b"EHLO x\r\n")
        while not replies.readline().startswith(b"250 "):
            pass
        client.sendall(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n")
        assert [replies.readline()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
        relay.signal(signal.SIGINT)
        wait_for(lambda: relay.events("stopping"), "it stops")
        assert relay.exit_status() is None, "the message is waited for"
        relay.signal(signal.SIGINT)
        assert relay.process.wait(8) == 0, "well before the deadline of 10 s"


def test_a_failure_is_reported_to_the_sender(tmp_path: Path) -> None:
    """End to end: a next hop that refuses the recipient makes a DSN, and the DSN goes by the routes too."""
    routes = (
        f'[[route]]\ndomain = "x.example"\nnext_hop = "maildir:{tmp_path}/mail/{{local}}"\n'
        '[[route]]\ndomain = "refused.example"\nnext_hop = "maildir:/proc/nowhere/{local}"\n'
        '[queue.default]\nmax_age = "1s"\nretry = { first = "1s", max = "1s" }\n'
    )
    with RelayProcess(tmp_path, routes) as relay:
        send(relay.port, "nobody@refused.example")
        (report,) = wait_for(lambda: mail_of(tmp_path, "me"), "the sender has a report")
        text = report.read_text()
        assert "Content-Type: multipart/report" in text
        assert "nobody@refused.example" in text
        wait_for(lambda: "0 messages" in relay.command("status").stdout, "the queue is empty")
