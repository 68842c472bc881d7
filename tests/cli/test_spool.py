"""`angarium spool` from outside, over spools that the real shard wrote."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from end_to_end.relay import clean_relay
from end_to_end.smtp_client import SmtpClient
from relay_process import angarium, maildir_route, wait_for
from spool_writer import Written, fill

from angarium.cli.main import main
from angarium.spool.directory import SpoolDirectory
from angarium.spool.envelope import decode_id, encode_id

ORDERS = ("check", "ls", "cat", "export", "import", "repair", "upgrade")


def spool(*words: str | Path, at: Path) -> subprocess.CompletedProcess[str]:
    return angarium("spool", *map(str, words), "--spool", str(at))


def cat(message_id: str, at: Path) -> bytes:
    command = [sys.executable, "-m", "angarium.cli.main", "spool", "cat", message_id, "--spool", str(at)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(command, capture_output=True, check=True, env=environment).stdout


def listed(at: Path) -> dict[str, dict]:
    done = spool("ls", "--json", at=at)
    assert (done.returncode, done.stderr) == (0, "")
    return {each["id"]: each for each in map(json.loads, done.stdout.splitlines())}


def contents(at: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a directory, but for locks: modification time and octets."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(at.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


@pytest.fixture
def written(tmp_path: Path) -> dict[int, Written]:
    return asyncio.run(fill(tmp_path / "spool", seed=7, messages=25, shards=2, streamed=2))


@pytest.mark.parametrize("order", ORDERS)
def test_each_order_explains_itself(order: str) -> None:
    done = angarium("spool", order, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: angarium spool {order} ")
    assert order in angarium("spool", "--help").stdout


def test_a_good_spool_is_good_and_untouched(tmp_path: Path, written: dict[int, Written]) -> None:
    before = contents(tmp_path / "spool")
    done = spool("check", at=tmp_path / "spool")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{len(written)} live messages: no damage" in done.stdout
    one = spool("check", "01", "--json", at=tmp_path / "spool")
    assert one.returncode == 0
    assert {json.loads(line).get("shard", 1) for line in one.stdout.splitlines()} == {1}
    assert spool("check", "07", at=tmp_path / "spool").returncode == 2
    assert contents(tmp_path / "spool") == before


def test_ls_tells_every_live_message_and_nothing_settled(tmp_path: Path, written: dict[int, Written]) -> None:
    found = listed(tmp_path / "spool")
    assert sorted(found) == sorted(map(encode_id, written))
    for message_id, wanted in written.items():
        told = found[encode_id(message_id)]
        assert told["octets"] == len(wanted.octets)
        assert told["reverse_path"] == wanted.envelope.reverse_path.decode()
        paths = [each.forward_path.decode() for each in wanted.envelope.recipients]
        assert [each["forward_path"] for each in told["recipients"]] == paths
        for at, each in enumerate(told["recipients"]):
            state = wanted.states[at] if wanted.states else None
            assert each["attempts"] == (state.attempts if state else 0)
            assert each["outcome"] == (state.status.name.lower() if state else "waiting")
    text = spool("ls", at=tmp_path / "spool").stdout
    assert all(encode_id(message_id) in text for message_id in written)


def test_cat_gives_the_octets_as_received(tmp_path: Path, written: dict[int, Written]) -> None:
    chosen = sorted(written, key=lambda message_id: len(written[message_id].octets))
    for message_id in (chosen[0], chosen[-1]):
        assert cat(encode_id(message_id), tmp_path / "spool") == written[message_id].octets
        told = spool("cat", "--envelope", encode_id(message_id), at=tmp_path / "spool")
        assert json.loads(told.stdout)["id"] == encode_id(message_id)
    done = spool("cat", "00TR4P4JG0001", at=tmp_path / "spool")
    assert (done.returncode, done.stderr) == (2, "angarium: no live message 00TR4P4JG0001\n")


def test_export_and_import_bring_everything_into_another_spool(tmp_path: Path, written: dict[int, Written]) -> None:
    done = spool("export", "--all", "--to", tmp_path / "mail", at=tmp_path / "spool")
    assert (done.returncode, done.stderr) == (0, "")
    asyncio.run(fill(tmp_path / "other", messages=0))
    done = spool("import", tmp_path / "mail", "--json", at=tmp_path / "other")
    assert (done.returncode, done.stderr) == (0, "")
    new_ids = {each["was"]: each["id"] for each in map(json.loads, done.stdout.splitlines())}
    before, after = listed(tmp_path / "spool"), listed(tmp_path / "other")
    assert sorted(new_ids) == sorted(before)
    for old, new in new_ids.items():
        assert {**after[new], "id": old} == before[old]
    biggest = max(written, key=lambda message_id: len(written[message_id].octets))
    assert cat(new_ids[encode_id(biggest)], tmp_path / "other") == written[biggest].octets
    assert spool("check", at=tmp_path / "other").returncode == 0


def test_an_interrupted_export_goes_on_where_it_was(tmp_path: Path, written: dict[int, Written]) -> None:
    to = tmp_path / "mail"
    assert spool("export", "--all", "--to", to, at=tmp_path / "spool").returncode == 0
    wanted = contents(to)
    first, second, third, *_ = sorted(to.glob("*.eml"))
    # Killed between two files, and in the midst of one.
    first.with_suffix(".json").unlink()
    second.unlink()
    second.with_suffix(".json").unlink()
    Path(f"{second}.new").write_bytes(b"Subj")
    again = spool("export", "--all", "--to", to, at=tmp_path / "spool")
    assert (again.returncode, again.stderr) == (0, "")
    assert f"{len(written)} messages in" in again.stdout
    found = contents(to)
    assert [(name, octets) for name, (_, octets) in found.items()] == [(n, octets) for n, (_, octets) in wanted.items()]
    made = {str(path) for path in (first.with_suffix(".json"), second, second.with_suffix(".json"))}
    assert {name for name in found if found[name] != wanted[name]} == made
    # What somebody else has put there stays, and the others are exported all the same.
    third.write_bytes(b"mine")
    first.unlink()
    refused = spool("export", "--all", "--to", to, at=tmp_path / "spool")
    assert refused.returncode == 1
    assert refused.stderr == f"angarium: not exported: {third} is there already, with other content\n"
    assert third.read_bytes() == b"mine" and first.exists()


def test_an_export_leaves_no_half_file_on_a_full_disk(
    tmp_path: Path, written: dict[int, Written], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, syncs = os.fsync, 0

    def fsync(fd: int) -> None:
        nonlocal syncs
        syncs += 1
        if syncs == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        words = ["spool", "export", "--all", "--to", str(tmp_path / "mail"), "--spool", str(tmp_path / "spool")]
        assert main(words) == 2
    assert len(list((tmp_path / "mail").iterdir())) == 3
    assert main(words) == 0
    assert len(list((tmp_path / "mail").iterdir())) == 2 * len(written)


def test_what_was_asked_of_tls_and_of_the_body_outlives_import_and_repair(
    tmp_path: Path, written: dict[int, Written]
) -> None:
    asked = {"requires_tls": True, "is_binarymime": True, "is_smtputf8": True, "is_8bitmime": True, "ret": "hdrs"}
    attributes = {"tenant": "shop", "campaign": "spring"}
    spool("export", encode_id(min(written)), encode_id(max(written)), "--to", tmp_path / "mail", at=tmp_path / "spool")
    first, second = sorted((tmp_path / "mail").glob("*.json"))
    first.write_text(json.dumps({**json.loads(first.read_text()), **asked, "attributes": attributes}))
    binary = b"Content-Transfer-Encoding: binary\r\n\r\n\0\r\n"
    first.with_suffix(".eml").write_bytes(binary)
    second.write_text(json.dumps({**json.loads(second.read_text()), "tls_optional": True}))
    asyncio.run(fill(tmp_path / "other", messages=0))
    done = spool("import", tmp_path / "mail", "--json", at=tmp_path / "other")
    assert (done.returncode, done.stderr) == (0, "")
    new_ids = {each["was"]: each["id"] for each in map(json.loads, done.stdout.splitlines())}
    assert spool("repair", "--to", tmp_path / "new", at=tmp_path / "other").returncode == 0
    for place in ("other", "new"):
        found = listed(tmp_path / place)
        of_first, of_second = found[new_ids[first.stem]], found[new_ids[second.stem]]
        assert {key: of_first[key] for key in asked} == asked and of_first["attributes"] == attributes
        assert of_second["tls_optional"] and not of_second["requires_tls"]
        assert cat(of_first["id"], tmp_path / place) == binary


def test_import_takes_nothing_when_the_last_message_may_not_be_sent(
    tmp_path: Path, written: dict[int, Written]
) -> None:
    spool("export", "--all", "--to", tmp_path / "mail", at=tmp_path / "spool")
    last = max((tmp_path / "mail").glob("*.eml"))
    last.write_bytes(b"Subject: x\r\n\r\nbare\n")
    asyncio.run(fill(tmp_path / "other", messages=0))
    done = spool("import", tmp_path / "mail", at=tmp_path / "other")
    assert done.returncode == 2 and f"{last}: offset 18: a bare CR" in done.stderr
    assert listed(tmp_path / "other") == {}


def test_import_takes_nothing_when_something_is_no_message(tmp_path: Path, written: dict[int, Written]) -> None:
    spool("export", encode_id(min(written)), "--to", tmp_path / "mail", at=tmp_path / "spool")
    (tmp_path / "mail" / "ZZ.json").write_text('{"format": "angarium-message 2"}')
    (tmp_path / "mail" / "ZZ.eml").write_text("x")
    before = contents(tmp_path / "spool")
    done = spool("import", tmp_path / "mail", at=tmp_path / "spool")
    assert done.returncode == 2
    assert f"{tmp_path}/mail/ZZ.json" in done.stderr
    assert contents(tmp_path / "spool") == before


def test_repair_of_a_good_spool_is_the_same_spool(tmp_path: Path, written: dict[int, Written]) -> None:
    before = contents(tmp_path / "spool")
    done = spool("repair", "--to", tmp_path / "new", at=tmp_path / "spool")
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "spool") == before
    assert listed(tmp_path / "new") == listed(tmp_path / "spool")
    again = spool("repair", "--to", tmp_path / "new", at=tmp_path / "spool")
    assert again.returncode == 2 and "has mail already" in again.stderr


def test_upgrade_has_nothing_to_do_and_refuses_another_version(tmp_path: Path, written: dict[int, Written]) -> None:
    done = spool("upgrade", at=tmp_path / "spool")
    assert done.returncode == 0
    assert "is of format version 1, the newest" in done.stdout
    (tmp_path / "spool" / "format").write_text("angarium-spool 2\n")
    for order in (("upgrade",), ("check",), ("ls",), ("repair", "--to", tmp_path / "new")):
        refused = spool(*order, at=tmp_path / "spool")
        assert refused.returncode == 2
        assert "format version 2, this program reads version 1" in refused.stderr


def test_orders_that_write_are_refused_with_the_owners_pid(tmp_path: Path, written: dict[int, Written]) -> None:
    spool("export", "--all", "--to", tmp_path / "mail", at=tmp_path / "spool")
    with SpoolDirectory.open(str(tmp_path / "spool")):
        for order in (("import", tmp_path / "mail"), ("repair", "--to", tmp_path / "new"), ("upgrade",)):
            refused = spool(*order, at=tmp_path / "spool")
            assert refused.returncode == 2
            assert f"is in use by process {os.getpid()}" in refused.stderr
        assert len(listed(tmp_path / "spool")) == len(written)
        # A shard that nobody serves may be written beside the owner.
        done = spool("import", tmp_path / "mail", "--shard", "1f", at=tmp_path / "spool")
        assert (done.returncode, done.stderr) == (0, "")
    assert len(listed(tmp_path / "spool")) == 2 * len(written)
    assert not (tmp_path / "new").exists()


def test_reading_works_beside_a_relay_under_load_and_cries_no_wolf(tmp_path: Path) -> None:
    """Segments grow, are sealed, freed and used again under the eyes of check."""
    is_over = threading.Event()
    message = b"Subject: x\r\n\r\n" + (b"y" * 70 + b"\r\n") * 3000

    def load() -> None:
        with SmtpClient(relay.port) as client:
            while not is_over.is_set():
                client.send(message)

    with clean_relay(tmp_path, maildir_route(tmp_path), workers=2) as relay:
        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(relay.events("received")) > 20, "mail flows")
        for _ in range(4):
            running = relay.command("spool", "check")
            assert running.returncode == 0, running.stdout
            assert relay.command("spool", "ls").returncode == 0
        refused = relay.command("spool", "repair", "--to", str(tmp_path / "new"))
        is_over.set()
        for thread in threads:
            thread.join()
        assert refused.returncode == 2
        assert f"in use by process {relay.process.pid if relay.process else 0}" in refused.stderr
        assert not (tmp_path / "new").exists()


def test_a_moved_spool_is_served_and_so_are_shards_of_workers_that_are_not_there(tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path / "old", seed=3, messages=6, streamed=1))
    wanted = listed(tmp_path / "old")
    spool("export", "--all", "--to", tmp_path / "mail", at=tmp_path / "old")
    assert spool("import", tmp_path / "mail", "--shard", "2a", at=tmp_path / "old").returncode == 0
    (tmp_path / "old").rename(tmp_path / "spool")
    route = '[[route]]\ndomain = "*"\nnext_hop = "smtp://127.0.0.1:1"\n'
    config = route + '[queue.default]\nmax_age = "3600d"\nretry = { first = "1h", max = "1h" }\n'
    with clean_relay(tmp_path, config) as relay:

        def ids() -> set[str]:
            return {json.loads(line)["id"] for line in relay.command("queue", "list", "--json").stdout.splitlines()}

        # Those that are over need only their report; the relay settles them at once.
        waits = {key for key, each in wanted.items() if any(r["outcome"] == "waiting" for r in each["recipients"])}
        assert waits
        wait_for(lambda: waits <= ids(), "its own shard is loaded")
        wait_for(lambda: sum(decode_id(each) >> 56 == 0x2A for each in ids()) >= len(waits), "the other one too")
