"""Client session against server session, back to back in memory: what goes in comes out, at any cuts."""

from __future__ import annotations

import itertools
import random

import pytest
from smtp.server_dialogue import Dialogue

from angarium.smtp.client_session import ClientSession, Event
from angarium.smtp.server_settings import ServerSettings

HOSTNAME = b"relay.example.org"
MESSAGES = [
    b"",
    b"\r\n",
    b".\r\n",
    b"..\r\n.\r\n...\r\n",
    b"Subject: x\r\n\r\n.\r\nMAIL FROM:<evil@x>\r\n.\r\n",
    b"Subject: x\r\n\r\n" + b"x" * 900 + b"\r\n" + b".\r\n" * 3000,
    b"Subject: \xc3\xbc\r\n\r\n\xff\xfe\r\n",
]


class Wire:
    """Both sessions, and octets between them cut by chance."""

    def __init__(self, seed: int, denied: list[bytes]) -> None:
        self.chance = random.Random(seed)
        self.server = Dialogue(ServerSettings("mx.test.example"), denied=denied)
        self.server.greet()
        self.client = ClientSession(HOSTNAME)
        self.events: list[Event] = []

    def run(self) -> None:
        """Until neither has anything to say."""
        while True:
            down, self.server.output = self.server.output, b""
            for piece in self.pieces(down):
                self.events += self.client.receive(piece)
            up = self.client.take_output()
            for piece in self.pieces(up):
                self.server.feed(piece)
            if not up and not self.server.output:
                return

    def pieces(self, octets: bytes) -> list[bytes]:
        edges = sorted(self.chance.randrange(len(octets) + 1) for _ in range(self.chance.randrange(4)))
        bounds = [0, *edges, len(octets)]
        return [octets[a:b] for a, b in itertools.pairwise(bounds) if a != b]

    def take(self, *kinds: str) -> list[Event]:
        taken = [event for event in self.events if event.kind in kinds]
        self.events = []
        return taken


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("by", ["data", "bdat", "bdat-later"])
def test_messages_arrive_as_they_were(seed: int, by: str) -> None:
    wire = Wire(seed, [])
    wire.run()
    assert [event.kind for event in wire.events] == ["ready"]
    wire.events = []
    for message in MESSAGES:
        slot = wire.client.start(
            b"a@x.example", [b"b@y.example", b"c@y.example"], message_octets=len(message), by=by, is_8bit=True
        )
        if by == "bdat":
            wire.client.send_body(slot, message)
        wire.run()
        if by != "bdat":
            assert [event.kind for event in wire.take("send-body")] == ["send-body"]
            wire.client.send_body(slot, message)
            wire.run()
        (told,) = wire.take("delivered", "message-refused")
        assert told.kind == "delivered", told
    assert wire.server.messages == MESSAGES
    wire.client.close()
    wire.run()
    assert wire.client.is_closed


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("by", ["data", "bdat", "bdat-later"])
def test_refused_recipients_leave_the_next_transaction_intact(seed: int, by: str) -> None:
    wire = Wire(seed, [b"no@y.example", b"never@y.example"])
    wire.run()
    wire.events = []
    for paths in ([b"no@y.example", b"never@y.example"], [b"b@y.example", b"no@y.example"], [b"b@y.example"]):
        slot = wire.client.start(b"", paths, by=by)
        if by == "bdat":
            wire.client.send_body(slot, b"one\r\n")
        wire.run()
        if any(event.kind == "send-body" for event in wire.events):
            wire.client.send_body(slot, b"one\r\n")
            wire.run()
        refused = [event for event in wire.events if event.kind == "recipient-refused"]
        assert [event.index for event in refused] == [i for i, path in enumerate(paths) if path[:1] == b"n"]
        assert any(event.is_over for event in wire.events)
        wire.events = []
    assert wire.server.messages[-2:] == [b"one\r\n"] * 2


def test_body_and_next_transaction_in_one_write_are_understood() -> None:
    wire = Wire(1, [])
    wire.run()
    slot = wire.client.start(b"a@x.example", [b"b@y.example"])
    for number in range(50):
        wire.run()
        assert [event.slot for event in wire.take("send-body")] == [slot]
        wire.client.send_body(slot, b"message %d\r\n" % number)
        slot = wire.client.start(b"a@x.example", [b"b@y.example"])
    wire.run()
    assert wire.server.messages == [b"message %d\r\n" % number for number in range(50)]
