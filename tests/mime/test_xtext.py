"""DSN parameters decoded."""

import pytest

from angarium.mime.xtext import decode_utf8_addr_xtext, decode_xtext, encode_utf8_addr_xtext


@pytest.mark.parametrize(("text", "octets"), [
    (b"user@example.com", b"user@example.com"),
    (b"a+2Bb+3Dc", b"a+b=c"),
    (b"a+20b", b"a b"),
    (b"100+", b"100+"),
    (b"a+2", b"a+2"),
    (b"a+zz", b"a+zz"),
    (b"+2B2B", b"+2B"),
])
def test_xtext_is_decoded_once(text: bytes, octets: bytes) -> None:
    assert decode_xtext(text) == octets


ADDRESSES = ["jörg@bücher.example", "a+b=c@example.com", "back\\slash@example.com", "用户@例え.example"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_utf8_address_survives_its_ascii_spelling(address: str) -> None:
    encoded = encode_utf8_addr_xtext(address)
    assert encoded.isascii()
    assert decode_utf8_addr_xtext(encoded) == address


@pytest.mark.parametrize("text", ["\\x{D800}", "\\x{FFFFFF}", "\\x{}", "\\x{12"])
def test_what_is_no_character_stays(text: str) -> None:
    assert decode_utf8_addr_xtext(text) == text
