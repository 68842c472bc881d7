"""`angarium tls-policy` against a name server of the test's own, and the example of docs/tls.md."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from dns_server import DnsServer

from angarium.cli.main import main

ROOT = Path(__file__).parents[2]
DIGEST = "ab" * 32
RECORDS = {
    "example.net": {"MX": ["10 mx1.example.net.", "20 mx2.example.net."]},
    "mx1.example.net": {"A": ["192.0.2.1"]},
    "mx2.example.net": {"A": ["192.0.2.2"]},
    "_25._tcp.mx1.example.net": {"TLSA": [f"3 1 1 {DIGEST}"]},
    "plain.example": {"MX": ["10 mx1.example.net."]},
}
SECURE = ("example.net", "mx1.example.net", "mx2.example.net", "_25._tcp.mx1.example.net")
FAULTS = {**dict.fromkeys(SECURE, "secure"), "_25._tcp.mx2.example.net": "bogus"}


@pytest.fixture
def config(tmp_path: Path) -> Any:
    with DnsServer(RECORDS, FAULTS) as dns:
        path = tmp_path / "angarium.toml"

        def write(more: str = "", resolver: str = "trust_ad = true") -> str:
            path.write_text(
                '[[listener]]\naddress = "127.0.0.1:2525"\n'
                f'[resolver]\nnameservers = ["{dns.address}"]\n{resolver}\n{more}'
            )
            return str(path)

        write.address = dns.address  # type: ignore[attr-defined]
        yield write


def tls_policy(*words: str) -> tuple[int, str]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = main(["tls-policy", *words])
    return status, out.getvalue()


def hosts(*words: str) -> tuple[int, list[dict[str, Any]]]:
    status, text = tls_policy("--json", *words)
    return status, json.loads(text).get("hosts", [])


def test_the_page_shows_what_is_printed(config: Any) -> None:
    status, text = tls_policy("--config", config(), "example.net")
    assert status == 0
    page = (ROOT / "docs" / "tls.md").read_text()
    assert "$ angarium tls-policy example.net\n" + text.replace(config.address, "127.0.0.1:53") in page


def test_messages_have_a_say(config: Any) -> None:
    path = config()
    _, (first, second) = hosts("--config", path, "--message", "requiretls", "example.net")
    assert (first["policy"], first["origin"]) == ("requiretls", "TLSA")
    assert "refused" in second
    _, found = hosts("--config", path, "--message", "tls-required-no", "example.net")
    assert [each["policy"] for each in found] == ["opportunistic", "opportunistic"]


def test_narrower_tables_say_what_is_asked_of_their_mail(config: Any) -> None:
    # mx1 has TLSA records, which say nothing of a host for which the operator asks for authorities.
    path = config('[shaping.site."mx1.example.net"]\ntls = "required"\n')
    _, found = hosts("--config", path, "example.net")
    assert [(each["policy"], each["origin"]) for each in found] == [("required", "configuration")] * 2
    path = config('[shaping.domain."plain.example"]\ntls = "encrypt"\n')
    _, (host,) = hosts("--config", path, "PLAIN.example")
    assert host["policy"] == "encrypt"
    sources = '[source.one]\nehlo = "one.example"\n[source.two]\nehlo = "two.example"\n'
    path = config(sources + '[shaping.source.two]\ntls = "none"\n')
    policies = [hosts("--config", path, *words, "plain.example")[1][0]["policy"] for words in ((), ("--source", "two"))]
    assert policies == ["opportunistic", "none"]


def test_a_source_that_does_not_exist_is_refused(config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, _ = tls_policy("--config", config(), "--source", "three", "plain.example")
    assert status == 2
    assert "there is no [source.three]; there are: none is configured" in capsys.readouterr().err


def test_mail_exchangers_that_nobody_vouches_for(config: Any) -> None:
    path = config()
    status, (host,) = hosts("--config", path, "plain.example")
    assert (status, host["policy"], "tlsa" in host) == (0, "opportunistic", False)
    status, (host,) = hosts("--config", path, "--message", "requiretls", "plain.example")
    assert (status, host["refused"][:24]) == (1, "the message requires TLS")


def test_it_says_what_is_switched_off(config: Any) -> None:
    _, text = tls_policy("--config", config(resolver=""), "example.net")
    assert "DANE         off: resolver.trust_ad\n" in text
    assert "policy     opportunistic from configuration: encrypted where the host offers it, else in clear\n" in text
    _, text = tls_policy("--config", config("[shaping.default]\ndane = false\n"), "example.net")
    assert "DANE         off: shaping.default.dane\n" in text


def test_mta_sts_without_a_record(config: Any) -> None:
    _, text = tls_policy("--config", config("[shaping.default]\nmta_sts = true\n"), "example.net")
    assert "MTA-STS      none: _mta-sts.example.net TXT: no such domain\n" in text


def test_a_domain_that_does_not_exist(config: Any) -> None:
    status, text = tls_policy("--config", config(), "nowhere.example")
    assert status == 1
    assert "no way       5.1.2 Domain not found" in text


def test_a_route_to_a_maildir_needs_no_policy(config: Any, tmp_path: Path) -> None:
    route = f'[[route]]\ndomain = "here.example"\nnext_hop = "maildir:{tmp_path}/{{local}}"\n'
    status, text = tls_policy("--config", config(route), "here.example")
    assert (status, "by no network" in text) == (0, True)


@pytest.mark.parametrize("is_named", [True, False])
def test_a_login_says_what_is_asked_of_who_is_told(config: Any, is_named: bool) -> None:
    named = '"mx1.example.net"' if is_named else ""
    more = (
        f'[login.us]\nuser = "us"\npassword_file = "/us"\nhosts = [{named}]\n'
        '[shaping.domain."plain.example"]\nlogin = "us"\n'
    )
    path = config(more, resolver="")
    status, text = tls_policy("--config", path, "plain.example")
    assert "login        us" in text
    assert ("verify from login: encrypted, with a verified certificate" in text) == is_named
    assert ("nor does [login.us] hosts name it" in text) == (not is_named)
    assert status == (0 if is_named else 1)


def test_what_some_mail_does_not_heed_is_told_with_the_key_that_says_so(config: Any) -> None:
    path = config('[shaping.provider.p]\nmx = ["mx1.example.net"]\ndane = false\n')
    status, text = tls_policy("--config", path, "example.net")
    assert status == 0
    assert "  DANE         off: shaping.provider.p.dane\n" in text and "TLSA" not in text
    assert text.count("policy     opportunistic from configuration") == 2
    # Switched on for one source alone, the records are looked up, and heeded by that one's mail.
    path = config(
        "[source.one]\n[source.two]\n[shaping.default]\ndane = false\n[shaping.source.one]\ndane = true\n"
        '[shaping.domain."plain.example"]\nmta_sts = true\n'
    )
    for source, policy in (("one", "dane"), ("two", "opportunistic")):
        _, found = hosts("--config", path, "--source", source, "example.net")
        assert found[0]["policy"] == policy
    assert "  MTA-STS      off: shaping.default.mta_sts\n" in tls_policy("--config", path, "example.net")[1]
    assert "  MTA-STS      none" in tls_policy("--config", path, "plain.example")[1]
