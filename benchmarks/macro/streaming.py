"""Five hundred messages of 20 MB at the same time: how much memory does it take to receive and to deliver them?

    python benchmarks/macro/streaming.py                     one worker, 500 sessions, 20 MB: the bar is 256 MiB
    python benchmarks/macro/streaming.py --sessions 100 --size-octets 5000000

`angarium blast` -> one worker -> smtp-sink, all at once: deliveries run while the rest is received. The figure is the
peak of the summed PSS of supervisor and worker, sampled five times a second. Needs some 12 GB of disk for a minute.
Writes results/streaming.json. Exit status: 0 when the bar is met.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import drive
import machine
import process_tree
from angarium_relay import Angarium

BAR_OCTETS = 256 << 20
SAMPLE_S = 0.2
STALL_S = 600.0
RESULTS = Path(__file__).resolve().parent.parent / "results" / "streaming.json"


def blast(port: int, sessions: int, size_octets: int) -> subprocess.Popen[bytes]:
    options = f"--sessions {sessions} --messages {sessions} --size {size_octets} --timeout {STALL_S:.0f} --no-progress"
    return subprocess.Popen(
        [sys.executable, "-m", "angarium.cli.main", "blast", "--server", f"127.0.0.1:{port}", *options.split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--size-octets", type=int, default=20_000_000)
    parser.add_argument("--work-directory", type=Path, default=Path("/var/tmp"))
    chosen = parser.parse_args()
    process_tree.raise_descriptor_limit(4 * chosen.sessions)
    with tempfile.TemporaryDirectory(dir=chosen.work_directory) as directory:
        os.chmod(directory, 0o755)
        relay = Angarium(Path(directory), drive.free_port(), drive.free_port(), workers=1)
        relay.start()
        try:
            with drive.sink(relay.sink_port) as behind:
                start, peak, accepted_s = time.monotonic(), 0, 0.0
                load = blast(relay.port, chosen.sessions, chosen.size_octets)
                while behind.poll() < chosen.sessions:
                    peak = max(peak, process_tree.memory(relay.pid).pss_octets)
                    time.sleep(SAMPLE_S)
                    if not accepted_s and load.poll() is not None:
                        accepted_s = time.monotonic() - start
                        if load.returncode:
                            print(load.stderr.read().decode() if load.stderr else "", file=sys.stderr)
                            return 2
                    if time.monotonic() - start > STALL_S:
                        print(f"{behind.poll()} messages after {STALL_S:.0f} s", file=sys.stderr)
                        return 2
                took = time.monotonic() - start
                load.wait()
        finally:
            relay.stop()
        facts = machine.describe(Path(directory))
    total = chosen.sessions * chosen.size_octets
    if total >= parser.get_default("sessions") * parser.get_default("size_octets"):
        result = {
            "measured_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": facts,
            "messages": chosen.sessions,
            "octets_each": chosen.size_octets,
            "peak_pss_octets": peak,
            "bar_octets": BAR_OCTETS,
            "is_met": peak < BAR_OCTETS,
            "accepted_s": round(accepted_s or took, 1),
            "delivered_s": round(took, 1),
        }
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"{chosen.sessions} messages of {chosen.size_octets / 1e6:.0f} MB at once: peak {peak / 2**20:.0f} MiB "
        f"(bar {BAR_OCTETS >> 20}), accepted in {accepted_s or took:.0f} s, delivered in {took:.0f} s, "
        f"{total / took / 1e6:.0f} MB/s in and out"
    )
    return 0 if peak < BAR_OCTETS else 1


if __name__ == "__main__":
    sys.exit(main())
