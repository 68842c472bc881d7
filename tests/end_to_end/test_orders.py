"""Orders by command: the example of docs/orders.md at work, over two workers and a restart."""

from __future__ import annotations

import json
import re
import subprocess
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, admin_get, clean_relay, fix_port, outcomes, queue, wait_until_empty
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, wait_for

PAGE = Path(__file__).parents[2] / "docs" / "orders.md"


def order(relay: RelayProcess, *words: str, status: int = 0) -> str:
    done: subprocess.CompletedProcess[str] = relay.command(*words)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def places(relay: RelayProcess) -> list[str]:
    return sorted(f"{message['domains'][0]} {message['places'][0]}" for message in queue(relay))


def test_a_standing_order_holds_in_all_workers_and_over_a_restart(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route + NO_RETRY, workers=2) as relay:
        fix_port(relay, hop.route + NO_RETRY)
        said = order(relay, "queue", "suspend", "--domain", "y.example", "--name", "closed", "--reason", "they asked")
        assert said.splitlines() == [
            "0 recipients of 0 messages are suspended",
            'order "closed" holds, and what comes later, until it is cancelled',
        ]
        for number in range(10):                # a connection each: both workers get some
            with SmtpClient(relay.port) as client:
                client.send(MESSAGE, f"a{number}@y.example")
                client.send(MESSAGE, f"b{number}@z.example")
        wait_for(lambda: len(relay.events("delivered")) == 10, "the others are delivered")
        wait_for(lambda: places(relay) == ["y.example suspended"] * 10, "all are suspended")

        assert relay.stop() == 0
        relay.start()
        wait_for(lambda: places(relay) == ["y.example suspended"] * 10, "all are suspended again")
        status, held = admin_get(relay, "/v1/in-force?domain=y.example")
        assert status == 200 and [each["name"] for each in json.loads(held)] == ["closed"]
        assert admin_get(relay, "/v1/in-force?domain=z.example")[1] == b"[]\n"
        assert admin_get(relay, "/v1/in-force?domian=z.example")[0] == 400
        listed = order(relay, "orders", "list")
        assert re.fullmatch(
            r"closed  suspend  domain y\.example  since \S+, until it is cancelled: they asked\n", listed
        )
        assert "10 recipients of 10 messages are meant; nothing was done" in order(
            relay, "queue", "delete", "--domain", "y.example", "--dry-run"
        )
        assert order(relay, "orders", "cancel", "closed") == 'order "closed" is cancelled\n'
        wait_until_empty(relay)
        assert order(relay, "orders", "list") == ""
        assert len(relay.events("delivered")) == 20
        told = [(event["what"], event["name"]) for event in relay.events("order")]
        assert told == [("made", "closed"), ("cancelled", "closed")]


def test_an_order_ends_in_time_and_is_gone_from_the_list(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route + NO_RETRY) as relay:
        order(relay, "queue", "suspend", "--all", "--for", "1s", "--name", "short")
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "a@y.example")
        wait_until_empty(relay)
        wait_for(lambda: relay.events("order")[-1]["what"] == "ended", "the order has ended")
        assert json.loads(order(relay, "orders", "list", "--json")) == {"orders": []}


def test_a_part_of_what_is_suspended_goes_for_a_time(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route + NO_RETRY, workers=2) as relay:
        fix_port(relay, hop.route + NO_RETRY)
        order(relay, "queue", "suspend", "--all", "--name", "closed")
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "a@y.example")
            client.send(MESSAGE, "b@z.example")
        wait_for(lambda: places(relay) == ["y.example suspended", "z.example suspended"], "both are suspended")
        words = ("queue", "resume", "--domain", "y.example", "--for", "1h", "--name", "open")
        assert "1 recipients of 1 messages are meant; nothing was done" in order(relay, *words, "--dry-run")
        assert order(relay, *words).splitlines() == [
            "1 recipients of 1 messages are tried again",
            'order "open" holds, and what comes later, for 1h',
        ]
        wait_for(lambda: places(relay) == ["z.example suspended"], "one of them goes")
        assert relay.stop() == 0
        relay.start()
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "c@y.example")
        wait_for(lambda: outcomes(relay).get("c@y.example") == ["delivered"], "what comes later goes")
        assert order(relay, "orders", "cancel", "open")
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "d@y.example")
        wait_for(lambda: places(relay) == ["y.example suspended", "z.example suspended"], "as before")


def test_deferrals_are_tried_again_every_so_often_for_a_time(tmp_path: Path) -> None:
    with NextHop(faults={"RCPT": lambda line: b"450 4.2.1 busy" if b"slow" in line else None}) as hop:
        config = hop.route + NO_RETRY
        with clean_relay(tmp_path, config, workers=2) as relay:
            fix_port(relay, config)
            with SmtpClient(relay.port) as client:
                client.send(MESSAGE, "a@slow.example")
            wait_for(lambda: outcomes(relay) == {"a@slow.example": ["deferred"]}, "it is deferred")
            said = order(relay, "queue", "retry", "--domain", "slow.example", "--for", "1h", "--every", "5m")
            assert said.splitlines() == [
                "1 recipients of 1 messages are tried now", 'order "retry-1" holds, and what comes later, for 1h'
            ]  # fmt: skip
            wait_for(lambda: outcomes(relay) == {"a@slow.example": ["deferred"] * 2}, "it is tried at once")
            with SmtpClient(relay.port) as client:
                client.send(MESSAGE, "b@slow.example")
            wait_for(lambda: places(relay) == ["slow.example deferred"] * 2, "both wait")
            for message in queue(relay):
                assert 200 < message["next_attempt_utc_s"] - time.time() <= 301
            assert "retry every 5m" in order(relay, "orders", "list")
            explained = order(relay, "explain", "b@slow.example")
            assert "what is deferred is tried again after 5m at the latest" in explained


def test_a_suspension_comes_back_in_steps_and_is_cancelled(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route + NO_RETRY, workers=2) as relay:
        fix_port(relay, hop.route + NO_RETRY)
        site = f"smtp://127.0.0.1:{hop.port}"
        times = ("--for", "1s", "--recovery", "1h", "--steps", "3")
        order(relay, "queue", "suspend", "--site", site, "--name", "x", *times)
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "a@y.example")
        wait_for(lambda: "x  recovering, 25 % of connections and rates" in order(relay, "orders", "list"), "it is over")
        wait_until_empty(relay)
        assert relay.stop() == 0
        relay.start()
        assert "recovering, 25 % of connections and rates (step 1 of 3)" in order(relay, "orders", "list")
        assert [each["what"] for each in relay.events("order")] == ["made", "recovering", "recovering"]
        assert "standing order x" in order(relay, "explain", "a@y.example")
        order(relay, "orders", "cancel", "x")
        assert [(each["what"], each["name"]) for each in relay.events("order")][-1] == ("cancelled", "x")


def test_the_log_tells_of_each_step_in_which_a_suspension_comes_back(tmp_path: Path) -> None:
    def told(relay: RelayProcess) -> list[tuple[str, int | None]]:
        return [(each["what"], each.get("step")) for each in relay.events("order")]

    with NextHop() as hop, clean_relay(tmp_path, hop.route) as relay:
        # Steps of six seconds: one that has passed before the supervisor had its turn is none that it could tell of.
        times = ("--for", "1s", "--recovery", "12s", "--steps", "2")
        order(relay, "queue", "suspend", "--tenant", "t", "--name", "x", *times)
        wait_for(lambda: "(step 1 of 2)" in order(relay, "orders", "list"), "the list says which step")
        wait_for(lambda: told(relay)[-1][0] == "ended", "all is back", 40)
        assert told(relay) == [("made", None), ("recovering", 1), ("step", 2), ("ended", None)]
        assert relay.events("order")[2]["effect"] == "recovering, 67 % of connections and rates"


def test_a_bounce_reports_to_the_sender_and_a_reroute_goes_elsewhere(tmp_path: Path) -> None:
    with NextHop() as hop, NextHop() as other, clean_relay(tmp_path, hop.route + NO_RETRY) as relay:
        to = f"smtp://127.0.0.1:{other.port}"
        said = order(relay, "queue", "reroute", "--domain", "y.example", "--to", to, "--for", "1h")
        assert 'order "reroute-1" holds, and what comes later, for 1h' in said
        order(relay, "queue", "bounce", "--recipient", "b@y.example", "--name", "gone", "--status", "5.1.6",
              "--code", "550", "--reason", "Has left us")  # fmt: skip
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE, "a@y.example", reverse_path="me@x.example")
            client.send(MESSAGE, "b@y.example", reverse_path="me@x.example")
            client.send(MESSAGE, "c@z.example", reverse_path="me@x.example")
        wait_until_empty(relay)
        found = outcomes(relay)
        assert found["b@y.example"] == ["failed"] and found["a@y.example"] == found["c@z.example"] == ["delivered"]
        assert [delivery.rcpts[0] for delivery in other.deliveries] == [b"RCPT TO:<a@y.example>"]
        assert len(hop.deliveries) == 2         # c, and the report
        (report,) = [each for each in hop.deliveries if each.mail.startswith(b"MAIL FROM:<>")]
        assert b"Status: 5.1.6" in report.message and b"550 Has left us" in report.message


def test_nonsense_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    with NextHop() as hop, clean_relay(tmp_path, hop.route + NO_RETRY) as relay:
        for words, reason in (
            (("suspend",), "which mail? Give filters, or --all"),
            (("suspend", "--all", "--domain", "y.example"), "which mail?"),
            (("suspend", "--domain", "y..example"), '--domain: "y..example" is neither'),
            (("suspend", "--domain", ""), "is empty"),
            (("reroute", "--domain", "y.example"), "reroute needs a next hop or a pool"),
            (("reroute", "--domain", "y.example", "--to", "bogus:x"), "route:"),
            (("reroute", "--domain", "y.example", "--to-pool", "dfault"), 'did you mean "default"?'),
            (("bounce", "--all", "--status", "4.1.1"), "of class 5"),
            (("resume", "--domain", "y.example"), "nothing of that is suspended"),
            (("suspend", "--all", "--for", "soon"), "expected a duration"),
            (("resume", "--domain", "y.example", "--for", "1h"), "nothing of that is suspended"),
            (("retry", "--all", "--every", "5m"), "of a retry with for_s"),
            (("retry", "--all", "--for", "1h", "--every", "5s"), "every_s: 30 to 86400"),
            (("suspend", "--domain", "y.example", "--for", "1h", "--recovery", "1h"), "by other filters"),
            (("suspend", "--tenant", "shop", "--recovery", "1h"), "of a suspension with for_s"),
        ):
            assert reason in order(relay, "queue", *words, status=2), words
        order(relay, "queue", "suspend", "--domain", "y.example", "--name", "one")
        assert 'there is an order "one" already' in order(
            relay, "queue", "suspend", "--domain", "z.example", "--name", "one", status=2
        )
        assert order(relay, "queue", "resume", "--domain", "y.example").endswith('order "one" is cancelled\n')
        assert 'there is no order "one"' in order(relay, "orders", "cancel", "one", status=1)


def test_the_commands_of_the_page_are_understood(tmp_path: Path) -> None:
    """In order; what they say is what the page says they do, but for times."""
    text = "".join(re.findall(r"```console example\n(.*?)```", PAGE.read_text(), re.DOTALL))
    (config,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    config = config[config.index("[shaping") :]
    with NextHop(faults={"RCPT": lambda line: b"450 4.2.1 busy" if b"slow" in line else None}) as hop:
        config = config.replace("smtp://127.0.0.1:2526", f"smtp://127.0.0.1:{hop.port}")
        with clean_relay(tmp_path, config + NO_RETRY) as relay:
            with SmtpClient(relay.port) as client:
                client.send(MESSAGE, "a@slow.example", reverse_path="me@x.example")
                client.send(MESSAGE, "b@slow.example", reverse_path="me@x.example")
            wait_for(lambda: places(relay) == ["slow.example deferred"] * 2, "both are deferred")
            for command, expected in re.findall(r"^\$ angarium ([^\n]+)\n((?:[^$\n][^\n]*\n)*)", text, re.MULTILINE):
                said = order(relay, *(word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command)))
                shape = re.sub(r"since \w+|\d\w*[smhd] more", "TIME", said)
                assert shape == re.sub(r"since \w+|\d\w*[smhd] more", "TIME", expected), command


def test_the_hook_of_the_page_holds_mail_until_the_time_in_its_header(tmp_path: Path) -> None:
    (text,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    hooks = tmp_path / "policy.py"
    hooks.write_text(text.replace("not message.client.user", "False"))      # nobody logs in here
    with NextHop() as hop, clean_relay(tmp_path, f'[policy]\nfile = "{hooks}"\n{hop.route}{NO_RETRY}') as relay:
        with SmtpClient(relay.port) as client:
            when = format_datetime(datetime.now(UTC) + timedelta(hours=1))
            client.send(f"X-Send-At: {when}\r\n".encode() + MESSAGE, "later@y.example")
            client.send(MESSAGE, "now@y.example")
            client.open("never@y.example")
            client.ask(b"DATA\r\n")
            code, reply = client.ask(b"X-Send-At: tomorrow\r\n\r\n.\r\n")
            assert code == 550 and "X-Send-At is not a date with a time zone" in str(reply)
        hop.wait_for_count(1)
        wait_for(lambda: relay.events("delivered"), "and the relay knows")
        (held,) = queue(relay, "--state", "held")
        assert 3500 < held["next_attempt_utc_s"] - held["received_utc_s"] < 3700
        assert order(relay, "queue", "retry", "--all") == "1 recipients of 1 messages are tried now\n"
        deliveries = hop.wait_for_count(2)
        assert deliveries[1].rcpts == (b"RCPT TO:<later@y.example>",) and b"X-Send-At" not in deliveries[1].message
        wait_until_empty(relay)
