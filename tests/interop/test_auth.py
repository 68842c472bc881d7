"""AUTH with programs that others wrote: swaks and msmtp as clients, Dovecot as the one who knows the passwords."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import pwd
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from end_to_end.relay import clean_relay
from interop.programs import accepts_unix, end, program, run
from relay_process import RelayProcess, maildir_route, wait_for
from tls.authority import certificate, write, write_authority

LISTENER = 'auth = { required = true, allow_plaintext_from = ["127.0.0.0/8"] }'
IDENTITY, PASSWORD = "alice@x.example", "correct horse"


def with_file(directory: Path) -> str:
    """The configuration of a relay whose file of credentials has one identity."""
    from angarium.sasl.credential_file import changing, make_entry

    with changing(directory / "credentials", may_make=True) as credentials:
        credentials.entries[IDENTITY] = make_entry(PASSWORD)
    return f'[auth]\ncredentials = "file:{directory}/credentials"\nfailure_delay = "0s"\n{maildir_route(directory)}'


def users(relay: RelayProcess) -> list[str]:
    return [event["user"] for event in relay.events("received")]


def swaks(relay: RelayProcess, mechanism: str, password: str = PASSWORD) -> str:
    return run(
        "swaks", "--server", "127.0.0.1", "--port", str(relay.port), "--from", IDENTITY, "--to", "b@y.example",
        "--auth", mechanism, "--auth-user", IDENTITY, "--auth-password", password,
    )  # fmt: skip


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_authenticates(mechanism: str, tmp_path: Path) -> None:
    program("swaks")
    with clean_relay(tmp_path, with_file(tmp_path), listener=LISTENER) as relay:
        assert "235 2.7.0 " in swaks(relay, mechanism)
        wait_for(lambda: users(relay) == [IDENTITY], "the message is in the log with its user")
        with pytest.raises(AssertionError, match=r"535 5\.7\.8"):
            swaks(relay, mechanism, "wrong")


@pytest.mark.parametrize("mechanism", ["plain", "login", "scram-sha-256"])
def test_msmtp_authenticates(mechanism: str, tmp_path: Path) -> None:
    program("msmtp")
    with clean_relay(tmp_path, with_file(tmp_path), listener=LISTENER) as relay:
        run(
            "msmtp", "--file=/dev/null", "--host=127.0.0.1", f"--port={relay.port}", f"--from={IDENTITY}",
            f"--auth={mechanism}", f"--user={IDENTITY}", f"--passwordeval=echo {PASSWORD}", "--tls=off", "b@y.example",
            input_octets=b"Subject: x\n\nx\n",
        )  # fmt: skip
        wait_for(lambda: users(relay) == [IDENTITY], "the message is in the log with its user")


def under_tls(directory: Path) -> str:
    """A listener that offers AUTH under TLS only."""
    table = write(directory, certificate("mx.test.example", "ECDSA"), "ECDSA")
    files = f'{{ cert = "{table["cert"]}", key = "{table["key"]}" }}'
    return f"auth = {{ required = true }}\n[listener.tls]\ncertificates = [{files}]\n"


def test_msmtp_authenticates_under_tls(tmp_path: Path) -> None:
    program("msmtp")
    with clean_relay(tmp_path, with_file(tmp_path), listener=under_tls(tmp_path)) as relay:
        run(
            "msmtp", "--file=/dev/null", "--host=127.0.0.1", f"--port={relay.port}", f"--from={IDENTITY}",
            "--auth=on", f"--user={IDENTITY}", f"--passwordeval=echo {PASSWORD}", "--tls=on", "--tls-starttls=on",
            f"--tls-trust-file={write_authority(tmp_path)}", "--tls-host-override=mx.test.example", "b@y.example",
            input_octets=b"Subject: x\n\nx\n",
        )  # fmt: skip
        wait_for(lambda: relay.events("received"), "it is logged")
        (received,) = relay.events("received")
        assert (received["user"], received["protocol"]) == (IDENTITY, "ESMTPSA")


def test_scram_plus_is_bound_to_what_openssl_exports(tmp_path: Path) -> None:
    """RFC 9266 §4.2: the binding data as another program's TLS has them, and its connection."""
    with clean_relay(tmp_path, with_file(tmp_path), listener=under_tls(tmp_path)) as relay:
        client = subprocess.Popen(
            [program("openssl"), "s_client", "-connect", f"127.0.0.1:{relay.port}", "-starttls", "smtp", "-crlf",
             "-tls1_3", "-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1,
        )  # fmt: skip
        assert client.stdin and client.stdout

        def until(pattern: str) -> str:
            assert client.stdout
            for line in client.stdout:
                if match := re.search(pattern, line):
                    return match[1]
            raise AssertionError(f"{pattern} did not come")

        def ask(text: str, pattern: str) -> str:
            assert client.stdin
            client.stdin.write(text + "\n")
            return until(pattern)

        binding = bytes.fromhex(until(r"Keying material: ([0-9A-F]{64})$"))
        until(r"^(250) HELP")  # s_client repeats the end of the EHLO reply that it got in clear
        ask("EHLO client.example", r"^(250) HELP")
        header, bare = b"p=tls-exporter,,", f"n={IDENTITY},r=fyko".encode()
        first = ask(f"AUTH SCRAM-SHA-256-PLUS {base64.b64encode(header + bare).decode()}", r"^334 (.+)$")
        server_first = base64.b64decode(first)
        fields = dict(field.split(b"=", 1) for field in server_first.split(b","))
        salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), base64.b64decode(fields[b"s"]), int(fields[b"i"]))
        without_proof = b"c=" + base64.b64encode(header + binding) + b",r=" + fields[b"r"]
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        message = b",".join((bare, server_first, without_proof))
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        ask(base64.b64encode(without_proof + b",p=" + base64.b64encode(proof)).decode(), r"^(334) ")
        ask("", r"^(235) 2\.7\.0 ")
        client.communicate("QUIT\n", 20)


DOVECOT_CONF = """\
base_dir = {root}/run
state_dir = {root}/state
log_path = {root}/log
protocols =
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login scram-sha-256 {more_mechanisms}
default_login_user = {user}
default_internal_user = {user}
default_internal_group = {group}
passdb {{
  driver = passwd-file
  mechanisms = plain login scram-sha-256
  args = {root}/users
}}
{more}
userdb {{
  driver = static
  args = uid={uid} gid={uid} home=/nonexistent
}}
service auth {{
  unix_listener {root}/auth-client {{
    mode = 0666
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"""


# Tokens are JWTs, signed with a key that lies in a file.
DOVECOT_TOKENS = """\
passdb {{
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = {root}/oauth2.conf
}}
"""
DOVECOT_OAUTH2 = """\
introspection_mode = local
local_validation_key_dict = fs:posix:prefix={root}/keys/
username_attribute = email
"""


@contextlib.contextmanager
def dovecot(tokens_signed_with: bytes = b"") -> Iterator[Path]:
    """Dovecot's authentication alone, of the test's own; gives its socket."""
    path = program("dovecot")
    if os.geteuid() != 0:
        pytest.skip("Dovecot starts only as root")
    with tempfile.TemporaryDirectory(prefix="dovecot-", dir="/var/tmp") as text:
        root = Path(text)
        root.chmod(0o755)
        user = pwd.getpwnam("dovecot")
        (root / "users").write_text(f"{IDENTITY}:{{PLAIN}}{PASSWORD}\n")
        values = {"root": root, "user": "dovecot", "group": "dovecot", "uid": user.pw_uid}
        values.update(more="", more_mechanisms="")
        if tokens_signed_with:
            values["more"] = DOVECOT_TOKENS.format(root=root)
            values["more_mechanisms"] = "oauthbearer xoauth2"
            (root / "oauth2.conf").write_text(DOVECOT_OAUTH2.format(root=root))
            keys = root / "keys/default/HS256"
            keys.mkdir(parents=True)
            (keys / "default").write_bytes(base64.b64encode(tokens_signed_with))
        (root / "dovecot.conf").write_text(DOVECOT_CONF.format(**values))
        process = subprocess.Popen([path, "-F", "-c", f"{root}/dovecot.conf"], stdin=subprocess.DEVNULL)
        try:
            socket = root / "auth-client"
            wait_for(lambda: accepts_unix(socket) or process.poll() is not None, "Dovecot listens")
            assert process.poll() is None, (root / "log").read_text()
            yield socket
        finally:
            # Its auth process outlives it as long as it has a client.
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            end(process)
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)


def test_dovecot_knows_who_it_is(tmp_path: Path) -> None:
    for name in ("swaks", "msmtp"):
        program(name)
    with dovecot() as socket:
        config = f'[auth]\ncredentials = "dovecot:{socket}"\nfailure_delay = "0s"\n{maildir_route(tmp_path)}'
        with clean_relay(tmp_path, config, listener=LISTENER) as relay:
            for mechanism in ("PLAIN", "LOGIN"):
                assert "235 2.7.0 " in swaks(relay, mechanism)
                with pytest.raises(AssertionError, match=r"535 5\.7\.8"):
                    swaks(relay, mechanism, "wrong")
            run(
                "msmtp", "--file=/dev/null", "--host=127.0.0.1", f"--port={relay.port}", f"--from={IDENTITY}",
                "--auth=scram-sha-256", f"--user={IDENTITY}", f"--passwordeval=echo {PASSWORD}", "--tls=off",
                "b@y.example", input_octets=b"Subject: x\n\nx\n",
            )  # fmt: skip
            wait_for(lambda: users(relay) == [IDENTITY] * 3, "the messages are in the log with their user")


def test_a_dovecot_that_went_away_is_454(tmp_path: Path) -> None:
    program("swaks")
    with contextlib.ExitStack() as life_of_dovecot:
        socket = life_of_dovecot.enter_context(dovecot())
        config = f'[auth]\ncredentials = "dovecot:{socket}"\n{maildir_route(tmp_path)}'
        with RelayProcess(tmp_path, config, listener=f'address = "127.0.0.1:0"\n{LISTENER}') as relay:
            assert "235 2.7.0 " in swaks(relay, "PLAIN")
            life_of_dovecot.close()
            with pytest.raises(AssertionError, match=r"454 4\.7\.0"):
                swaks(relay, "PLAIN")
