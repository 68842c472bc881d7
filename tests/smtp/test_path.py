"""Mailboxes and paths: the C parser against the ABNF as regular expressions, and isemail's verdicts."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from smtp import oracle

from angarium.smtp import limits, machines

ISEMAIL = Path(__file__).parents[3] / "shared" / "data" / "addresses" / "isemail.xml"

# Octets that matter to the grammar, so that what is drawn is often nearly right.
PIECES = st.sampled_from([
    b"a", b"Z", b"9", b"-", b".", b"@", b'"', b"\\", b" ", b"_", b"+", b"[", b"]", b"<", b">", b":", b"::",
    b",", b"(", b"IPv6:", b"1", b"255", b"256", b"192.0.2.1", b"ffff", b"x:y", b"a" * 60, b"abc.example",
    b"\xc3\xa9", b"\xc2\x80", b"\xed\xa0\x80", b"\xff", b"\x00", b"\t", b"\r", b"\n", b"\x7f", b"postmaster",
])
ALMOST = st.lists(PIECES, max_size=12).map(b"".join)
ALMOST_MAILBOX = st.one_of(
    ALMOST,
    st.tuples(ALMOST, ALMOST).map(b"@".join),
    st.tuples(st.just(b"a"), ALMOST).map(b"@".join),
    st.tuples(ALMOST, st.just(b"a.example")).map(b"@".join),
    ALMOST.map(lambda text: b'"' + text + b'"@a'),
    ALMOST.map(lambda text: b"a@[" + text + b"]"),
)
IPV6_TEXT = st.lists(st.sampled_from([b"0", b"12ab", b":", b":", b"::", b"1", b"1.2.3.4", b"f"]),
                     max_size=18).map(b"".join)


@settings(max_examples=1000)
@given(ALMOST_MAILBOX, st.booleans())
@example(b"a@" + b"b" * 63, False)
@example(b"a@" + b"b" * 64, False)
@example(b"a" * 65 + b"@b", False)
@example(b"a@" + b".".join([b"b" * 62] * 4), False)
@example(b"a@" + "ü".encode() * 59, True)
@example(b"a@" + "ü".encode() * 60, True)
def test_mailbox_is_accepted_exactly_when_the_grammar_has_it(text, utf8):
    got = machines.parse_mailbox(text, utf8=utf8)
    expected = oracle.mailbox(text, utf8)
    assert (got["result"] == "ok") == (expected is not None), got
    if expected is None:
        assert got["mailbox"] == got["local_part"] == got["domain"] == b""
        assert got["end"] <= len(text)
    else:
        assert (got["local_part"], got["domain"], got["mailbox"]) == (*expected, text)
        assert got["is_quoted"] == text.startswith(b'"')
        assert got["is_literal"] == expected[1].startswith(b"[")
        assert got["has_utf8"] == (not text.isascii())


@settings(max_examples=1000)
@given(st.one_of(ALMOST, ALMOST_MAILBOX.map(lambda text: b"<" + text + b">"),
                 ALMOST_MAILBOX.map(lambda text: b"<@r.example,@s:" + text + b"> SIZE=1"),
                 st.tuples(ALMOST, ALMOST_MAILBOX).map(lambda both: b"<@" + both[0] + b":" + both[1] + b">")),
       st.booleans())
def test_path_is_accepted_exactly_when_the_grammar_has_it(text, utf8):
    got = machines.parse_path(text, utf8=utf8)
    expected = oracle.path(text, utf8)
    assert (got["result"] == "ok") == (expected is not None), got
    if expected is not None:
        assert (got["end"], got["mailbox"], got["local_part"], got["domain"]) == expected


@settings(max_examples=1000)
@given(IPV6_TEXT)
@example(b"::01.2.3.004")
def test_ipv6_literal_is_accepted_exactly_when_the_grammar_has_it(text):
    is_valid = machines.domain_is_valid(b"[IPv6:" + text + b"]")
    assert is_valid == oracle.ipv6(text)
    if is_valid:        # a second opinion; it takes "::" for one group too, hence one way only
        assert oracle.is_standard_ipv6(text.decode())


@given(st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode),
                 st.tuples(st.text(max_size=9), st.binary(max_size=4))
                 .map(lambda both: both[0].encode() + both[1])))
def test_utf8_is_well_formed_exactly_when_python_decodes_it(data):
    assert machines.utf8_is_valid(data) == oracle.well_formed(data)


@pytest.mark.parametrize("lead", range(0x80, 0x100))
def test_utf8_second_octets_are_judged_one_by_one(lead):
    for second in range(0x100):
        for tail in (b"", b"\x80", b"\x80\x80", b"\xbf\xbf"):
            data = bytes([lead, second]) + tail
            assert machines.utf8_is_valid(data) == oracle.well_formed(data), data.hex()


def test_ipv6_literal_with_every_number_of_groups():
    for before in range(10):
        for after in range(10):
            for tail in (b"", b"192.0.2.255", b"192.0.2.256"):
                left = b":".join([b"a"] * before)
                right = b":".join([b"b"] * after + ([tail] if tail else []))
                for text in (left + b"::" + right, left + b":" + right, right):
                    is_valid = machines.domain_is_valid(b"[IPv6:" + text + b"]")
                    assert is_valid == oracle.ipv6(text), text


def test_limits_are_sharp():
    for local_part in (1, 63, 64, 65):
        for label in (62, 63, 64):
            for last in range(55, 66):
                domain = b".".join([b"d" * 63] * 2 + [b"d" * label, b"d" * last])
                text = b"l" * local_part + b"@" + domain
                is_valid = machines.parse_mailbox(text)["result"] == "ok"
                assert is_valid == (oracle.mailbox(text) is not None), len(text)
                is_valid = machines.parse_path(b"<" + text + b">")["result"] == "ok"
                assert is_valid == (oracle.path(b"<" + text + b">") is not None), len(text)
                assert machines.domain_is_valid(domain) == (label <= 63 and last <= 63 and len(domain) <= 255)


def test_postmaster_needs_no_domain_in_any_case_where_allowed():
    for text in (b"postmaster", b"PostMASTER"):
        assert machines.parse_mailbox(text, postmaster=True)["mailbox"] == text
        assert machines.parse_path(b"<" + text + b">", postmaster=True)["local_part"] == text
        assert machines.parse_path(b"<" + text + b">")["result"] == "syntax"
        assert machines.parse_path(b"<@r:" + text + b">", postmaster=True)["result"] == "syntax"


@settings(max_examples=20)
@given(st.binary(max_size=3))
def test_every_single_octet_in_every_place(noise):
    """Exhaustive over octets, since one wrong row of the class table is enough."""
    for octet in range(256):
        for before, after in ((b"", b"@b"), (b'"', b'"@b'), (b'"\\', b'"@b'), (b"a@", b""), (b"a@b", b"c"),
                              (b"a@b", b""), (b"a@[x:", b"]"), (b"a@[", b":x]"), (b"a@[IPv6:::", b"]")):
            text = before + bytes([octet]) + noise + after
            for utf8 in (False, True):
                got = machines.parse_mailbox(text, utf8=utf8)["result"] == "ok"
                assert got == (oracle.mailbox(text, utf8) is not None), text


def test_limits_are_those_of_limits_py():
    assert machines.LIMITS["local_part"] == limits.LOCAL_PART_OCTETS
    assert machines.LIMITS["label"] == limits.LABEL_OCTETS
    assert machines.LIMITS["domain"] == limits.DOMAIN_OCTETS
    assert machines.LIMITS["path"] == limits.PATH_OCTETS


# -- isemail --

# Which verdicts say that RFC 5321 has the mailbox. The rest is for header fields (CFWS, DEPREC, RFC5322)
# or for nobody (ERR).
VALID_CATEGORIES = {"ISEMAIL_VALID_CATEGORY", "ISEMAIL_DNSWARN", "ISEMAIL_RFC5321"}
EXCEPTIONS = {
    b"test@[1111:2222:3333:4444:5555:6666:7777:8888]":
        "a General-address-literal by syntax, tag 1111; isemail asks for a registered tag",
}


def isemail_rows():
    if not ISEMAIL.exists():
        return []
    rows = []
    for test in ElementTree.parse(ISEMAIL).getroot().iter("test"):
        # The file shows control octets by their symbols, U+2400 and following.
        text = "".join(chr(ord(c) - 0x2400) if 0x2400 <= ord(c) < 0x2420 else c
                       for c in test.findtext("address") or "")
        rows.append(pytest.param(text.encode(), test.findtext("category"), test.findtext("diagnosis"),
                                 id=f"isemail-{test.get('id')}"))
    return rows


@pytest.mark.skipif(not ISEMAIL.exists(), reason=f"{ISEMAIL} is not here")
@pytest.mark.parametrize("text,category,diagnosis", isemail_rows())
def test_isemail_verdict(text, category, diagnosis):
    is_valid = category in VALID_CATEGORIES or text in EXCEPTIONS
    assert (machines.parse_mailbox(text)["result"] == "ok") == is_valid, diagnosis


@pytest.mark.skipif(not ISEMAIL.exists(), reason=f"{ISEMAIL} is not here")
def test_isemail_table_was_read():
    assert len(isemail_rows()) == 164
