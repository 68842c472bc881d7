"""`angarium top` over two workers: a site that takes mail, one that defers it, one that nobody reaches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, admin_get, clean_relay
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, wait_for

NOBODY = "smtp://127.0.0.1:9"


def top(relay: RelayProcess, *words: str) -> dict[str, Any]:
    done = relay.command("top", "--once", "--json", *words)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def send(relay: RelayProcess, domain: str, count: int) -> None:
    """Over connections enough that both workers get some."""
    for _ in range(count // 5):
        with SmtpClient(relay.port) as client:
            for _ in range(5):
                client.send(MESSAGE, f"a@{domain}")


def test_sites_are_added_up_over_workers_and_put_in_the_order_asked_for(tmp_path: Path) -> None:
    later = NextHop(address="127.0.0.12", faults={"RCPT": b"450 4.7.1 Try again later"})
    with NextHop(address="127.0.0.11") as good, later:
        routes = "".join(
            f'[[route]]\ndomain = "{domain}"\nnext_hop = "{hop}"\n'
            for domain, hop in (("good.example", good.url), ("later.example", later.url), ("*", NOBODY))
        )
        with clean_relay(tmp_path, routes + NO_RETRY, workers=2) as relay:
            send(relay, "good.example", 60)
            send(relay, "later.example", 40)
            send(relay, "gone.example", 10)
            wait_for(lambda: len(relay.events("delivered", "deferred")) == 110, "all have an outcome")

            by_deferral = top(relay, "--sort", "deferral")
            rows = {row["site"]: row for row in by_deferral["rows"]}
            assert set(rows) >= {good.url, later.url}
            assert (rows[good.url]["delivered"], rows[good.url]["deferral"]) == (60, 0.0)
            assert (rows[later.url]["deferred"], rows[later.url]["deferral"]) == (40, 1.0)
            assert rows[later.url]["last"]["text"] == "4.7.1 Try again later"
            assert [row["site"] for row in by_deferral["rows"]].index(good.url) == len(rows) - 1

            # Rates are of what happens while somebody looks.
            send(relay, "good.example", 40)
            good.wait_for_count(100)
            by_rate = top(relay, "--sort", "rate", "--limit", "1")
            assert [row["site"] for row in by_rate["rows"]] == [good.url]
            assert by_rate["rows"][0]["rate"] > 0
            assert by_rate["sites"] >= 1
            assert top(relay, "--sort", "last")["rows"][0]["last"] is not None

            shown = relay.command("top", "--once").stdout.splitlines()
            assert " live sites, " in shown[0] and shown[1].split()[:2] == ["depth", "conn"]
            (line,) = [line for line in shown if good.url in line]
            assert line.split()[3:5] == ["0.0", "%"]


def test_an_order_that_is_none_is_refused(tmp_path: Path) -> None:
    with clean_relay(tmp_path) as relay:
        status, body = admin_get(relay, "/v1/top?order=size")
        assert status == 400 and b"order: one of depth, rate, deferral, connections, last" in body
        assert admin_get(relay, "/v1/top?limit=0")[0] == 400
        assert relay.command("top", "--once", "--every", "0.1").returncode == 2
        assert top(relay)["rows"] == []
