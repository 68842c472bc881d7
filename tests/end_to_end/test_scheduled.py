"""A message that says by a header field when it is to be sent waits until then, and leaves without the field."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, clean_relay, queue, wait_until_empty
from end_to_end.smtp_client import SmtpClient
from relay_process import wait_for

LISTENER = """
relay_from = ["127.0.0.0/8"]
[listener.extensions]
future_release       = "7d"
future_release_field = "X-Send-At"
"""


def test_it_is_held_over_a_restart_and_leaves_without_its_field(tmp_path: Path) -> None:
    moment = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    with NextHop() as hop:
        with clean_relay(tmp_path, hop.route, listener=LISTENER) as relay, SmtpClient(relay.port) as client:
            id_ = client.send(f"X-Send-At: {moment.isoformat()}\r\n".encode() + MESSAGE, "b@y.example")
            client.send(MESSAGE, "now@y.example")
            hop.wait_for_count(1)
        assert [delivery.to for delivery in hop.deliveries] == [["now@y.example"]]
        with clean_relay(tmp_path, hop.route, listener=LISTENER) as relay:
            (held,) = wait_for(lambda: queue(relay), "the backlog is loaded")
            assert held["id"] == id_
            explained = relay.command("explain", id_).stdout
            assert "set a time before which it is not tried" in explained.splitlines()[0]
            assert relay.command("queue", "retry", id_).returncode == 0
            hop.wait_for_count(2)
            wait_until_empty(relay)
        assert [delivery.content for delivery in hop.deliveries] == [MESSAGE, MESSAGE]
