"""What TLS from clients costs, beside OpenSSL alone and beside no TLS, with the same client on the same machine.

    python benchmarks/macro/tls.py                  five rounds in turn, about four minutes
    python benchmarks/macro/tls.py --rounds 1 --seconds 2

For an RSA-2048 and a P-256 certificate: connections a second that `openssl s_server` handshakes (eight processes, as
each serves one at a time; a line goes there and back), and messages a second through the relay with STARTTLS on a new
connection each: the bar is 70 % of the first. Then messages over kept connections under TLS and in clear: the bar is
60 %, also for mail that is submitted under TLS by an authenticated client, whose addresses are checked against its
identity and whose header is completed: the messages have no Date and no Message-ID. Then what an idle session under
TLS takes, from five hundred of them: the bar is 40 KiB. The client of kept connections is kept_client.c, one thread
that takes little, the same way under TLS and in clear; that of new ones is Python's ssl in threads, as most of a
handshake is OpenSSL's anyway. Beside each rate is the CPU time of the server's processes and of the client, per
connection or message: both share the machine. Messages have 4 KiB and go on to smtp-sink. Writes results/tls.json when
all rounds were run. Exit status 1: a bar is missed.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drive
import machine
import process_tree
from angarium_relay import CONFIGURATION, Angarium

RESULTS = Path(__file__).resolve().parent.parent / "results" / "tls.json"
KINDS = {"RSA-2048": ["rsa:2048"], "P-256": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]}
CLIENTS, THREADS, SERVERS, SESSIONS = 8, 6, 8, 500
KEPT_CONNECTIONS = CLIENTS * THREADS
CONNECTING_S = 6.0  # for the kept connections of all clients
BARS = {"new": 0.70, "kept": 0.60, "session_kib": 40.0}
ROUNDS = 5


SUBMISSION = """\
[listener.tls]
certificates = [{{ cert = "{cert}", key = "{key}" }}]

[[listener]]
address  = "127.0.0.1:{submission_port}"
protocol = "submission"
tls      = {{ certificates = [{{ cert = "{cert}", key = "{key}" }}] }}
submission.check_from = true

[auth]
credentials = "file:{credentials}"

[auth.senders]
"writer" = ["x.example"]

[[route]]"""
PASSWORD = "correct horse battery staple"
RESPONSE = base64.b64encode(f"\0writer\0{PASSWORD}".encode()).decode()


class TlsRelay(Angarium):
    """With a certificate and its key on the listener, and a submission listener beside it at `submission_port`."""

    def __init__(self, work_directory: Path, cert: Path, key: Path, workers: int = 0) -> None:
        super().__init__(work_directory, drive.free_port(), drive.free_port(), workers)
        self.submission_port = drive.free_port()
        work_directory.mkdir(parents=True, exist_ok=True)
        credentials = work_directory / "credentials"
        subprocess.run(
            [sys.executable, "-m", "angarium.cli.main", "auth", "add", "writer", "--file", credentials],
            input=PASSWORD.encode() + b"\n", check=True, capture_output=True,
        )  # fmt: skip
        self._tls = SUBMISSION.format(
            cert=cert, key=key, submission_port=self.submission_port, credentials=credentials
        )

    def configuration(self) -> str:
        return CONFIGURATION.replace("[[route]]", self._tls.replace("{", "{{").replace("}", "}}"))


def make_certificate(folder: Path, kind: str) -> tuple[Path, Path]:
    cert, key = folder / f"{kind}.pem", folder / f"{kind}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=bench.example", "-newkey", *KINDS[kind],
         "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


@contextlib.contextmanager
def bare_openssl(ports: list[int], cert: Path, key: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Servers on these ports that handshake, send a line back reversed, and no more."""
    processes = [
        subprocess.Popen(
            ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", cert, "-key", key, "-rev",
             "-quiet", "-num_tickets", "1"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for port in ports
    ]  # fmt: skip
    try:
        for port in ports:
            await_listening(port)
        yield processes
    finally:
        for process in processes:
            drive.end(process)


def await_listening(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise drive.RunFailed("openssl s_server did not start")


def build_kept_client(folder: Path) -> Path:
    source, program = Path(__file__).with_name("kept_client.c"), folder / "kept_client"
    subprocess.run(["cc", "-O2", "-o", program, source, "-lssl", "-lcrypto"], check=True)
    return program


def drive_clients(ports: list[int], what: str, servers: list[int], *, is_tls: bool, seconds: float) -> dict[str, float]:
    """Connections a second, and the CPU that the processes `servers` and their children took for each."""
    begin = time.monotonic() + 1.0
    order = {"ports": ports, "what": what, "tls": is_tls, "seconds": seconds, "threads": THREADS, "begin": begin}
    words = [[sys.executable, str(Path(__file__).with_name("tls_client.py")), json.dumps(order)]] * CLIENTS
    return _drive(words, begin, servers)


def drive_kept(
    client: Path, port: int, server: int, *, is_tls: bool, seconds: float, auth: str = ""
) -> dict[str, float]:
    """Messages a second, and the CPU for each. What it takes to make the connections is not part of it: AUTH alone is
    50 ms of a password's hash.
    """
    begin = time.monotonic() + CONNECTING_S
    words = [client, port, KEPT_CONNECTIONS, begin, seconds, "tls" if is_tls else "clear", *([auth] if auth else [])]
    return _drive([[str(word) for word in words]], begin, [server])


def _drive(commands: list[list[str]], begin: float, servers: list[int]) -> dict[str, float]:
    clients = [subprocess.Popen(words, stdout=subprocess.PIPE) for words in commands]
    time.sleep(max(0.0, begin - time.monotonic()))
    before = sum(process_tree.cpu_s(pid) for pid in servers)
    rate, done, client_cpu_s = 0.0, 0, 0.0
    for client in clients:
        output = client.communicate()[0]
        if client.returncode:
            raise drive.RunFailed("a client failed")
        found = json.loads(output)
        rate += found["done"] / found["seconds"]
        done += found["done"]
        client_cpu_s += found["cpu_s"]
    time.sleep(0.3)
    cpu_s = sum(process_tree.cpu_s(pid) for pid in servers) - before
    if not done:
        raise drive.RunFailed("nothing was done")
    return {"per_s": rate, "cpu_us": cpu_s / done * 1e6, "client_us": client_cpu_s / done * 1e6}


def of_openssl(cert: Path, key: Path, seconds: float) -> dict[str, float]:
    ports = [drive.free_port() for _ in range(SERVERS)]
    with bare_openssl(ports, cert, key) as servers:
        return drive_clients(ports, "echo", [server.pid for server in servers], is_tls=True, seconds=seconds)


def of_relay(relay: TlsRelay, *, is_tls: bool, seconds: float) -> dict[str, float]:
    with drive.sink(relay.sink_port):
        return drive_clients([relay.port], "new", [relay.pid], is_tls=is_tls, seconds=seconds)


def of_kept(
    relay: TlsRelay, client: Path, *, is_tls: bool, seconds: float, is_submitted: bool = False
) -> dict[str, float]:
    with drive.sink(relay.sink_port):
        port, auth = (relay.submission_port, RESPONSE) if is_submitted else (relay.port, "")
        return drive_kept(client, port, relay.pid, is_tls=is_tls, seconds=seconds, auth=auth)


def idle_session_kib(folder: Path, cert: Path, key: Path) -> dict[str, float]:
    """KiB that one more idle session takes, in clear and under TLS; all memory of the relay's processes."""
    found = {}
    process_tree.raise_descriptor_limit(SESSIONS + 200)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name in ("clear", "tls"):
        relay = TlsRelay(folder / name, cert, key, 1)
        relay.start()
        try:
            held = [converse(relay.port, context if name == "tls" else None)]
            before = process_tree.memory(relay.pid).pss_octets
            held += [converse(relay.port, context if name == "tls" else None) for _ in range(SESSIONS)]
            found[name] = (process_tree.memory(relay.pid).pss_octets - before) / SESSIONS / 1024
            for sock in held:
                sock.close()
        finally:
            relay.stop()
    return found


def converse(port: int, context: ssl.SSLContext | None) -> socket.socket:
    from tls_client import Client

    client = Client(port, context)
    # A message of 64 KiB in between: what large records leave behind is part of what a session takes. The NUL has it
    # refused at its end, so that what the queue takes for it is not measured.
    client.ask(b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n", 3)
    client.sock.sendall((b"x" * 62 + b"\r\n") * 1024 + b"\0\r\n.\r\n")
    assert client.sock.recv(1000).startswith(b"554")
    return client.sock


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--work-directory", type=Path, default=Path("/var/tmp"))
    chosen = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(dir=chosen.work_directory) as directory:
        folder = Path(directory)
        os.chmod(folder, 0o755)
        facts = machine.describe(folder)
        client = build_kept_client(folder)
        sessions: dict[str, float] = {}
        for kind in KINDS:
            cert, key = make_certificate(folder, kind)
            (folder / kind).mkdir()
            relay = TlsRelay(folder / kind, cert, key)
            relay.start()
            try:
                of_relay(relay, is_tls=True, seconds=0.5)
                for _ in range(chosen.rounds):
                    rows: dict[str, dict[str, Any]] = {
                        f"{kind} openssl": of_openssl(cert, key, chosen.seconds),
                        f"{kind} new": of_relay(relay, is_tls=True, seconds=chosen.seconds),
                    }
                    if kind == "P-256":
                        rows["kept tls"] = of_kept(relay, client, is_tls=True, seconds=chosen.seconds)
                        rows["kept submitted"] = of_kept(
                            relay, client, is_tls=True, seconds=chosen.seconds, is_submitted=True
                        )
                        rows["kept clear"] = of_kept(relay, client, is_tls=False, seconds=chosen.seconds)
                        rows["new clear"] = of_relay(relay, is_tls=False, seconds=chosen.seconds)
                    for name, row in rows.items():
                        print(
                            f"{name:18} {row['per_s']:8.0f}/s {row['cpu_us']:8.0f} us of the server "
                            f"{row['client_us']:8.0f} us of the client",
                            flush=True,
                        )
                        runs.setdefault(name, []).append(row)
            finally:
                relay.stop()
            if kind == "P-256":
                sessions = idle_session_kib(folder, cert, key)
    medians = {
        name: {figure: statistics.median(row[figure] for row in rows) for figure in rows[0]}
        for name, rows in runs.items()
    }
    pairs = {f"{kind}: new under TLS / OpenSSL": (f"{kind} new", f"{kind} openssl") for kind in KINDS}
    pairs["kept under TLS / in clear"] = ("kept tls", "kept clear")
    pairs["submitted with AUTH under TLS / in clear"] = ("kept submitted", "kept clear")
    ratios: dict[str, dict[str, float]] = {}
    is_good = True
    for name, (ours, theirs) in pairs.items():
        bar = BARS["kept" if ours.startswith("kept") else "new"]
        found = {figure: ratio(runs[ours], runs[theirs], figure) for figure in ("per_s", "cpu_us")}
        ratios[name] = found
        is_good &= found["per_s"] >= bar
        print(f"{name}: {found['per_s']:.0%} of the rate (bar {bar:.0%}), {found['cpu_us']:.0%} of the server's CPU")
    is_good &= sessions["tls"] < BARS["session_kib"]
    under, clear = sessions["tls"], sessions["clear"]
    print(f"an idle session: {under:.1f} KiB under TLS (bar {BARS['session_kib']:.0f}), {clear:.1f} in clear")
    if chosen.rounds >= ROUNDS:
        kept = {"machine": facts, "medians": medians, "runs": runs, "ratios": ratios, "session_kib": sessions}
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    return 0 if is_good else 1


def ratio(ours: list[dict[str, float]], theirs: list[dict[str, float]], figure: str) -> float:
    """The median of the rounds' ratios: neighbours in time saw the same machine."""
    return statistics.median(mine[figure] / other[figure] for mine, other in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    sys.exit(main())
