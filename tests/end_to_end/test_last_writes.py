"""What fails in the very last writes of a worker, when nobody looks any more but at its end, is told too."""

from __future__ import annotations

import json
import resource
from pathlib import Path

from end_to_end.next_hop import NextHop
from end_to_end.relay import NO_RETRY, queue, wait_until_empty
from end_to_end.smtp_client import SmtpClient
from relay_process import RelayProcess, wait_for

# The message takes the segment beyond the limit, under which the worker can still write its log and its small files.
LONG_OCTETS = 600_000
LIMIT_OCTETS = 300_000


def attempts(relay: RelayProcess) -> list[int]:
    listed = relay.command("spool", "ls", "--json")
    return [each["attempts"] for line in listed.stdout.splitlines() for each in json.loads(line)["recipients"]]


def test_a_footer_that_cannot_be_written_at_a_stop_is_told_and_costs_no_mail(tmp_path: Path) -> None:
    message = b"Subject: long\r\n\r\n" + b"\r\n".join([b"x" * 70] * (LONG_OCTETS // 72)) + b"\r\n"
    is_closed = True
    refused = {"RCPT": lambda _: b"450 4.2.0 later" if is_closed else None}
    with NextHop(faults=refused) as hop, RelayProcess(tmp_path, hop.route + NO_RETRY) as relay:
        with SmtpClient(relay.port) as client:
            client.send(message)
        wait_for(lambda: attempts(relay) == [1], "it waits for an hour, and that is on the disk")
        (worker,) = relay.workers()
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (LIMIT_OCTETS, resource.RLIM_INFINITY))
        assert not relay.events("spool")
        assert relay.stop() == 0
        reports = [event["report"] for event in relay.events("spool")]
        assert any("footer not written: File too large" in report for report in reports), reports

        is_closed = False
        relay.start()
        wait_for(lambda: queue(relay), "it is found again")
        assert relay.command("queue", "retry", "--all").returncode == 0
        wait_until_empty(relay)
        hop.wait_for_count(1)
        assert not relay.events("spool-damaged", "spool-unread")
        assert relay.stop() == 0
