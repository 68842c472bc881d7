"""Signed zones as the world has them: Knot serves them, unbound validates, on addresses of the loopback of our own.

Some that Knot signs, some that are not signed, and some whose signatures are spoilt.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
from interop.programs import end, free_port, program, run
from relay_process import wait_for

KNOT_CONF = """\
server:
    rundir: {root}/run
    listen: 127.0.0.1@{port}
database:
    storage: {root}/db
policy:
  - id: ours
    algorithm: ecdsap256sha256
template:
  - id: default
    storage: {root}/zones
    file: "%s.zone"
    zonefile-load: whole
    zonefile-sync: -1
    journal-content: none
zone:
"""
UNBOUND_CONF = """\
server:
    interface: {address}
    port: {port}
    do-daemonize: no
    use-syslog: no
    username: ""
    chroot: ""
    directory: "{root}"
    pidfile: "{root}/unbound.pid"
    do-not-query-localhost: no
    module-config: "validator iterator"
    do-ip6: no
    local-zone: "test." nodefault
    ede: yes
    num-threads: 1
    {anchors}
"""
STUB = """\
stub-zone:
    name: "{zone}"
    stub-addr: 127.0.0.1@{port}
"""


class SignedZones:
    """address: of the validating name server, port 53, as programs without a choice of port want it."""

    def __init__(self, address: str, root: Path, knot: subprocess.Popen[bytes]) -> None:
        self.address = address
        self._root = root
        self._knot = knot
        self._changes = 0

    def change(self, zone: str, records: str) -> None:
        """Other records for a zone that is not bogus; signed anew where it was. Who has asked keeps the old ones for
        their time."""
        self._changes += 1
        _write(self._root, zone, records, serial=self._changes * 1000)     # above what Knot has made of the last one
        self._knot.send_signal(signal.SIGHUP)

    def ask(self, name: str, rdtype: str) -> dns.message.Message:
        query = dns.message.make_query(name, rdtype, want_dnssec=False)
        query.flags |= dns.flags.AD
        return dns.query.udp(query, self.address, timeout=5)


def spoilt(path: Path) -> None:
    """Every signature of TLSA records in a signed zone file is made one that does not hold."""
    lines = [line.split() for line in path.read_text().splitlines()]
    for words in lines:
        if "RRSIG" in words and words[words.index("RRSIG") + 1] == "TLSA":
            words[-1] = ("B" if words[-1][0] == "A" else "A") + words[-1][1:]
    path.write_text("".join(" ".join(words) + "\n" for words in lines))


@contextlib.contextmanager
def signed_zones(
    root: Path, zones: dict[str, str], *, unsigned: set[str], bogus: set[str], address: str
) -> Iterator[SignedZones]:
    """zones: name -> records in zone-file text without SOA and NS. Served until the end of the block."""
    port = free_port()
    for name in ("run", "db", "zones", "unbound"):
        (root / name).mkdir()
    conf = KNOT_CONF.format(root=root, port=port)
    for zone, records in zones.items():
        _write(root, zone, records, serial=1)
        conf += f"  - domain: {zone}\n"
        if zone not in unsigned | bogus:
            conf += "    dnssec-signing: on\n    dnssec-policy: ours\n"
    anchors = []
    for zone in bogus:
        anchors.append(_sign_and_spoil(root, zone))
    (root / "knot.conf").write_text(conf)
    knot = subprocess.Popen(
        [program("knotd"), "-c", str(root / "knot.conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with contextlib.ExitStack() as stack:
            wait_for(lambda: all(_has_keys(port, zone) for zone in set(zones) - unsigned), "Knot signs", 30)
            for zone in set(zones) - unsigned - bogus:
                anchors.append(_ds_of(root, zone))
            _start_unbound(stack, root, port, zones, anchors=anchors, address=address)
            yield SignedZones(address, root, knot)
    finally:
        end(knot)


def _write(root: Path, zone: str, records: str, *, serial: int) -> None:
    head = f"$ORIGIN {zone}.\n$TTL 60\n@ SOA ns hostmaster {serial} 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n"
    (root / "zones" / f"{zone}.zone").write_text(f"{head}{records}\n")


def _has_keys(port: int, zone: str) -> bool:
    query = dns.message.make_query(zone, "DNSKEY")
    with contextlib.suppress(OSError, dns.exception.DNSException):
        return bool(dns.query.udp(query, "127.0.0.1", port=port, timeout=1).answer)
    return False


def _ds_of(root: Path, zone: str) -> str:
    lines = run("keymgr", "-c", str(root / "knot.conf"), zone, "ds").splitlines()
    (line,) = [each for each in lines if " DS " in each and " 2 " in each][:1]
    return line


def _sign_and_spoil(root: Path, zone: str) -> str:
    """ldns signs it off-line; returns its DS record."""
    folder = root / "zones"
    key = run_in(folder, "ldns-keygen", "-a", "ECDSAP256SHA256", "-k", zone).split()[-1]
    run_in(folder, "ldns-signzone", "-f", f"{zone}.signed", f"{zone}.zone", key)
    (folder / f"{zone}.signed").replace(folder / f"{zone}.zone")
    spoilt(folder / f"{zone}.zone")
    return (folder / f"{key}.ds").read_text().strip()


def run_in(folder: Path, name: str, *words: str) -> str:
    done = subprocess.run(
        [program(name), *words], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _start_unbound(
    stack: contextlib.ExitStack, root: Path, port: int, zones: dict[str, str], *, anchors: list[str], address: str
) -> None:
    texts = [f'trust-anchor: "{" ".join(anchor.split())}"' for anchor in anchors]
    texts += ['domain-insecure: "test."'] if not anchors else []
    conf = UNBOUND_CONF.format(address=address, port=53, root=root / "unbound", anchors="\n    ".join(texts))
    conf += "".join(STUB.format(zone=zone, port=port) for zone in zones)
    (root / "unbound.conf").write_text(conf)
    unbound = subprocess.Popen(
        [program("unbound"), "-d", "-c", str(root / "unbound.conf")],
        stdout=subprocess.DEVNULL, stderr=(root / "unbound.log").open("wb"),
    )  # fmt: skip
    stack.callback(end, unbound)
    zone = next(iter(zones))

    def answers() -> bool:
        with contextlib.suppress(OSError, dns.exception.DNSException):
            return bool(dns.query.udp(dns.message.make_query(zone, "SOA"), address, timeout=1).answer)
        return False

    wait_for(lambda: answers() or unbound.poll() is not None, "unbound answers", 30)
    assert unbound.poll() is None, (root / "unbound.log").read_text()


def loopback_of_our_own() -> str:
    """An address of 127.0.0.0/8 that no other test of this run has: port 53 is the same for all."""
    number = os.getpid()
    return f"127.53.{number >> 8 & 255}.{number & 255 or 1}"
