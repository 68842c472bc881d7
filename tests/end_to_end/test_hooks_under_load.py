"""Hooks of every kind that decide at once, wait, raise and are over their deadline, for many sessions at the same time.

What each hook is to do is written into the addresses that it is asked about, so that what must come of each message is
known beforehand. Hooks answer with the names of what they were asked about, and look whether notes are those of their
own session: whoever gets another's verdict sees it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import re
from collections import Counter
from email import message_from_bytes
from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import wait_until_loaded
from relay_process import RelayProcess, maildir_route, wait_for

SESSIONS, MESSAGES, RECIPIENTS = 60, 8, 3
NETWORK = f"127.57.{os.getpid() & 255}"
ASKS = "127.57.255.254"     # who connects from there is told what is alive

HOOKS = '''
import asyncio, datetime, gc
from angarium.policy import *

running = 0
mixed = []
deaf = asyncio.Event()

class Note:
    """Lives as long as the notes that it is in."""
    live = 0
    def __init__(self, of):
        self.of = of
        Note.live += 1
    def __del__(self):
        Note.live -= 1

def mine(notes, key, of):
    """The note of a phase before is of the same session, or transaction."""
    note = notes.get(key)
    if note is None:
        notes[key] = Note(of)
    elif note.of != of:
        mixed.append(f"{key} {note.of} {of}")

async def act(action, name):
    global running
    running += 1
    try:
        match action:
            case "slow":
                for _ in range(5):
                    await asyncio.sleep(0.002)
            case "raise":
                raise ValueError(name)
            case "late":
                await deaf.wait()
            case "reject":
                return Reject(name)
            case "defer":
                return Defer(name)
            case "discard":
                return Discard(name)
            case "redirect":
                return Redirect([f"caught-{name}@y.example"])
    finally:
        running -= 1

def words(path):
    return path.rpartition("@")[0].split("/")

async def on_connect(client):
    if client.address == "ASKS":
        gc.collect()
        return Reject(f"live {Note.live} running {running} tasks {len(asyncio.all_tasks())} mixed {mixed[:3]}")
    mine(client.notes, "connect", client.address)
    action = CONNECT.get(int(client.address.rpartition(".")[2]))
    return await act(action, client.address)

def on_mail(mail):                              # a function: those that only raise or decide need no coroutine
    name, action = words(mail.reverse_path)[:2]
    mine(mail.client.notes, "connect", mail.client.address)
    mine(mail.client.notes, "helo", mail.client.helo)
    mine(mail.notes, "mail", name)
    return act(action, name) if action in ("slow", "late") else decide(action, name)

def decide(action, name):
    if action == "raise":
        raise ValueError(name)
    return {"reject": Reject, "defer": Defer}[action](name) if action in ("reject", "defer") else None

async def on_rcpt(rcpt):
    name, action = words(rcpt.forward_path)[:2]
    mine(rcpt.client.notes, "helo", rcpt.client.helo)
    mine(rcpt.notes, "mail", words(rcpt.reverse_path)[0])
    return await act(action, name)

async def route(rcpt):
    name, _, action, way = words(rcpt.forward_path)
    mine(rcpt.notes, "mail", words(rcpt.reverse_path)[0])
    verdict = await act(action, name)
    if verdict is not None:
        return verdict
    token = words(rcpt.reverse_path)[0]
    match way:
        case "other":
            return "maildir:ROOT/other/{local}"
        case "pool":
            return Accept(route="HOP", pool="second", tenant=token)
        case "held":
            return Accept(not_before=datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1))

async def on_message(message):
    name, _, action = words(message.reverse_path)
    mine(message.client.notes, "connect", message.client.address)
    mine(message.notes, "mail", name)
    if message.header.get("X-Sent") != name:
        mixed.append(f"message {name}")
    verdict = await act(action, name)
    fields = [AddField("X-Judged", name)]
    if isinstance(verdict, Redirect):
        return Redirect(verdict.recipients, Accept(fields=fields))
    return Accept(fields=fields) if verdict is None else verdict

async def on_outcome(outcome):
    name, _, action = words(outcome.reverse_path)
    with open("ROOT/told", "a") as file:
        print(outcome.event, name, outcome.forward_path, file=file)
    await act(action if action in ("slow", "raise") else "", name)
'''

CONNECT = {3: "slow", 5: "reject", 8: "raise", 13: "late", 21: "defer", 34: "slow"}
# How often each is done; what is late costs the deadline.
MAIL = {"": 30, "slow": 10, "reject": 2, "raise": 2, "late": 1, "defer": 1}
RCPT = {"": 40, "slow": 20, "reject": 4, "raise": 4, "late": 1, "defer": 2, "discard": 2}
ROUTE = {"": 40, "slow": 20, "reject": 3, "raise": 3, "late": 1}
MESSAGE = {"": 30, "slow": 12, "reject": 2, "raise": 2, "late": 1, "discard": 2, "redirect": 2}
WAYS = {"plain": 4, "other": 3, "pool": 3, "held": 1}


def pick(dice: random.Random, weights: dict[str, int]) -> str:
    return dice.choices(list(weights), list(weights.values()))[0]


def reply_to(action: str, name: str, good: str) -> str:
    """What is said where a hook does this; how it begins."""
    return {
        "reject": f"550 5.7.1 {name}\r\n", "defer": f"451 4.7.1 {name}\r\n",
        "raise": "451 4.3.0 Local policy error", "late": "451 4.7.1 ",
    }.get(action, good)  # fmt: skip


@dataclasses.dataclass
class Planned:
    """A message, what is done to it, and what must come of it."""

    name: str
    mail: str
    message: str
    way: str
    recipients: list[tuple[str, str, str]]      # name, what on_rcpt does, what route does

    @classmethod
    def drawn(cls, session: int, number: int) -> Planned:
        dice = random.Random(f"{session}.{number}")
        name = f"s{session}-m{number}"
        recipients = [(f"{name}-r{i}", pick(dice, RCPT), pick(dice, ROUTE)) for i in range(RECIPIENTS)]
        return cls(name, pick(dice, MAIL), pick(dice, MESSAGE), pick(dice, WAYS), recipients)

    @property
    def reverse_path(self) -> str:
        return f"{self.name}/{self.mail}/{self.message}@x.example"

    def path(self, recipient: tuple[str, str, str]) -> str:
        name, on_rcpt, route = recipient
        return f"{name}/{on_rcpt}/{route}/{self.way}@y.example"

    def replies(self) -> list[tuple[str, str]]:
        """Commands and how their replies begin, as far as the dialogue comes."""
        mail = reply_to(self.mail, self.name, "250 ")
        said = [(f"MAIL FROM:<{self.reverse_path}>", mail)]
        if not mail.startswith("250"):
            return said
        for each in self.recipients:
            reply = reply_to(each[1], each[0], "")
            if not reply and each[1] != "discard":
                reply = reply_to(each[2], each[0], "")
            said.append((f"RCPT TO:<{self.path(each)}>", reply or "250 "))
        return said

    @property
    def arrives_at(self) -> list[str]:
        """Recipients to whom it is delivered, or for whom it is held."""
        if not self.replies()[0][1].startswith("250") or self.message not in ("", "slow", "redirect"):
            return []
        taken = [self.path(each) for each in self.recipients if {each[1], each[2]} <= {"", "slow"}]
        return [f"caught-{self.name}@y.example"] if taken and self.message == "redirect" else taken


PLANNED = {session: [Planned.drawn(session, n) for n in range(MESSAGES)] for session in range(1, SESSIONS + 1)}


class Client:
    """One session. wrong: what was said that should not have been."""

    def __init__(self, number: int, port: int) -> None:
        self.number, self.port = number, port
        self.address = f"{NETWORK}.{number}"
        self.wrong: list[str] = []

    async def play(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(self.address, 0))
        action = CONNECT.get(self.number, "")
        greeting = {"reject": f"554 5.7.1 {self.address}\r\n"}.get(action, reply_to(action, self.address, "220 "))
        if await self._hears(greeting, "(connects)"):
            self.writer.write(f"EHLO client-{self.number}.example\r\n".encode())
            while (await self.reader.readline())[3:4] == b"-":
                pass
            for message in PLANNED[self.number]:
                await self._send(message)
        self.writer.close()

    async def leave(self) -> None:
        """Goes away while a hook waits for what never comes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(self.address, 0))
        await reader.readline()
        writer.write(b"HELO gone.example\r\nMAIL FROM:<gone/late/@x.example>\r\n")
        await reader.readline()
        writer.close()

    async def _hears(self, beginning: str, behind: str) -> bool:
        """Whether that is good news."""
        said = (await self.reader.readline()).decode()
        if not said.startswith(beginning):
            self.wrong.append(f"{behind}: {said!r} instead of {beginning!r}")
        return said[:1] in ("2", "3")

    async def _send(self, message: Planned) -> None:
        dialogue = message.replies()
        is_pipelined = self.number % 2 == 0
        if is_pipelined:
            self.writer.write("".join(f"{command}\r\n" for command, _ in dialogue).encode())
        accepted = 0
        for command, beginning in dialogue:
            if not is_pipelined:
                self.writer.write(f"{command}\r\n".encode())
            accepted += await self._hears(beginning, command)
        if accepted < 2:
            self.writer.write(b"RSET\r\n")
            await self._hears("250 ", "RSET")
            return
        self.writer.write(b"DATA\r\n")
        if await self._hears("354 ", "DATA"):
            self.writer.write(f"Subject: x\r\nX-Sent: {message.name}\r\n\r\nof {message.name}\r\n.\r\n".encode())
            await self._hears(reply_to(message.message, message.name, "250 "), f"the content of {message.name}")


async def everybody(port: int) -> list[str]:
    clients = [Client(number, port) for number in PLANNED]
    leaving = [Client(200 + number, port) for number in range(20)]
    await asyncio.gather(*(each.play() for each in clients), *(each.leave() for each in leaving))
    return [words for each in clients for words in each.wrong]


async def alive(port: int) -> str:
    """What hooks of one worker hold on to now, in their own words."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(ASKS, 0))
    said = (await reader.readline()).decode()
    writer.close()
    return said.partition("5.7.1 ")[2].strip()


def at_rest(port: int) -> str:
    """The same of the quietest of some moments: some tasks come and go by themselves, such as signs of life."""
    return min((asyncio.run(alive(port)) for _ in range(20)), key=lambda said: int(said.split()[5]))


def content_of(file: Path) -> tuple[str, str]:
    message = message_from_bytes(file.read_bytes())
    return str(message["X-Sent"]), str(message["X-Judged"])


@pytest.mark.timeout(240)
def test_every_message_gets_the_verdicts_of_its_own_hooks(tmp_path: Path) -> None:
    hooks = tmp_path / "policy.py"
    with NextHop() as hop:
        text = HOOKS.replace("ASKS", ASKS).replace("ROOT", str(tmp_path)).replace("HOP", hop.url)
        hooks.write_text(text.replace("CONNECT.get", f"{CONNECT!r}.get"))
        config = (
            f'[policy]\nfile = "{hooks}"\ntimeout = "6s"\n'
            '[source.one]\naddress = "127.0.0.1"\n[source.two]\naddress = "127.0.0.2"\n'
            "[pool.default]\nsources = { one = 1 }\n[pool.second]\nsources = { two = 1 }\n"
        )
        with RelayProcess(tmp_path, config + maildir_route(tmp_path)) as relay:
            wait_until_loaded(relay)
            before = at_rest(relay.port)
            (worker,) = relay.workers()
            descriptors = len(os.listdir(f"/proc/{worker}/fd"))
            assert re.fullmatch(r"live 0 running \d+ tasks \d+ mixed \[\]", before)
            assert asyncio.run(everybody(relay.port)) == []
            assert asyncio.run(alive(relay.port)).endswith("mixed []"), "notes of another session, or transaction"

            messages = [message for session in PLANNED.values() for message in session]
            messages = [m for m in messages if CONNECT.get(int(m.name[1:].split("-")[0]), "slow") == "slow"]
            expected = Counter((m.way, path) for m in messages if m.way != "held" for path in m.arrives_at)
            held = {m.name for m in messages if m.way == "held" and m.arrives_at}
            assert len(expected) > 300 and len(held) > 10, "the dice have fallen"
            wait_for(lambda: len(relay.events("delivered")) >= expected.total(), "mail is delivered", 60)
            delivered = relay.events("delivered")
            assert Counter(each["to"] for each in delivered) == Counter(path for _, path in expected.elements())
            assert {each["source"] for each in delivered if "/pool@" in each["to"]} == {"two"}

            # Each lies where its own hook has led it, with what its own hook has written on it.
            for way, directory in (("plain", "mail"), ("other", "other")):
                files = list(tmp_path.glob(f"{directory}/*/new/*"))
                assert len(files) == sum(each[0] == way for each in expected.elements()), way
                for file in files:
                    sent, judged = content_of(file)
                    assert sent == judged and sent in file.parent.parent.name, file
            for delivery in hop.deliveries:
                message = message_from_bytes(delivery.message)
                assert message["X-Sent"] == message["X-Judged"]
                assert all(str(message["X-Sent"]) in path for path in delivery.to)
            received = relay.events("received")
            assert {each["from"].split("/")[0] for each in received if "hold_until" in each} == held
            assert {each["from"].split("/")[0] for each in received if "tenant" in each} == {
                m.name for m in messages if m.way == "pool" and m.arrives_at
            }
            assert all(each["tenant"] == each["from"].split("/")[0] for each in received if "tenant" in each)
            waiting = relay.command("queue", "list", "--json").stdout.splitlines()
            assert len(waiting) == len(held), "nothing but what is held is in the queue"

            told = tmp_path / "told"
            wait_for(lambda: len(told.read_text().splitlines()) >= expected.total(), "all outcomes are told", 60)
            assert Counter(line.split()[2] for line in told.read_text().splitlines()) == Counter(
                each["to"] for each in delivered
            )
            # Nothing of any session is left, nor of any hook that was over its deadline or whose client left.
            wait_for(lambda: asyncio.run(alive(relay.port)) == before, "all is given back")
            wait_for(lambda: len(os.listdir(f"/proc/{worker}/fd")) <= descriptors, "no connection is left")
            assert not relay.events("error", "worker-died")
