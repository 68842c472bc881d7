"""What TLS towards the next hop costs a relay, beside the same in clear, with the same next hop on the same machine.

    python benchmarks/macro/tls_out.py                  five rounds in turn, about two minutes
    python benchmarks/macro/tls_out.py --rounds 1 --seconds 2

Clients send messages of 4 KiB in clear over kept connections to the relay that is measured; it gives them to a second
one, which has a P-256 certificate and gives them to smtp-sink. In one row the first says STARTTLS, in the other it does
not (`tls = "none"`). Told are messages a second, and the CPU time of the first relay's processes per message: that is
what TLS costs it; the rate is bounded by the second relay, the sink and the clients, which share the machine.
Connections are kept, so handshakes do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import drive
import machine
from angarium_relay import CONFIGURATION, Angarium
from tls import TlsRelay, make_certificate, of_relay, ratio

RESULTS = Path(__file__).resolve().parent.parent / "results" / "tls_out.json"
ROUNDS = 5


class Sender(Angarium):
    """Its next hop is another relay, spoken to as `tls` says."""

    def __init__(self, work_directory: Path, next_port: int, tls: str) -> None:
        super().__init__(work_directory, drive.free_port(), next_port, 1)
        self._tls = tls

    def configuration(self) -> str:
        return CONFIGURATION + f'tls = "{self._tls}"\n'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--work-directory", type=Path, default=Path("/var/tmp"))
    chosen = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {"tls": [], "clear": []}
    with tempfile.TemporaryDirectory(dir=chosen.work_directory) as directory:
        folder = Path(directory)
        os.chmod(folder, 0o755)
        facts = machine.describe(folder)
        for name in ("next", *runs):
            (folder / name).mkdir()
        next_hop = TlsRelay(folder / "next", *make_certificate(folder, "P-256"), 1)
        next_hop.start()
        senders = {
            "tls": Sender(folder / "tls", next_hop.port, "encrypt"),
            "clear": Sender(folder / "clear", next_hop.port, "none"),
        }
        try:
            for sender in senders.values():
                sender.start()
            for _ in range(chosen.rounds):
                for name, sender in senders.items():
                    sender.sink_port = next_hop.sink_port       # where of_relay() puts the sink
                    row = of_relay(sender, "kept", is_tls=False, seconds=chosen.seconds)
                    print(f"{name:6} {row['per_s']:8.0f}/s {row['cpu_us']:8.0f} us of the sender", flush=True)
                    runs[name].append(row)
        finally:
            for sender in senders.values():
                sender.stop()
            next_hop.stop()
    ratios = {figure: ratio(runs["tls"], runs["clear"], figure) for figure in ("per_s", "cpu_us")}
    print(f"TLS out / in clear: {ratios['per_s']:.0%} of the rate, {ratios['cpu_us']:.0%} of the sender's CPU")
    if chosen.rounds >= ROUNDS:
        medians = {
            name: {figure: statistics.median(row[figure] for row in rows) for figure in rows[0]}
            for name, rows in runs.items()
        }
        kept = {"machine": facts, "medians": medians, "runs": runs, "ratios": ratios}
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
