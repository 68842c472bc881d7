"""`angarium explain` over a relay with mail that waits for all kinds of reasons, and the example of docs/explain.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dns_server import DnsServer
from end_to_end.next_hop import SILENCE, NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, admin_get, clean_relay, metrics, workers
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, wait_for

PAGE = Path(__file__).parents[2] / "docs" / "explain.md"
HOOKS = "from angarium.policy import *\ndef on_mail(mail):\n    return Accept(tenant='shop', campaign='spring')\n"


def explained(relay: RelayProcess, *words: str) -> dict[str, Any]:
    done = relay.command("explain", "--json", *words)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def verdict(relay: RelayProcess, *words: str) -> str:
    return str(explained(relay, *words)["verdict"])


def limit(answer: dict[str, Any], key: str) -> dict[str, Any]:
    (found,) = [each for each in answer["subjects"][0]["limits"] if each["key"] == key]
    return dict(found)


def held_hop() -> NextHop:
    """Refuses "slow" for now, and answers nothing behind the last dot."""
    return NextHop(
        faults={
            "RCPT": lambda line: b"450 4.2.0 Mailbox busy" if b"slow" in line else None,
            "END": lambda line: SILENCE,
        }
    )


@pytest.fixture
def example(tmp_path: Path) -> Iterator[tuple[RelayProcess, list[str]]]:
    """The page's configuration with its three messages. One worker: of two, one would hand its mail to the other, and
    which of them takes which message is chance (test_home_workers.py)."""
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with held_hop() as hop:
        config = text[text.index("[[route]]") :].replace("127.0.0.1:2526", f"127.0.0.1:{hop.port}")
        with RelayProcess(tmp_path, config, workers=1) as relay:
            with SmtpClient(relay.port) as client:
                ids = [client.send(MESSAGE, "slow@y.example")]
                wait_for(lambda: relay.events("deferred"), "the first is deferred")
                ids.append(client.send(MESSAGE, "b@y.example"))
                wait_for(lambda: "in hand" in verdict(relay, ids[1]), "the second is under way")
                ids.append(client.send(MESSAGE, "c@z.example"))
            yield relay, ids


def test_the_page_tells_what_the_relay_says(example: tuple[RelayProcess, list[str]]) -> None:
    relay, ids = example
    page = re.findall(r"^(\S+): ((?:waits|a message) .*)$", PAGE.read_text(), re.MULTILINE)
    asked = [[ids[0]], [ids[1]], [ids[2]], ["new@z.example", "--tenant", "shop"]]
    assert len(page) == len(asked)

    def normal(text: str) -> str:
        text = re.sub(r"\]:\d+", "]:PORT", re.sub(r"/\S+/angarium.toml:\d+", "FILE", text))
        return re.sub(r"next attempt in \S+", "next attempt", text)

    for words, (_, told) in zip(asked, page, strict=True):
        assert normal(verdict(relay, *words)) == normal(told)


def test_a_limit_that_holds_mail_back_is_told_with_its_line_and_use(example: tuple[RelayProcess, list[str]]) -> None:
    relay, ids = example
    answer = explained(relay, ids[2])
    line = relay.config_path.read_text().splitlines().index("connections = 1") + 1
    place = f'{relay.config_path}:{line} shaping.site."127.0.0.1".connections'
    (recipient,) = answer["recipients"]
    assert recipient["reason"]["limit"] == "connections" and recipient["reason"]["set_by"] == place
    told = limit(answer, "connections")
    assert (told["file"], told["line"], told["use"]) == (str(relay.config_path), line, "1 in use")
    assert limit(answer, "message_rate")["file"] is None and limit(answer, "message_rate")["use"] == "free"
    (queue,) = [each for each in answer["subjects"][0]["queues"] if each["busy"]]
    assert queue["waiting"] == 1 and queue["replies"][0]["text"] == "4.2.0 Mailbox busy"
    assert queue["replies"][0]["utc_s"] > 1e9

    # A reload moves the line, and what is said of it.
    relay.config_path.write_text(f"# one more line\n{relay.config_path.read_text()}")
    assert relay.command("reload").returncode == 0
    assert limit(explained(relay, ids[2]), "connections")["line"] == line + 1


def test_a_limit_of_source_and_site_is_told_with_its_line_and_use(tmp_path: Path) -> None:
    config = """
        [source.ip-1]
        address = "127.0.0.11"
        [shaping.source.ip-1]
        connections = 9
        [shaping.source.ip-1.site."127.0.0.1"]
        connections  = 1
        message_rate = "1/m"
        [shaping.source.ip-1.site."127.0.0.9"]
        connections = 7
        """
    with held_hop() as hop, RelayProcess(tmp_path, hop.route + config, workers=1) as relay:
        with SmtpClient(relay.port) as client:
            first = client.send(MESSAGE, "b@y.example")
            wait_for(lambda: "in hand" in verdict(relay, first), "the first is under way")
            second = client.send(MESSAGE, "c@z.example")
        answer = explained(relay, second)
    place = 'shaping.source.ip-1.site."127.0.0.1"'
    told = limit(answer, "connections")
    assert (told["value"], told["set_by"], told["use"]) == ("1", f"{place}.connections", "1 in use")
    assert told["note"] == "counted for source ip-1 at each site"
    rate = limit(answer, "message_rate")
    assert rate["set_by"] == f"{place}.message_rate" and rate["use"].startswith("used up: the next in ")
    assert answer["recipients"][0]["reason"]["set_by"].endswith(f"{place}.{answer['recipients'][0]['reason']['limit']}")


def test_a_deferred_message_is_told_with_its_next_attempt_and_in_words(example: tuple[RelayProcess, list[str]]) -> None:
    relay, ids = example
    (recipient,) = explained(relay, ids[0])["recipients"]
    assert recipient["place"] == "deferred" and recipient["last"]["code"] == 450
    assert 3000 < recipient["next_attempt_utc_s"] - explained(relay, ids[0])["message"]["received_utc_s"] < 4000
    done = relay.command("explain", ids[0])
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{ids[0]}: waits because 1 attempt has failed: 450 4.2.0 Mailbox busy ([127.0.0.1]:")
    assert any(re.match(r"  route +smtp://127.0.0.1:\d+ \(.*angarium.toml:\d+ route\[0\]\)$", line) for line in lines)
    assert any(re.match(r"    last reply +\S+ ago: 450 4.2.0 Mailbox busy", line) for line in lines)


def test_an_address_of_which_nothing_is_queued_is_told_its_way(tmp_path: Path) -> None:
    records = {
        "y.example": {"MX": ["10 first.example.", "20 second.example."]},
        "first.example": {"A": ["127.0.0.25"]},
        "second.example": {"A": ["127.0.0.26"]},
    }
    with DnsServer(records, {"y.example MX": "secure"}) as dns:
        config = f'[resolver]\nnameservers = ["{dns.address}"]\ntrust_ad = true\ntimeout = "20s"\n'
        with clean_relay(tmp_path, config, workers=2) as relay:
            answer = explained(relay, "user@Y.example")
            assert answer["verdict"] == "nothing waits, and a message would be tried at once"
            (subject,) = answer["subjects"]
            assert subject["route"] == {"next_hop": "mx", "said_by": ""}
            assert subject["site"]["is_secure"] is True
            assert [host["host"] for host in subject["site"]["hosts"]] == ["first.example", "second.example"]
            assert subject["queues"] == []
            assert dns.count("y.example", "MX") == 1, "one worker asks, not all"
            nowhere = explained(relay, "user@nowhere.example")
            assert nowhere["verdict"].startswith("would fail: 5.1.2 Domain not found")
            assert relay.events("deferred", "failed") == []


def test_a_rate_that_is_used_up_and_who_has_it_is_told(tmp_path: Path) -> None:
    hooks = tmp_path / "policy.py"
    hooks.write_text(HOOKS)
    with NextHop() as hop:
        config = f'[policy]\nfile = "{hooks}"\n{hop.route}[shaping.tenant.shop]\nmessage_rate = "1/h"\n'
        with clean_relay(tmp_path, config) as relay:
            with SmtpClient(relay.port) as client:
                client.send(MESSAGE, "a@y.example")
                hop.wait_for_count(1)
                waiting = client.send(MESSAGE, "b@y.example")
            reason = wait_for(lambda: "rate" in verdict(relay, waiting) and verdict(relay, waiting), "it is paced")
            assert reason.startswith("waits because the message rate of the tenant is used up (")
            assert re.search(r"shaping\.tenant\.shop\.message_rate\); next attempt in (59m\d+s|1h)$", reason)
            answer = explained(relay, "new@y.example", "--tenant", "shop")
            assert limit(answer, "tenant.message_rate")["use"].startswith("used up: the next in 3")
            assert answer["verdict"].startswith("1 other of the domain waits, and a message would wait because the")
            # Another tenant's mail goes another way through the queue, and is not held up.
            assert "would be tried at once" in verdict(relay, "new@y.example")


CAP = """
[automation.rule.spam]
text        = ["too much of it"]
scope       = "tenant"
action      = "cap"
connections = 1
duration    = "1h"
"""


def test_what_automation_leaves_a_tenant_is_told_with_its_rule_and_use(tmp_path: Path) -> None:
    hooks = tmp_path / "policy.py"
    hooks.write_text(HOOKS)
    faults = {
        "RCPT": lambda line: b"451 4.7.1 Too much of it" if b"loud" in line else None,
        "END": lambda line: SILENCE,
    }
    with NextHop(faults=faults) as hop:
        config = f'{hop.route}{NO_RETRY}{CAP}[policy]\nfile = "{hooks}"\n'
        with clean_relay(tmp_path, config, workers=1) as relay:
            before = explained(relay, "b@y.example", "--tenant", "shop")["subjects"][0]["limits"]
            assert not [each for each in before if each["key"].startswith("automation.")]
            with SmtpClient(relay.port) as client:
                client.send(MESSAGE, "loud@y.example")
                wait_for(lambda: relay.events("automation"), "the tenant is held to one connection")
                assert workers(relay), "and the worker has heard of it"
                first = client.send(MESSAGE, "a@y.example")
                wait_for(lambda: "in hand" in verdict(relay, first), "the first has it")
                second = client.send(MESSAGE, "b@y.example")
            answer = explained(relay, "b@y.example", "--tenant", "shop")
            line = limit(answer, "automation.connections")
            assert (line["value"], line["use"], line["whose"]) == ("1", "1 in use", "tenant shop")
            assert (line["set_by"], "spam/shop" in line["note"]) == ("automation.rule.spam", True)
            reason = "all 1 connections that automation leaves tenant shop are in use"
            wait_for(lambda: reason in verdict(relay, second), "the second waits for that")
            assert f"({line['file']}:{line['line']} automation.rule.spam)" in verdict(relay, second)
            shown = relay.command("explain", "b@y.example", "--tenant", "shop").stdout
            assert re.search(r"automation.connections +1 +.*spam.*\(1 in use; counted for tenant shop alone", shown)


def test_what_automation_leaves_a_whole_site_is_told_in_the_place_of_its_limit(tmp_path: Path) -> None:
    faults = {
        "RCPT": lambda line: b"451 4.7.1 Too much of it" if b"loud" in line else None,
        "END": lambda line: SILENCE,
    }
    with NextHop(faults=faults) as hop:
        config = f"{hop.route}{NO_RETRY}{CAP}".replace('"tenant"', '"site"')
        with clean_relay(tmp_path, config, workers=1) as relay, SmtpClient(relay.port) as client:
            client.send(MESSAGE, "loud@y.example")
            wait_for(lambda: relay.events("automation"), "the site is held to one connection")
            assert workers(relay), "and the worker has heard of it"
            first = client.send(MESSAGE, "a@y.example")
            wait_for(lambda: "in hand" in verdict(relay, first), "the first has it")
            second = client.send(MESSAGE, "b@y.example")
            answer = explained(relay, "b@y.example")
            line = limit(answer, "automation.connections")
            assert (line["value"], line["use"], line["whose"]) == ("1", "1 in use", "everybody")
            assert line["set_by"] == "automation.rule.spam" and "in the place of the limit" in line["note"]
            assert limit(answer, "connections")["value"] != "1"
            reason = "the one connection that the site is allowed is in use"
            place = f"({line['file']}:{line['line']} automation.rule.spam)"
            wait_for(lambda: f"{reason} {place}" in verdict(relay, second), "the second waits for that")


def test_sources_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    sources = '[source.here]\naddress = "127.0.0.31"\n[source.away]\naddress = "198.51.100.2"\n'
    sources += "[shaping.source.here]\nconnections = 3\nall_sites = { connections = 7 }\n"
    pools = '[pool.both]\nsources = { here = 1, away = 3 }\n[[egress]]\ndomain = "y.example"\npool = "both"\n'
    with NextHop() as hop, clean_relay(tmp_path, sources + pools + hop.route + NO_RETRY) as relay:
        with SmtpClient(relay.port) as client:
            for _ in range(12):
                client.send(MESSAGE, "a@y.example")
        hop.wait_for_count(12)
        answer = explained(relay, "a@y.example")
        pool = answer["subjects"][0]["pool"]
        assert pool["name"] == "both" and "egress[0]" in pool["said_by"]
        here, away = pool["sources"]
        assert (here["percent"], away["percent"], away["weight"]) == (100.0, 0.0, 3)
        assert away["why_not"] == "suspended: 198.51.100.2 is not an address of this machine"
        for key, value in (("connections", "3"), ("all_sites.connections", "7")):
            told = limit(answer, key)
            assert (told["value"], told["set_by"]) == (value, f"shaping.source.here.{key}")
            assert told["use"].endswith(" in use")
        only_away = explained(relay, "a@y.example", "--source", "away")
        assert only_away["subjects"][0]["limits_for_source"] == "away"


def test_what_a_login_asks_of_tls_is_told(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("password\n")
    secret.chmod(0o600)
    config = f'[login.us]\nuser = "us"\npassword_file = "{secret}"\n'
    with NextHop() as hop, clean_relay(tmp_path, f'{config}{hop.route}login = "us"\n') as relay:
        (host,) = explained(relay, "a@y.example")["subjects"][0]["site"]["hosts"]
        assert (host["policy"], host["origin"]) == ("verify", "login")


def test_the_suppression_list_is_told_and_no_hit_counted(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route + '[suppression]\naction = "bounce"\n') as relay:
        assert relay.command("suppress", "add", "gone@y.example").returncode == 0
        answer = explained(relay, "gone@y.example")
        assert answer["verdict"].startswith("gone@y.example is on the suppression list (")
        assert answer["subjects"][0]["notes"][0]["text"] == answer["verdict"]
        assert metrics(relay)["angarium_suppression_hits_total"] == 0
        assert "suppression" not in verdict(relay, "here@y.example")


def test_a_standing_order_that_holds_mail_back_is_told(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        asked = ("queue", "suspend", "--domain", "y.example", "--name", "closed", "--reason", "they asked")
        assert relay.command(*asked).returncode == 0
        told = 'standing order closed (domain y.example): nothing is tried; they asked'
        assert verdict(relay, "a@y.example") == f"would wait: {told}"
        with SmtpClient(relay.port) as client:
            id_ = client.send(MESSAGE, "a@y.example")
        wait_for(lambda: verdict(relay, id_) == f"waits: {told}", "the message is explained by it")
        assert verdict(relay, "a@z.example") == "nothing waits, and a message would be tried at once"


def test_what_makes_no_sense_is_refused_in_words(tmp_path: Path) -> None:
    with clean_relay(tmp_path) as relay:
        refused = relay.command("explain", "00TR8G4FG0001")
        assert refused.returncode == 2 and "00TR8G4FG0001 is not in the queue" in refused.stderr
        assert "address: not a domain name" in relay.command("explain", "me@not a domain").stderr
        assert "--tenant" in relay.command("explain", "00TR8G4FG0001", "--tenant", "x").stderr
        assert admin_get(relay, "/v1/explain?addres=x")[0] == 400
