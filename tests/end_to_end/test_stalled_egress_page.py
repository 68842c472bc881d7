"""docs/stalled-egress.md: its example, made small, goes through the steps, and has what the page says to watch."""

from __future__ import annotations

import re
from pathlib import Path

from end_to_end.next_hop import SILENCE, NextHop
from end_to_end.relay import MESSAGE, admin_get, clean_relay, metrics
from end_to_end.smtp_client import SmtpClient
from end_to_end.test_stalled_egress import BODY, MAIL, figures
from page_examples import DOCS, of_page, retold
from relay_process import wait_for

SMALL = {
    '"512MiB"': '"1MiB"', '"64MiB"': '"256KiB"', "max_ready   = 1000": "max_ready   = 10",
    "= 50000": '= 2000\ngreeting_timeout = "1h"',
}  # fmt: skip


def test_the_steps_of_the_page_come_in_their_order(tmp_path: Path) -> None:
    config = retold(of_page("stalled-egress.md").rest, SMALL)
    with NextHop(faults={"greeting": SILENCE}) as hop, NextHop() as other:
        routes = other.route.replace('"*"', '"z.example"') + hop.route
        with clean_relay(tmp_path, config + routes) as relay, SmtpClient(relay.port) as client:
            for number in range(30):
                client.send(BODY, f"u{number}@slow.example")
            wait_for(lambda: figures(relay)["behind"] == 20, "who does not fit into the ready queue waits behind it")
            assert figures(relay)["hot_octets"] <= 11 * (len(BODY) + 1000), "without a body in memory"
            wait_for(lambda: metrics(relay)["angarium_queue_behind"] == 20, "the gauge has them")
            code = 250
            # A thousand each: near the limit MAIL waits for seconds, so few of them have to take the queue there.
            while code == 250:
                code, text = client.ask(MAIL)
                if code == 250:
                    client.say(b"".join(b"RCPT TO:<u%d@y.example>\r\n" % number for number in range(1000)))
                    assert set(client.codes(1000)) == {250}
                    assert client.ask(b"DATA\r\n")[0] == 354
                    assert client.ask(MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n")[0] == 250
            assert (code, text) == (452, "4.3.1 Too much mail waits here, try again later")
            wait_for(lambda: relay.events("queue-full"), "the log has it")
            shown = admin_get(relay, "/metrics")[1].decode()
            page = (DOCS / "stalled-egress.md").read_text()
            for name in re.findall(r"`(angarium_\w+)(?:\{[^}]*\})?`", page):
                assert re.search(rf"^{name}[ {{]", shown, re.MULTILINE), name
            assert metrics(relay)["angarium_queue_full"] == 1
            assert relay.command("queue", "delete", "--domain", "y.example").returncode == 0
            wait_for(lambda: relay.events("queue-normal"), "mail is taken again")
            client.send(MESSAGE, "a@z.example")
            other.wait_for_count(1)
            assert relay.command("queue", "delete", "--all").returncode == 0
