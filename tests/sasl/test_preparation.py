"""SASLprep (RFC 4013 §3 and the rules behind it)."""

from __future__ import annotations

import pytest

from angarium.sasl.preparation import identity_of, password_of, saslprep


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("I\u00adX", "IX"),  # RFC 4013 §3: soft hyphen is mapped to nothing
        ("user", "user"),
        ("USER", "USER"),  # case is kept
        ("\u00aa", "a"),  # NFKC
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),  # RFC 4013 §2.1
        ("e\u0301", "\u00e9"),
        ("\u0627\u0628", "\u0627\u0628"),
        ("pass\U0001f600", "pass\U0001f600"),  # newer than Unicode 3.2, let through
    ],
)
def test_text_is_prepared(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize(
    "text",
    ["\x07", "a\nb", "a\x7f", "\u0085", "\u0627\u0031", "\ufeff\u200e", "\ue000", "a\u2028b", "\U000e0001", "\ud800"],
)
def test_prohibited_text_is_refused(text: str) -> None:
    """RFC 4013 §2.3, §2.4: controls, private use, surrogates, tags, and directions mixed."""
    with pytest.raises(ValueError):
        saslprep(text)


def test_identities_and_passwords_have_limits() -> None:
    assert identity_of("a" * 255) == "a" * 255
    for text in ("", "\u00ad", "a" * 256, "\u00e9" * 128):
        with pytest.raises(ValueError):
            identity_of(text)
    assert password_of("a" * 1024)
    for text in ("", "a" * 1025):
        with pytest.raises(ValueError):
            password_of(text)
