"""docs/trace.md: what `angarium trace` shows of the dialogue in it is what the page shows."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from cli.test_trace import Tracer
from end_to_end.relay import clean_relay
from end_to_end.smtp_client import SmtpClient
from page_examples import fenced
from relay_process import maildir_route, wait_for

from angarium.sasl.credential_file import changing, make_entry

# Time, worker and session, and the client, which are another's here.
_LINE = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} (\d+\.\w+) +\S+ (.*)$")
LISTENER = """\
relay_from = ["127.0.0.0/8"]
auth = { offered = true, mechanisms = ["PLAIN"], allow_plaintext_from = ["127.0.0.0/8"] }
"""
LOGIN = base64.b64encode(b"\0a@x.example\0correct horse").decode()


def shown(lines: list[str]) -> list[str]:
    """What is said of each event of the last session, with what differs from run to run taken out."""
    events = [(match[1], match[2]) for line in lines if (match := _LINE.match(line))]
    found = [text for session, text in events if session == events[-1][0]]
    return [re.sub(r"queued as \w+", "queued as ID", re.sub(r"\(\d+ octets\)", "(N octets)", each)) for each in found]


def test_a_session_is_shown_as_the_page_shows_it(tmp_path: Path) -> None:
    with changing(tmp_path / "credentials", may_make=True) as credentials:
        credentials.entries["a@x.example"] = make_entry("correct horse")
    page = shown(fenced("trace.md", "")[0].splitlines())
    config = f'[auth]\ncredentials = "file:{tmp_path}/credentials"\n' + maildir_route(tmp_path)
    with clean_relay(tmp_path, config, listener=LISTENER) as relay:
        tracer = Tracer(relay, "--client", "127.0.0.0/8")

        def is_seen() -> bool:
            with SmtpClient(relay.port):
                return bool(tracer.lines)

        wait_for(is_seen, "the worker has been told of the trace")
        with SmtpClient(relay.port) as client:
            assert client.ask(f"AUTH PLAIN {LOGIN}\r\n".encode())[0] == 235
            client.send(b"Subject: x\r\n\r\nx\r\n", "b@y.example", reverse_path="a@x.example")
            assert client.ask(b"QUIT\r\n")[0] == 221
        wait_for(lambda: any("S: 221" in line for line in tracer.lines), "it is shown to its end")
        wait_for(lambda: tracer.lines[-1].endswith("-- closed"), "and its end, too")
        tracer.stop()
        said = [line.replace("mx.test", "mx1.example.net") for line in shown(tracer.lines)]
        assert LOGIN not in "".join(tracer.lines)
    assert len(page) >= 10
    assert page == [line for line in said if line in page], "each line of the page, in its order"
