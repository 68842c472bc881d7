"""The header machine of submission: where a header section ends, which mailboxes lack a domain, and what is put in."""

from __future__ import annotations

import random

import pytest

from angarium.mime.header_section import are_clear, complete, fields, fields_for_any_reader, find_end, mailboxes


@pytest.mark.parametrize(
    ("message", "how", "end"),
    [
        (b"", "open", 0),
        (b"From: a\r\n", "open", 9),
        (b"From: a\r\nTo:", "open", 9),
        (b"From: a\r\n\r\nbody", "blank", 9),
        (b"\r\nbody\r\n", "blank", 0),
        (b"From: a\r\n folded\r\n\tand again\r\n\r\n", "blank", 30),
        (b"hello\r\n", "body", 0),
        (b"From: a\r\nhello world: no field\r\n", "body", 9),
        (b" folded nothing: x\r\n", "body", 0),
        (b"From : a\r\n\r\n", "blank", 10),
        (b": a\r\n", "body", 0),
        (b"Fr\xe4m: a\r\n", "body", 0),
    ],
)
def test_where_the_header_section_ends(message: bytes, how: str, end: int) -> None:
    assert find_end(message) == (how, end)


def test_fields_and_their_kinds() -> None:
    header = b"date: x\r\nMESSAGE-ID: y\r\n z\r\nFrom : a\r\nX-From: b\r\nSender:c\r\nTo:\r\nDatex: 1\r\n"
    assert [(kind, name) for kind, name, _ in fields(header)] == [
        (1, b"date:"), (2, b"MESSAGE-ID:"), (3, b"From :"), (0, b"X-From:"), (4, b"Sender:"), (5, b"To:"),
        (0, b"Datex:"),
    ]  # fmt: skip
    assert fields(header)[1][2] == b" y\r\n z\r\n"


@pytest.mark.parametrize(
    ("message", "names"),
    [
        (b"A: x\r\nB: y\r\n z\r\n\r\nC: body\r\n", [b"A:", b"B:"]),
        (b"A: x\r\nno field\r\nB: y\r\n\r\nC: body\r\n", [b"A:", b"B:"]),
        (b"From a@b\r\n folded: x\r\nFrom : y\r\n", [b"From :"]),
        (b" A: x\r\n\x0cB: y\r\nC: z", [b"C:"]),
        (b"A: x\r\nB: y\r\n z", [b"A:", b"B:"]),
        (b"A: x\r", [b"A:"]),
        (b"\r\nA: x\r\n", []),
        (b"no field", []),
        (b"", []),
    ],
)
def test_who_passes_over_what_is_no_field_finds_what_any_reader_may_find(message: bytes, names: list[bytes]) -> None:
    found = fields_for_any_reader(message)
    assert [name for _, name, _ in found] == names
    assert all(name.startswith(b"From") == (kind == 3) for kind, name, _ in found)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b" a@x.example\r\n", [(b"a@x.example", True)]),
        (b" root\r\n", [(b"root", False)]),
        (b" root (Cron Daemon)\r\n", [(b"root", False)]),
        (b" (a@b (nested) \\) x) root\r\n", [(b"root", False)]),
        (b" Cron Daemon <root>\r\n", [(b"root", False)]),
        (b' "a@b, c" <root>, d@x.example\r\n', [(b"root", False), (b"d@x.example", True)]),
        (b' "a b"\r\n', [(b'"a b"', False)]),
        (b' "a@b"@x.example\r\n', [(b'"a@b"@x.example', True)]),
        (b" John Doe\r\n", []),
        (b" John Doe, root\r\n", [(b"root", False)]),
        (b" undisclosed-recipients:;\r\n", []),
        (b" Team: a, b@x.example; , c\r\n", [(b"a", False), (b"b@x.example", True), (b"c", False)]),
        (b" <>\r\n", []),
        (b" <@a,@b:c@d>\r\n", [(b"@a,@b:c@d", True)]),
        (b" a@[192.0.2.1], b@[IPv6:::1]\r\n", [(b"a@[192.0.2.1]", True), (b"b@[IPv6:::1]", True)]),
        (b" a.b\r\n\t,c\r\n", [(b"a.b", False), (b"c", False)]),
        (b" a @ x . example\r\n", [(b"a @ x . example", True)]),
        (b" <root\r\n", []),
        (b' "root\r\n', []),
        (b" a>b\r\n", []),
        (b" a\\b\r\n", []),
        (b" ,,;:,\r\n", []),
        (b" @\r\n", []),
    ],
)
def test_mailboxes_of_a_list(value: bytes, found: list[tuple[bytes, bool]]) -> None:
    assert mailboxes(value) == found


@pytest.mark.parametrize(
    ("value", "is_clear"),
    [
        (b" a@x.example\r\n", True),
        (b" John Q. Public <a@x.example>, \"Doe, J\" <b@x.example>\r\n", True),
        (b" (he \\) said) a@x.example (nested (twice))\r\n", True),
        (b" =?utf-8?q?eve=40z.example?= <a@x.example>\r\n", True),
        (b" Team: a@x.example, b@x.example;\r\n", True),
        (b" <@r.example,@s.example:a@x.example>\r\n", True),
        (b" a@[192.0.2.1], \"a b\"@x.example\r\n", True),
        (b" ,a@x.example,\r\n", True),
        (b" A@x.example <a@X.example>\r\n", True),
        (b" \xc3\xa9 <\xc3\xa9@x.example>\r\n", True),
        (b" [IT] Alice <a@x.example>\r\n", True),
        (b" John [IT, ops.example] <a@x.example>\r\n", False),     # a list for some
        (b" John [IT ops.example]\r\n <a@x.example>, Team [x]: [y] <b@x.example>;\r\n", True),
        (b" [eve@z.example] <a@x.example>\r\n", False),
        (b" [eve\\@z.example] <a@x.example>\r\n", False),
        (b" [IT [x]] <a@x.example>\r\n", False),
        (b" [IT <a@x.example>\r\n", False),
        (b" IT] <a@x.example>\r\n", False),
        (b" [IT]@z.example <a@x.example>\r\n", False),
        (b" eve [IT]@z.example <a@x.example>\r\n", False),
        (b" [IT] a@x.example\r\n", False),
        (b" [IT]\r\n", False),
        (b" <[IT] a@x.example>\r\n", False),
        (b" Alice <a@x.example>.\r\n", False),
        (b" eve@z.example <a@x.example>\r\n", False),              # which of the two is it?
        (b" <a@x.example> <eve@z.example>\r\n", False),
        (b" <a@x.example> eve@z.example\r\n", False),
        (b" <a@x.example>eve\r\n", False),
        (b" <<eve@z.example>a@x.example>\r\n", False),
        (b" [<eve@z.example>] <a@x.example>\r\n", False),
        (b" eve@z.example: a@x.example;\r\n", False),
        (b" a@x.example, (<eve@z.example>\r\n", False),
        (b" a@x.example, ((x) <eve@z.example>\r\n", False),
        (b" a@x.example, \"<eve@z.example>\r\n", False),
        (b" a@x.example, \"<eve@z.example>\\\"\r\n", False),
        (b" a@x.example, <eve@z.example\r\n", False),
        (b" a@x.example> <eve@z.example\r\n", False),
        (b" \\<eve@z.example> <a@x.example>\r\n", False),
        (b" a@[192.0.2.1\r\n", False),
        (b" a@x.example\x00\r\n", False),
    ],
)  # fmt: skip
def test_a_list_is_clear_when_every_reader_finds_the_same_in_it(value: bytes, is_clear: bool) -> None:
    assert are_clear(value) is is_clear


def test_a_domain_is_put_behind_what_has_none() -> None:
    header = (
        b"From: root (Cron)\r\nTo: Boss <boss>, a@y.example,\r\n b\r\nSubject: to root\r\nCc: Team: c, d;\r\n"
        b"Sender: me\r\nX-To: x\r\n"
    )
    done = (
        b"From: root@x.example (Cron)\r\nTo: Boss <boss@x.example>, a@y.example,\r\n b@x.example\r\n"
        b"Subject: to root\r\nCc: Team: c@x.example, d@x.example;\r\n"
    )
    assert complete(header, b"x.example") == done + b"Sender: me@x.example\r\nX-To: x\r\n"
    assert complete(header, b"x.example", True) == done + b"X-To: x\r\n"
    assert complete(done, b"x.example") == done


def test_whatever_a_header_holds_only_domains_are_added() -> None:
    chance = random.Random(5)
    pieces = [b"From: ", b"To:", b"Sender: ", b"a", b"@", b".", b"<", b">", b"(", b")", b'"', b"\\", b",", b":", b";",
              b"[", b"]", b" ", b"\t", b"\r\n", b"\r\n ", b"\x80", b"x.example"]  # fmt: skip
    for _ in range(50_000):
        message = b"".join(chance.choices(pieces, k=chance.randrange(1, 24))) + b"\r\n"
        how, end = find_end(message)
        header = message[:end]
        assert b"".join(name + value for _, name, value in fields(header)) == header, how
        done = complete(header, b"DOMAIN")
        assert done.replace(b"@DOMAIN", b"") == header
        # Once is enough: what has got its domain has one.
        assert complete(done, b"DOMAIN") == done, header
