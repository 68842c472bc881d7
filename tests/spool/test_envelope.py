"""Envelope, state and id octets through the Python views."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angarium.model.errors import SpoolCorrupt
from angarium.spool.envelope import (
    Chunk,
    Envelope,
    Flag,
    Recipient,
    RecipientState,
    Status,
    build_state,
    decode_id,
    encode_id,
    parse_state,
)

clean = st.binary(max_size=60).map(lambda b: b.translate(None, b"\0\r\n"))
numbers = st.integers(0, 2**64 - 1)
u32 = st.integers(0, 2**32 - 1)


@st.composite
def recipients(draw: st.DrawFn) -> Recipient:
    path = draw(clean)
    return Recipient(path, draw(clean), draw(st.integers(0, 255)), draw(st.integers(0, len(path))))


envelopes = st.builds(
    Envelope,
    id=numbers,
    received_utc_ms=numbers,
    message_octets=numbers,
    flags=st.integers(0, 255).map(lambda low: Flag(low | low << 8 & 0x3800)),
    reverse_path=clean,
    envid=clean,
    helo=clean,
    client_address=clean,
    listener=clean,
    recipients=st.lists(recipients(), max_size=5).map(tuple),
    chunks=st.lists(st.builds(Chunk, u32, u32, u32), max_size=5).map(tuple),
    attributes=st.lists(st.tuples(st.integers(0, 65535), clean), max_size=3).map(tuple),
)

states = st.lists(
    st.builds(
        RecipientState,
        status=st.sampled_from(Status),
        attempts=st.integers(0, 65535),
        next_attempt_utc_s=numbers,
        reply_code=st.integers(0, 999),
        enhanced=st.tuples(st.integers(0, 9), st.integers(0, 999), st.integers(0, 999)),
        reply_text=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200).map(str.encode),
        remote_host=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=100).map(str.encode),
        flags=st.integers(0, 255),
    ),
    max_size=6,
).map(tuple)


@given(envelopes)
def test_an_envelope_survives_its_octets(envelope: Envelope) -> None:
    assert Envelope.parse(envelope.build()) == envelope


@given(envelopes, st.data())
def test_a_cut_envelope_is_refused(envelope: Envelope, data: st.DataObject) -> None:
    octets = envelope.build()
    with pytest.raises(SpoolCorrupt):
        Envelope.parse(octets[: data.draw(st.integers(0, len(octets) - 1))])


@given(st.binary(max_size=200))
def test_any_octets_are_an_envelope_or_corrupt(octets: bytes) -> None:
    with suppress(SpoolCorrupt):
        Envelope.parse(octets)


@pytest.mark.parametrize("octet", [b"\0", b"\r", b"\n"])
def test_control_octets_that_end_lines_are_refused(octet: bytes) -> None:
    envelope = Envelope(1, 2, 3, Flag(0), b"a" + octet, b"", b"", b"", b"", (), ())
    with pytest.raises(ValueError, match="refused"):
        envelope.build()


@given(states)
def test_a_state_survives_its_octets(state: tuple[RecipientState, ...]) -> None:
    assert parse_state(build_state(state)) == state


def test_what_a_peer_says_is_cut_and_cleaned_never_refused() -> None:
    reply = RecipientState(reply_text=b"no\r\n250 ok\x1b[31m" + b"x" * 300, remote_host=b"h" * 200)
    (back,) = parse_state(build_state([reply]))
    assert back.reply_text.startswith(b"no??250 ok?[31mx")
    assert len(back.reply_text) == 200
    assert len(back.remote_host) == 100


@given(numbers)
def test_an_id_survives_its_text_in_any_case(number: int) -> None:
    text = encode_id(number)
    assert len(text) == 13
    assert decode_id(text) == decode_id(text.lower()) == number


@pytest.mark.parametrize(
    "text", ["", "0" * 12, "0" * 14, "G" + "0" * 12, "U" * 13, "I" * 13, "é" * 13, "\0" * 13]
)
def test_other_texts_are_no_ids(text: str) -> None:
    with pytest.raises(ValueError, match="no queue id"):
        decode_id(text)
