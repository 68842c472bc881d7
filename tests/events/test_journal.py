"""Event lines: valid JSON whatever the octets, never waiting for a reader."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angarium.events.journal import Journal


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().decode("utf-8").splitlines()]


def open_journal(path) -> Journal:
    return Journal(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))


@given(value=st.one_of(st.text(), st.binary()))
def test_any_value_makes_one_line_of_valid_json(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("journal") / "log"
    open_journal(path).log("event", value=value)
    text = path.read_bytes().decode("utf-8")
    assert text.count("\n") == 1 and len(text.splitlines()) == 1
    found = json.loads(text)["value"]
    if isinstance(value, str):
        assert found == value.encode("utf-8", "replace").decode()
    elif value.isascii():
        assert found == value.decode()


def test_control_octets_cannot_break_a_line(tmp_path):
    open_journal(tmp_path / "log").log("event", reply=b'x\r\n{"event":"forged"}\x00\x1b[0m\x7f')
    raw = (tmp_path / "log").read_bytes()
    assert raw.count(b"\n") == 1
    assert not set(raw) & set(b"\r\x1b\x00\x7f")
    assert lines_of(tmp_path / "log")[0]["reply"] == 'x\r\n{"event":"forged"}\x00\x1b[0m\x7f'


def test_no_character_ends_a_line_for_any_reader_or_turns_or_hides_what_a_terminal_shows(tmp_path):
    """SMTPUTF8 lets a local-part hold all of them but C1, and a next hop's reply holds what it wants: readers that end
    lines at U+0085, U+2028 and U+2029 (str.splitlines) would be told events of a peer's making. What shows nothing
    makes one address look like another."""
    evil = [
        0x80, 0x85, 0x9B, 0x9F, 0xAD, 0x61C, *range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070),
        0xFEFF, *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080),
    ]  # fmt: skip
    value = "".join(f"a{chr(each)}" for each in evil)
    harmless = (
        "\u00a0\u00ac\u00ae\u00e9\u061b\u061d\u200a\u2010\u2027\u202f\u205f\u2070\u20ac\ufefe\ufff8\ufffc"
        "\U0001f600\U000e0080"
    )
    open_journal(tmp_path / "log").log("event", value=value.encode(), harmless=harmless)
    text = (tmp_path / "log").read_bytes().decode()
    assert not {chr(each) for each in evil} & set(text)
    assert len(text.splitlines()) == 1
    (event,) = lines_of(tmp_path / "log")
    assert event["value"] == value
    assert harmless in text


def test_octets_that_are_not_utf8_become_replacement_characters(tmp_path):
    # overlong, surrogate, truncated, above U+10FFFF
    open_journal(tmp_path / "log").log("event", value=b"a\xc0\x80\xed\xa0\x80\xe2\x82 \xf5z")
    found = lines_of(tmp_path / "log")[0]["value"].strip("\ufffd")
    assert found == "a\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd \ufffdz"


def test_a_line_carries_time_event_and_fields_in_order(tmp_path):
    open_journal(tmp_path / "log").log("started", count=-3, seconds=1.25, names=["a", "b"], yes=True)
    line = (tmp_path / "log").read_text()
    assert list(json.loads(line)) == ["time", "event", "count", "seconds", "names", "yes"]
    assert '"seconds":1.250' in line and '"count":-3' in line and '"names":["a","b"]' in line


def test_a_reader_that_stalls_never_blocks_and_loses_whole_lines_only():
    reader, writer = os.pipe()
    journal = Journal(writer)
    for number in range(60_000):            # some 6 MB: past the pipe and past the backlog
        journal.log("event", number=number, padding="x" * 50)
    received = b""
    os.set_blocking(reader, False)
    while True:
        try:
            received += os.read(reader, 1 << 20)
        except BlockingIOError:
            before = len(received)
            journal.flush()
            try:
                received += os.read(reader, 1 << 20)
            except BlockingIOError:
                break
            assert len(received) > before
    numbers = [json.loads(line)["number"] for line in received.decode().splitlines()]
    assert numbers == sorted(numbers)
    assert 10_000 < len(numbers) < 60_000


class Talkative:
    """An operator's object: its text is made by code that logs."""

    def __init__(self, journal):
        self.journal = journal

    def __str__(self):
        self.journal.log("inner", value="of the inner")
        return "of the outer"


class TalkativeText(str):
    def __str__(self):
        raise RuntimeError("no text")

    def encode(self, *_):
        raise RuntimeError("no octets")


def test_a_value_that_logs_while_its_text_is_made_tears_no_line(tmp_path):
    """The inner line stood in the middle of the outer one, and neither was JSON."""
    journal = open_journal(tmp_path / "log")
    journal.log("outer", first="1", value=Talkative(journal), names=[Talkative(journal), "x"], last=2)
    inner, again, outer = lines_of(tmp_path / "log")
    assert inner["event"] == again["event"] == "inner" and inner["value"] == "of the inner"
    del outer["time"]
    assert outer == {"event": "outer", "first": "1", "value": "of the outer", "names": ["of the outer", "x"], "last": 2}


def test_a_value_that_logs_itself_without_end_is_one_line(tmp_path):
    journal = open_journal(tmp_path / "log")

    class Endless:
        def __str__(self):
            journal.log("endless", value=self)
            return "never"

    journal.log("outer", value=Endless(), last=1)
    found = lines_of(tmp_path / "log")
    assert [line["event"] for line in found[-2:]] == ["endless", "outer"] and found[-1]["last"] == 1
    assert found[0]["value"] == "no text of Endless"  # the innermost: recursion ended there


@pytest.mark.parametrize(
    "value, told",
    [
        (TalkativeText("x"), "no text of TalkativeText"),
        ([TalkativeText("x"), "y"], ["no text of TalkativeText", "y"]),
        (1 << 64, str(1 << 64)),
        (-(1 << 63), str(-(1 << 63))),
        (10**5000, "no text of int"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
        (float("-inf"), 0),
        (1e300, "1e+300"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_cannot_be_written_loses_no_line(tmp_path, value, told):
    """Each raised in the middle of a line, whose begin stayed in the buffer."""
    journal = open_journal(tmp_path / "log")
    journal.log("first", value=value, last=1)
    journal.log("second")
    first, second = lines_of(tmp_path / "log")
    assert (first["value"], first["last"], second["event"]) == (told, 1, "second")
