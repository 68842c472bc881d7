"""A spool whose file system runs low: new mail waits outside, what is inside leaves.

What is free cannot be changed by a test; the mark can, by a reload.
"""

from __future__ import annotations

from pathlib import Path

from end_to_end.next_hop import NextHop
from end_to_end.relay import MESSAGE, NO_RETRY, clean_relay, metrics, wait_until_empty
from end_to_end.smtp_client import SmtpClient
from end_to_end.test_reload import reload
from relay_process import RelayProcess, wait_for

MAIL = b"MAIL FROM:<a@x.example>\r\n"


def set_mark(relay: RelayProcess, config: str, size: str) -> None:
    relay.node = f'min_free = "{size}"\n'
    reload(relay, config)


def test_below_the_mark_mail_is_put_off_and_delivery_goes_on(tmp_path: Path) -> None:
    refused = {"RCPT": lambda _: b"450 4.2.0 later" if is_closed else None}
    is_closed = True
    with NextHop(faults=refused) as hop, clean_relay(tmp_path, hop.route + NO_RETRY) as relay:
        with SmtpClient(relay.port) as client:
            client.send(MESSAGE)
            wait_for(lambda: relay.events("deferred"), "one is in the queue")
            client.open()  # under way when it happens: taken
            set_mark(relay, hop.route + NO_RETRY, "8000000TiB")
            wait_for(lambda: relay.events("spool-low"), "it is seen")
            assert client.ask(b"DATA\r\n")[0] == 354
            assert client.ask(MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n")[0] == 250
            code, text = client.ask(MAIL)
            assert (code, text[:5]) == (452, "4.3.1")
            assert metrics(relay)["angarium_spool_low"] == 1
            is_closed = False
            assert relay.command("queue", "retry", "--all").returncode == 0
            wait_until_empty(relay)
            hop.wait_for_count(2)
            set_mark(relay, hop.route + NO_RETRY, "1MiB")
            wait_for(lambda: relay.events("spool-recovered"), "it is over")
            client.send(MESSAGE)
            hop.wait_for_count(3)
        assert len(relay.events("spool-low", "spool-recovered")) == 2
