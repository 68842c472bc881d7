"""Any octets give steps and an end, never an exception; what mechanisms say is in tests/transcripts/auth.txt."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smtp.sasl_peer import SaslPeer, known

from angarium.model.errors import LocalProtocolError
from angarium.sasl import scram
from angarium.sasl.exchange import MECHANISMS, ROUNDS, Exchange
from angarium.sasl.scram import imagined_keys, make_keys
from angarium.sasl.steps import Accepted, Challenge, Refused

PIECES = [
    b"n,,n=user,r=abc", b"p=tls-exporter,,n=user,r=x", b"y,", b"a=", b",", b"=2C", b"\0", b"user", b"pencil", b"user=",
    b"n,a=user,\x01", b"auth=Bearer ", b"\x01", b"c=biws,r=", b",p=AAAA", b"\xff", "\u00e9".encode(), b"\r\n",
]  # fmt: skip
RESPONSES = st.one_of(st.binary(max_size=40), st.lists(st.sampled_from(PIECES), max_size=7).map(b"".join))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(list(MECHANISMS)), st.one_of(st.none(), RESPONSES), st.lists(RESPONSES, max_size=9))
def test_any_octets_come_to_an_end(mechanism: str, initial: bytes | None, responses: list[bytes]) -> None:
    exchange = Exchange(mechanism, SaslPeer(b"", is_bound=True, certificate="user"))
    step = exchange.start(initial)
    for response in [*responses, *[b""] * ROUNDS]:
        while not isinstance(step, Challenge | Accepted | Refused):
            step = exchange.answer(known(step))
        if not isinstance(step, Challenge):
            break
        step = exchange.respond(response)
    assert isinstance(step, Accepted | Refused)
    if isinstance(step, Accepted):
        assert step.identity.isprintable() and len(step.identity.encode()) <= 255


def test_steps_out_of_order_are_our_own_fault() -> None:
    exchange = Exchange("LOGIN", SaslPeer(b""))
    exchange.start(None)
    with pytest.raises(LocalProtocolError):
        exchange.answer("user")
    with pytest.raises(KeyError):
        Exchange("CRAM-MD5", SaslPeer(b""))


def test_keys_of_rfc_7677_are_those_of_its_example() -> None:
    keys = make_keys("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    assert base64.b64encode(keys.stored_key) == b"WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
    assert base64.b64encode(keys.server_key) == b"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="


def test_who_does_not_exist_has_the_same_salt_at_every_try_and_looks_like_who_does() -> None:
    """RFC 5802 §9: otherwise the salt tells who exists."""
    first, second = imagined_keys(b"secret", "nobody"), imagined_keys(b"secret", "nobody")
    assert first.salt == second.salt != imagined_keys(b"secret", "noone").salt != imagined_keys(b"other", "noone").salt
    real = make_keys("x", iterations=1)
    assert (len(first.salt), len(first.stored_key)) == (len(real.salt), len(real.stored_key))
    assert first.iterations == scram.ITERATIONS


def test_nonces_are_printable_without_commas_and_never_the_same() -> None:
    nonces = {scram.make_nonce() for _ in range(100)}
    assert len(nonces) == 100
    assert all(b"," not in nonce and nonce.isascii() and nonce.decode().isprintable() for nonce in nonces)
