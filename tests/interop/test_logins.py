"""AUTH to next hops that others wrote: Postfix with Dovecot's mechanisms; and between two of ours the bound one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, clean_relay, metrics
from end_to_end.smtp_client import SmtpClient
from interop.programs import postfix
from interop.test_auth import IDENTITY, PASSWORD, dovecot, under_tls, users, with_file
from relay_process import RelayProcess, wait_for
from tls.authority import certificate, write, write_authority

KEY = b"a key that both sides know, of 32"


def login(folder: Path, mechanisms: str = "", secret: str = PASSWORD, kind: str = "password") -> str:
    file = folder / "secret"
    file.write_text(f"{secret}\n")
    file.chmod(0o600)
    chosen = f"mechanisms = [{mechanisms}]\n" if mechanisms else ""
    return f'[login.smarthost]\nuser = "{IDENTITY}"\n{kind}_file = "{file}"\n{chosen}'


def route(port: int, host: str = "127.0.0.1") -> str:
    return f'[[route]]\nnext_hop = "smtp://{host}:{port}"\nlogin = "smarthost"\n'


def trust(folder: Path) -> str:
    return f'[shaping.default]\ntls_ca = "{write_authority(folder)}"\n'


def send(relay: RelayProcess) -> dict[str, object]:
    with SmtpClient(relay.port) as client:
        client.send(MESSAGE, "b@y.example", reverse_path="")
    (event,) = wait_for(lambda: relay.events("delivered", "deferred", "failed"), "an outcome", 60)
    return event


def postfix_with(socket: Path, folder: Path) -> str:
    files = write(folder, certificate("127.0.0.1"), "postfix")
    return (
        f"smtpd_tls_cert_file = {files['cert']}\nsmtpd_tls_key_file = {files['key']}\n"
        "smtpd_tls_security_level = may\nsmtpd_tls_auth_only = yes\n"
        f"smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = {socket}\n"
        "smtpd_sasl_authenticated_header = yes\n"
        "smtpd_relay_restrictions = permit_sasl_authenticated, reject\nmynetworks =\n"
    )


@pytest.mark.timeout(180)
@pytest.mark.parametrize("mechanism", ["", "SCRAM-SHA-256", "PLAIN", "LOGIN"])
def test_postfix_takes_mail_of_who_is_known(tmp_path: Path, mechanism: str) -> None:
    with (
        dovecot() as socket,
        NextHop() as last,
        postfix(last.port, postfix_with(socket, tmp_path)) as peer,
        clean_relay(
            tmp_path,
            route(peer.port) + login(tmp_path, f'"{mechanism}"' if mechanism else "") + trust(tmp_path),
        ) as relay,
    ):
        event = send(relay)
        assert event["event"] == "delivered", event
        assert (event["tls_policy"], event["tls_policy_from"]) == ("verify", "login")
        last.wait_for_count(1)
        assert f"Authenticated sender: {IDENTITY}".encode() in last.deliveries[0].message
        wait_for(lambda: "sasl_method=" in peer.log(), "Postfix has logged it")
        assert f"sasl_method={mechanism or 'SCRAM-SHA-256'}, sasl_username={IDENTITY}" in peer.log()
        assert metrics(relay)["angarium_outbound_logins_total"] == 1


@pytest.mark.timeout(180)
def test_postfix_refuses_a_wrong_password_and_the_mail_waits(tmp_path: Path) -> None:
    config = login(tmp_path, secret="wrong") + trust(tmp_path) + NO_RETRY
    with (
        dovecot() as socket,
        NextHop() as last,
        postfix(last.port, postfix_with(socket, tmp_path)) as peer,
        clean_relay(tmp_path, route(peer.port) + config) as relay,
    ):
        event = send(relay)
        assert (event["event"], event["status"], event["class"]) == ("deferred", "4.7.8", "login-required")
        words = "login smarthost by AUTH SCRAM-SHA-256: the host does not accept user and password"
        assert words in str(event["reply"])
        assert [each["login"] for each in relay.events("login-failed")] == ["smarthost"]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
@pytest.mark.parametrize("is_good", [True, False])
def test_dovecot_judges_a_token(tmp_path: Path, mechanism: str, is_good: bool) -> None:
    with (
        dovecot(tokens_signed_with=KEY) as socket,
        NextHop() as last,
        postfix(last.port, postfix_with(socket, tmp_path)) as peer,
    ):
        token = web_token(KEY if is_good else KEY[::-1])
        config = login(tmp_path, f'"{mechanism}"', token, "token") + trust(tmp_path) + NO_RETRY
        with clean_relay(tmp_path, route(peer.port) + config) as relay:
            event = send(relay)
            assert event["event"] == ("delivered" if is_good else "deferred"), event
            if is_good:
                last.wait_for_count(1)
                assert f"sasl_method={mechanism}, sasl_username={IDENTITY}" in peer.log()
            else:
                assert event["status"] == "4.7.8"
            assert token not in relay.log_path.read_text()


def web_token(key: bytes) -> str:
    """RFC 7519, HS256."""

    def part(octets: bytes) -> bytes:
        return base64.urlsafe_b64encode(octets).rstrip(b"=")

    now = int(time.time())
    claims = {"sub": IDENTITY, "email": IDENTITY, "iat": now - 10, "nbf": now - 10, "exp": now + 3600, "active": True}
    text = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    return (text + b"." + part(hmac.digest(key, text, hashlib.sha256))).decode()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mechanism", ["", "SCRAM-SHA-256-PLUS"])
def test_between_two_of_ours_the_login_is_bound_to_the_connection(tmp_path: Path, mechanism: str) -> None:
    """RFC 9266: what one side's TLS exports is what the other's does; without being asked the bound one is taken."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    with clean_relay(theirs, with_file(theirs), listener=under_tls(theirs)) as peer:
        chosen = f'"{mechanism}"' if mechanism else ""
        config = login(ours, chosen) + 'allow_unverified = true\n' + trust(ours)
        with clean_relay(ours, route(peer.port) + config) as relay:
            assert send(relay)["event"] == "delivered"
            wait_for(lambda: users(peer) == [IDENTITY], "the other has it with our name")
            (accepted,) = peer.events("authenticated")
            assert accepted["mechanism"] == "SCRAM-SHA-256-PLUS"
