"""Asking the next hop under TLS and with AUTH: what the policy of mail to it wants, and nothing in clear against it."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path
from typing import Any

import pytest
from inbound.intake_harness import run
from inbound.test_recipients import ASKED, NextHop, rcpt, recipients_of
from tls.authority import certificate, write_authority

from angarium.model.plan import Host, Plan, Site
from angarium.outbound.side_tls import SideTls
from angarium.queue.shaping import Shaping
from angarium.queue.shaping_options import ShapingOptions
from angarium.sasl.login_options import LoginOptions
from angarium.sasl.logins import Logins
from angarium.tls.terms import TlsTerms

NAME = "hop.example"


class SecureHop(NextHop):
    """One that does TLS, or says it does. ca  who signed its certificate; "": a handshake ends in rubbish.

    seen  verbs, in small letters when they came in clear.
    """

    def __init__(
        self, tls: str, folder: Path, *, ca: str = "authority", offers: bytes = b"STARTTLS", own: str = ""
    ) -> None:
        super().__init__()
        self.shaping = Shaping(ShapingOptions(tls=tls, tls_ca=write_authority(folder)))  # type: ignore[arg-type]
        self.ca = ca
        self.offers = offers
        self.own = own
        self.auth = b"PLAIN LOGIN"
        self.seen: list[str] = []
        self.said: list[bytes] = []
        self.begins_with_tls = False
        self.route_login = ""
        self.is_located_securely = True
        self.logins = Logins()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate(NAME, ca=ca or "authority").configure_cert(self.context)

    async def start(self) -> None:
        tls = self.context if self.begins_with_tls else None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def text(self) -> str:
        return f"{'smtps' if self.begins_with_tls else 'smtp'}://{NAME}:{self.port}"

    async def plan(self, domain: bytes) -> Plan:
        host = Host(NAME, ("127.0.0.1",), self.port)
        site = Site(
            self.text,
            "smtp",
            (host,),
            tls=self.own,  # type: ignore[arg-type]
            begins_with_tls=self.begins_with_tls,
            login=self.route_login,
            is_located_securely=self.is_located_securely,
        )
        return Plan(site, float("inf"))

    async def terms(self, site: Site) -> TlsTerms:
        side = SideTls(asyncio.get_running_loop(), None, self.logins)  # type: ignore[arg-type]
        side.shaping = self.shaping
        return await side.terms(site)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sessions += 1
        is_secure = self.begins_with_tls
        writer.write(b"220 hop.example\r\n")
        try:
            while line := await reader.readline():
                verb = line[:4].upper().strip()
                self.seen.append(verb.decode() if is_secure else verb.decode().lower())
                self.said.append(line.strip())
                if verb == b"EHLO":
                    auth = b"250-AUTH " + self.auth + b"\r\n" if self.auth else b""
                    writer.write(b"250-hop\r\n" + auth + b"250 " + (b"HELP" if is_secure else self.offers) + b"\r\n")
                elif verb == b"STAR":
                    writer.write(self.replies.get(b"STAR", b"220 go\r\n"))
                    if not self.ca:
                        await reader.read(1)
                        writer.write(b"rubbish\r\n" * 10)
                        break
                    if b"STAR" not in self.replies:
                        await writer.start_tls(self.context)
                        is_secure = True
                elif verb == b"AUTH" and line == b"AUTH LOGIN\r\n":
                    for prompt in (b"VXNlcg==", b"UGFzcw=="):
                        writer.write(b"334 " + prompt + b"\r\n")
                        self.said.append((await reader.readline()).strip())
                    writer.write(b"235 2.7.0 ok\r\n")
                else:
                    ok = b"235 2.7.0 ok\r\n" if verb == b"AUTH" else b"250 2.0.0 ok\r\n"
                    writer.write(self.replies.get(verb, ok))
                if verb == b"QUIT":
                    break
        except (ssl.SSLError, ConnectionError):
            pass
        writer.close()


async def asked(hop: SecureHop, folder: Path, **call_ahead: Any) -> tuple[str, str]:
    """What RCPT is answered, and why the next hop could not be asked."""
    await hop.start()
    async with recipients_of(folder, ASKED, hop=hop, call_ahead=call_ahead) as (harness, peer):
        await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
        reply = await rcpt(peer, "bob@ours.example")
        reasons = [each["reason"] for each in harness.events("call-ahead-failed")]
    hop.stop()
    return reply[:9], reasons[0] if reasons else ""


@pytest.mark.parametrize("tls", ["opportunistic", "encrypt", "required"])
def test_a_next_hop_that_does_tls_is_asked_under_it(tmp_path: Path, tls: str) -> None:
    async def main() -> None:
        hop = SecureHop(tls, tmp_path)
        assert await asked(hop, tmp_path) == ("250 2.1.5", "")
        assert hop.seen == ["ehlo", "star", "EHLO", "MAIL", "RCPT", "QUIT"]

    run(main())


def test_the_policy_of_the_route_counts_before_that_of_all(tmp_path: Path) -> None:
    async def main() -> None:
        hop = SecureHop("required", tmp_path, own="none")
        assert await asked(hop, tmp_path) == ("250 2.1.5", "")
        assert hop.seen == ["ehlo", "mail", "rcpt", "quit"]

    run(main())


@pytest.mark.parametrize("tls", ["opportunistic", "required"])
def test_a_next_hop_that_begins_with_tls_is_asked_under_it(tmp_path: Path, tls: str) -> None:
    async def main() -> None:
        hop = SecureHop(tls, tmp_path)
        hop.begins_with_tls = True
        assert await asked(hop, tmp_path) == ("250 2.1.5", "")
        assert hop.seen == ["EHLO", "MAIL", "RCPT", "QUIT"]

    run(main())


@pytest.mark.parametrize(
    ("how", "reply", "reason"),
    [
        ({"tls": "opportunistic", "ca": ""}, "250 2.1.5", ""),
        ({"tls": "opportunistic", "offers": b"HELP"}, "250 2.1.5", ""),
        ({"tls": "opportunistic", "ca": "stranger"}, "250 2.1.5", ""),
        ({"tls": "encrypt", "ca": "stranger"}, "250 2.1.5", ""),
        ({"tls": "encrypt", "ca": ""}, "451 4.4.1", "TLS: "),
        ({"tls": "encrypt", "offers": b"HELP"}, "451 4.4.1", "no TLS, and the policy is encrypt"),
        ({"tls": "required", "ca": "stranger"}, "451 4.4.1", "TLS: certificate verify failed"),
    ],
)
def test_what_fails_of_tls_counts_as_the_policy_says(
    tmp_path: Path, how: dict[str, Any], reply: str, reason: str
) -> None:
    async def main() -> None:
        hop = SecureHop(how.pop("tls"), tmp_path, **how)
        said, why = await asked(hop, tmp_path)
        assert said == reply, why
        assert why.startswith(reason) and bool(why) == bool(reason)
        if reason:
            assert not {"mail", "rcpt"} & set(hop.seen)

    run(main())


@pytest.mark.parametrize(("tls", "reply"), [("opportunistic", "250 2.1.5"), ("encrypt", "451 4.4.1")])
def test_starttls_that_is_refused_is_like_none(tmp_path: Path, tls: str, reply: str) -> None:
    async def main() -> None:
        hop = SecureHop(tls, tmp_path)
        hop.replies[b"STAR"] = b"454 4.7.0 not now\r\n"
        assert (await asked(hop, tmp_path))[0] == reply

    run(main())


def test_octets_put_behind_the_reply_to_starttls_end_it(tmp_path: Path) -> None:
    """RFC 3207 §4.2: they would be taken for what was said under TLS."""

    async def main() -> None:
        hop = SecureHop("opportunistic", tmp_path)
        hop.replies[b"STAR"] = b"220 go\r\n250 2.1.5 everybody is known\r\n"
        assert await asked(hop, tmp_path) == ("451 4.4.1", "octets in clear behind the reply to STARTTLS")

    run(main())


def password(folder: Path, text: str = "secret") -> Path:
    file = folder / "password"
    file.write_text(text + "\n")
    file.chmod(0o600)
    return file


def test_who_we_are_for_mail_we_are_for_questions_too(tmp_path: Path) -> None:
    async def main() -> None:
        hop = SecureHop("required", tmp_path)
        hop.route_login = "relay"
        hop.logins = Logins({"relay": LoginOptions(user="relay", password_file=str(password(tmp_path)))})
        assert await asked(hop, tmp_path) == ("250 2.1.5", "")
        assert b"AUTH PLAIN " + base64.b64encode(b"\0relay\0secret") in hop.said

    run(main())


@pytest.mark.parametrize("hosts", [[], [NAME]])
def test_a_host_that_dns_does_not_vouch_for_is_told_if_the_login_names_it(tmp_path: Path, hosts: list[str]) -> None:
    async def main() -> None:
        hop = SecureHop("required", tmp_path)
        hop.route_login = "relay"
        hop.is_located_securely = False
        options = LoginOptions(user="relay", password_file=str(password(tmp_path)), hosts=hosts)
        hop.logins = Logins({"relay": options})
        said, why = await asked(hop, tmp_path)
        assert (said, bool(why)) == (("250 2.1.5", False) if hosts else ("451 4.4.1", True))
        assert any(line.startswith(b"AUTH") for line in hop.said) == bool(hosts)

    run(main())


@pytest.mark.parametrize("mechanisms", [b"PLAIN LOGIN", b"LOGIN"])
def test_a_next_hop_that_wants_to_know_us_is_told_under_tls(tmp_path: Path, mechanisms: bytes) -> None:
    async def main() -> None:
        hop = SecureHop("opportunistic", tmp_path)
        hop.auth = mechanisms
        await hop.start()
        password(tmp_path, "se cret")
        login = {"user": "relay", "password_file": str(tmp_path / "password")}
        port, hop.start = hop.port, lambda: asyncio.sleep(0)  # type: ignore[method-assign,assignment]
        assert await asked(hop, tmp_path, auth={f"smtp://{NAME}:{port}": login}) == ("250 2.1.5", "")
        assert hop.seen[2:4] == ["EHLO", "AUTH"]
        words = [base64.b64encode(each) for each in (b"relay", b"se cret")]
        plain = b"AUTH PLAIN " + base64.b64encode(b"\0relay\0se cret")
        assert (plain if mechanisms == b"PLAIN LOGIN" else words[1]) in hop.said

    run(main())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"offers": b"HELP"}, "AUTH is for TLS only, and there is none"),
        ({"auth": b""}, "the next hop offers no AUTH by SCRAM-SHA-256-PLUS or SCRAM-SHA-256 or PLAIN or LOGIN"),
        ({"replies": {b"AUTH": b"535 5.7.8 no\r\n"}}, "AUTH PLAIN: 535 5.7.8 no"),
        ({"password": None}, "No such file or directory"),
    ],
)
def test_what_keeps_us_from_logging_in_keeps_us_from_asking(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    async def main() -> None:
        hop = SecureHop("opportunistic", tmp_path)
        if "password" not in change:
            password(tmp_path)
        for key, value in change.items():
            setattr(hop, key, value)
        await hop.start()
        login = {"user": "relay", "password_file": str(tmp_path / "password")}
        port, hop.start = hop.port, lambda: asyncio.sleep(0)  # type: ignore[method-assign,assignment]
        said, why = await asked(hop, tmp_path, auth={f"smtp://{NAME}:{port}": login})
        assert said == "451 4.4.1" and why.endswith(reason)
        assert not {"MAIL", "mail"} & set(hop.seen)
        assert not any(b"c2VjcmV0" in line for line in hop.said if hop.offers == b"HELP")

    run(main())


@pytest.mark.parametrize("tls", ["opportunistic", "encrypt"])
@pytest.mark.parametrize("may", [False, True])
def test_a_password_goes_to_an_unverified_next_hop_only_where_that_is_allowed(
    tmp_path: Path, tls: str, may: bool
) -> None:
    async def main() -> None:
        hop = SecureHop(tls, tmp_path, ca="somebody else")
        await hop.start()
        password(tmp_path)
        login = {"user": "relay", "password_file": str(tmp_path / "password"), "allow_unverified": may}
        port, hop.start = hop.port, lambda: asyncio.sleep(0)  # type: ignore[method-assign,assignment]
        said, why = await asked(hop, tmp_path, auth={f"smtp://{NAME}:{port}": login})
        if may:
            assert (said, why) == ("250 2.1.5", "") and "AUTH" in hop.seen
        else:
            assert said == "451 4.4.1"
            assert why.endswith(f"no password for a certificate that is not verified; the policy is {tls}")
            assert not {"AUTH", "MAIL"} & set(hop.seen)

    run(main())
