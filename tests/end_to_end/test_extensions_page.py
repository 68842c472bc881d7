"""docs/extensions.md: each listener of its example offers, takes and refuses what the page says."""

from __future__ import annotations

import re
from pathlib import Path

from end_to_end.relay import MESSAGE, clean_relay, queue
from end_to_end.smtp_client import SmtpClient
from interop.programs import free_port
from page_examples import fenced, of_page, retold
from relay_process import maildir_route, wait_for


def test_each_listener_of_the_example_offers_what_the_page_says(tmp_path: Path) -> None:
    example, inner = of_page("extensions.md"), free_port()
    rest = retold(example.rest, {"127.0.0.1:2525": f"127.0.0.1:{inner}"})
    listener = retold(example.listener, {'address = "0.0.0.0:25"\n': ""})
    with clean_relay(tmp_path, rest + maildir_route(tmp_path), listener=listener) as relay:
        (outer,) = {int(word.rpartition(":")[2]) for word in relay.started().split(", ")} - {inner}
        with SmtpClient(outer) as client:
            offered = client.extensions.splitlines()
            assert {"NO-SOLICITING net.example:ADV", "DELIVERBY 120"} <= set(offered)
            assert any(line.startswith("LIMITS ") and "MAILMAX=100" in line for line in offered)
            assert client.ask(b"MAIL FROM:<a@x.example> SOLICIT=net.example:ADV\r\n")[0] == 550
            assert client.ask(b"MAIL FROM:<a@x.example> BY=60;R\r\n")[0] == 555
            client.send(MESSAGE, "b@example.com", mail=" BY=300;N")
        with SmtpClient(inner) as client:
            day = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
            (said,) = (text for text in fenced("extensions.md", "text") if text.startswith("250-BINARYMIME"))
            told = [day.sub("", line) for line in client.extensions.splitlines()]
            assert [day.sub("", line[4:]) for line in said.splitlines()] == [
                line for line in told if line.split()[0] in said
            ]
            octets = b"Subject: binary\r\n\r\n\0\r\n"
            client.ask(b"MAIL FROM:<a@x.example> BODY=BINARYMIME\r\n")
            client.ask(b"RCPT TO:<c@y.example>\r\n")
            assert client.ask(b"BDAT %d LAST\r\n%s" % (len(octets), octets))[0] == 250
            held_id = client.send(MESSAGE, "d@y.example", mail=" HOLDFOR=86400")
        wait_for(lambda: len(relay.events("delivered")) == 2, "what is not held is delivered")
        (held,) = queue(relay, "--state", "held")
        assert held["id"] == held_id
