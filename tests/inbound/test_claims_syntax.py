"""XCLIENT and XFORWARD, the words: what each attribute may be, and that nothing else gets through."""

from __future__ import annotations

import random

import pytest

from angarium.inbound.claims import BadClaim, Introduction, forwarded, introduction


def test_all_attributes_of_xclient_together() -> None:
    said = introduction(
        None,
        b"name=spike.example ADDR=192.0.2.7 PORT=1025 PROTO=esmtp HELO=[192.0.2.7] LOGIN=alice+40x.example "
        b"DESTADDR=IPV6:2001:db8::1 DESTPORT=587 REVERSE_NAME=other.example",
    )
    assert (said.name, str(said.address), said.port, said.proto) == ("spike.example", "192.0.2.7", 1025, "ESMTP")
    assert (said.helo, said.login, said.reverse_name) == ("[192.0.2.7]", "alice@x.example", "other.example")
    assert (str(said.destination), said.destination_port) == ("2001:db8::1", 587)


def test_unavailable_erases_and_what_is_not_said_stays() -> None:
    before = introduction(None, b"NAME=spike.example ADDR=192.0.2.7 LOGIN=alice HELO=spike.example PROTO=ESMTP")
    now = introduction(before, b"NAME=[tempunavail] LOGIN=[UNAVAILABLE] PORT=[Unavailable]")
    assert (now.name, now.login, str(now.address)) == ("", "", "192.0.2.7")
    assert (now.helo, now.proto) == (None, "")      # those of the last command only
    assert introduction(now, b"ADDR=[UNAVAILABLE]") == Introduction(has_address=True)


@pytest.mark.parametrize(
    "argument",
    [
        b"", b"NAME", b"NAME=", b"=x", b"FOO=x", b"NAME=a NAME=b", b"NAME=a=b", b"NAME=a+2", b"NAME=a+2g",
        b"NAME=a+0Ab", b"NAME=a+00", b"NAME=a+20b", b"NAME=a(b)", b"NAME=a<b>", b"NAME=a@b", b"NAME=-a",
        b"NAME=" + b"a" * 256, b"ADDR=2001:db8::1", b"ADDR=IPV6:192.0.2.1", b"ADDR=192.0.2.1/24", b"ADDR=[192.0.2.1]",
        b"ADDR=IPV6:fe80::1%eth0", b"ADDR=host.example", b"PORT=65536", b"PORT=-1", b"PORT=+2B1", b"PORT=1e3",
        b"PROTO=HTTP", b"PROTO=[UNAVAILABLE]", b"HELO=a+0D+0AX", b"HELO=[a", b"HELO=a b", b"LOGIN=a+00b",
        b"LOGIN=a+0Ab", b"LOGIN=+FF", b"IDENT=x",
    ],
)  # fmt: skip
def test_what_is_no_claim_is_refused(argument: bytes) -> None:
    with pytest.raises(BadClaim) as refused:
        introduction(None, argument)
    assert str(refused.value).isascii() and str(refused.value).isprintable()


def test_xforward_gives_fields_of_the_log() -> None:
    said = b"NAME=unknown ADDR=IPV6:2001:DB8::7 PORT=99 PROTO=ESMTP HELO=spike IDENT=4QB2x SOURCE=remote"
    now = forwarded(None, said)
    assert now == {
        b"origin_name": b"unknown", b"origin_client": b"IPv6:2001:db8::7", b"origin_port": b"99",
        b"origin_protocol": b"ESMTP", b"origin_helo": b"spike", b"origin_id": b"4QB2x", b"origin_source": b"REMOTE",
    }  # fmt: skip
    assert forwarded(now, b"NAME=[UNAVAILABLE] ADDR=local-socket")[b"origin_client"] == b"local-socket"
    assert b"origin_name" not in forwarded(now, b"NAME=[UNAVAILABLE]")


@pytest.mark.parametrize("argument", [b"LOGIN=a", b"SOURCE=BOTH", b"PROTO=" + b"x" * 65, b"IDENT=a+0Ab", b"ADDR=a+22b"])
def test_xforward_takes_only_its_own(argument: bytes) -> None:
    with pytest.raises(BadClaim):
        forwarded(None, argument)


def test_whatever_is_said_no_control_octet_or_special_comes_through() -> None:
    chance = random.Random(3)
    octets = [b"NAME=", b"ADDR=", b"HELO=", b"LOGIN=", b"IDENT=", b" ", b"+0D", b"+0A", b"+00", b"+7F", b"+C2+85",
              b"+22", b"a", b".", b"[", b"]", b"<", b"1"]  # fmt: skip
    taken = 0
    for _ in range(20_000):
        argument = b"".join(chance.choices(octets, k=chance.randrange(1, 6)))
        for read in (introduction, forwarded):
            try:
                said = read(None, argument)     # type: ignore[operator]
            except BadClaim:
                continue
            taken += 1
            texts = [value.decode() for value in said.values()] if isinstance(said, dict) else [
                said.name, said.helo or ""]  # fmt: skip
            assert all(text.isascii() and text.isprintable() and not set(text) & set(' "<>()@,;\\') for text in texts)
            if isinstance(said, Introduction):
                assert said.login.isprintable()
    assert taken > 100
