"""Maps that are replaced under a running relay, of each kind at once: not one answer is wrong meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import lmdb
from end_to_end.relay import clean_relay
from end_to_end.smtp_client import SmtpClient
from recipients.test_tables import write_cdb
from relay_process import maildir_route, wait_for

FILLERS = 20_000
SWAPS = 2
ROUNDS_A_SESSION = 100  # whoever has so much refused is sent away in the end


def names(generation: int) -> list[bytes]:
    """Always alice; one name that only this generation has; and enough others that reading takes a moment."""
    return sorted([b"alice", b"only%d" % generation, *(b"u%d.%d" % (generation, number) for number in range(FILLERS))])


def write_text(path: Path, generation: int) -> None:
    path.write_bytes(b"\n".join(names(generation)) + b"\n")


def write_lmdb(path: Path, generation: int) -> None:
    with lmdb.open(str(path), subdir=False, map_size=1 << 26, lock=False) as made, made.begin(write=True) as put:
        for name in names(generation):
            put.put(name, b"x")


def write_constant(path: Path, generation: int) -> None:
    write_cdb(path, [(name, b"x") for name in names(generation)])


WRITERS: dict[str, Callable[[Path, int], None]] = {"file": write_text, "lmdb": write_lmdb, "cdb": write_constant}


class Asker(threading.Thread):
    """Asks for the same people of one domain again and again. known: which generations were known, as last heard."""

    def __init__(self, port: int, domain: str) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.domain = domain
        self.wrong: list[str] = []
        self.rounds = 0
        self.generation = -1
        self.is_over = threading.Event()

    def run(self) -> None:
        asked = [b"alice", *(b"only%d" % generation for generation in range(SWAPS + 1)), b"alice", b"mallory"]
        rcpts = b"".join(b"RCPT TO:<%s@%s>\r\n" % (name, self.domain.encode()) for name in asked)
        while not self.is_over.is_set():
            with SmtpClient(self.port) as client:
                for _ in range(ROUNDS_A_SESSION):
                    client.say(b"MAIL FROM:<a@x.example>\r\n" + rcpts + b"RSET\r\n")
                    codes = client.codes(len(asked) + 2)[1:-1]
                    self.rounds += 1  # first: whoever sees a new generation sees a round more as well
                    self.judge(codes)

    def judge(self, codes: list[int]) -> None:
        *known, second, nobody = codes[1:]
        # A swap may fall between two commands of a group: then two generations, or none, are known in it.
        heard = [generation for generation, code in enumerate(known) if code == 250]
        is_good = (
            codes[0] == second == 250
            and nobody == 550
            and set(known) <= {250, 550}
            and all(self.generation <= generation <= self.generation + 1 for generation in heard)
        )
        if not is_good:
            self.wrong.append(f"{self.domain} at {self.generation}: {codes}")
        if len(heard) == 1:
            self.generation = heard[0]


def test_a_map_that_is_replaced_gives_no_wrong_answer(tmp_path: Path) -> None:
    tables = ""
    for kind, write in WRITERS.items():
        write(tmp_path / f"map.{kind}", 0)
        tables += f'[domain."{kind}.example"]\nrecipients = ["{kind}:{tmp_path}/map.{kind}"]\n'
    listener = "relay_from = []\nmax_errors = 10000\nmax_refused_recipients = 0\nmax_junk = 1000"
    with clean_relay(tmp_path, tables + maildir_route(tmp_path), listener=listener) as relay:
        askers = [Asker(relay.port, f"{kind}.example") for kind in WRITERS]
        for asker in askers:
            asker.generation = 0
            asker.start()
        for generation in range(1, SWAPS + 1):
            before = [asker.rounds for asker in askers]
            for kind, write in WRITERS.items():
                write(tmp_path / "new", generation)
                os.replace(tmp_path / "new", tmp_path / f"map.{kind}")
            wait_for(
                lambda wanted=generation: all(each.generation == wanted for each in askers), "all maps are new", 60.0
            )
            assert all(asker.rounds > count for asker, count in zip(askers, before, strict=True))
        for asker in askers:
            asker.is_over.set()
            asker.join(20)
        assert [asker.wrong for asker in askers] == [[], [], []]
        assert len(relay.events("map-opened")) == len(WRITERS) * (SWAPS + 1)
