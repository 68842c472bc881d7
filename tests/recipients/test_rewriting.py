"""For whom a forward-path stands: aliases, own domains, catch-alls, copies; and what cannot be made of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import pytest

from angarium.events.journal import Journal
from angarium.mime.notify import Notify
from angarium.recipients.aliases import ExpansionTooLarge
from angarium.recipients.map_watch import MapWatch
from angarium.recipients.maps import MapTrouble
from angarium.recipients.options import BccOptions, DomainOptions, RecipientsOptions
from angarium.recipients.rewriting import Found, Rewriting, notify_of_members, original_recipient

USERS = "bob\nCarol\nabuse@ours.example\n\"quoted one\"\nplus+name\n"
ALIASES = """\
info@ours.example        bob@ours.example, carol@ours.example
self@ours.example        self@ours.example, dave@else.example
out@ours.example         dave@else.example
gone@ours.example        nobody@ours.example
some@ours.example        bob, nobody
loop-a@ours.example      loop-b@ours.example
loop-b@ours.example      loop-a@ours.example
twice@ours.example       info, bob, BOB@OURS.example
deep0@ours.example       deep1
deep1@ours.example       deep2
deep2@ours.example       deep3
deep3@ours.example       bob
many@ours.example        m1@e.example m2@e.example m3@e.example m4@e.example m5@e.example m6@e.example
broken@ours.example      "not closed@x.example
route@ours.example       @a.example:b@c.example
nobody-at-all@ours.example   ,
drop@ours.example        discard:
tagged@ours.example      bob@ours.example
away@ours.example        dave@else.example
bob+special@ours.example carol
"spaced out"@ours.example   bob
@old.example             @ours.example
@catch.example           bob@ours.example
elsewhere@not.example    bob@ours.example
"""


def rewriting(directory: Path, *, bcc: list[dict[str, str]] | None = None, **more: Any) -> Rewriting:
    """ours.example has a list, old.example is another name of it, free.example takes everybody."""
    (directory / "users").write_text(USERS)
    (directory / "aliases").write_text(ALIASES)
    (directory / "senders").write_text("bob@ours.example bob.b@ours.example\n@inner.ours.example @ours.example\n")
    domains: dict[str, dict[str, Any]] = {
        "ours.example": {"recipients": [f"file:{directory}/users"]},
        "old.example": {},
        "catch.example": {},
        "free.example": {},
        "other.example": {"alias_of": "ours.example"},
        "caught.example": {"recipients": [f"file:{directory}/users"], "catch_all": "bob@ours.example"},
        "exact.example": {"recipients": [f"file:{directory}/users"], "case_sensitive": True, "sub_address": ""},
        "asked.example": {"recipients": [f"file:{directory}/users", "call-ahead"]},
        ".wide.example": {"recipients": [f"file:{directory}/users"]},
    }
    options = {
        "aliases": [f"file:{directory}/aliases"],
        "senders": [f"file:{directory}/senders"],
        "max_depth": 3,
        "max_expansion": 5,
        **more,
    }
    return asyncio.run(
        opened(
            directory,
            {name: msgspec.convert(each, DomainOptions) for name, each in domains.items()},
            msgspec.convert(options, RecipientsOptions),
            [msgspec.convert(each, BccOptions) for each in bcc or []],
        )
    )


async def opened(
    directory: Path, domains: dict[str, DomainOptions], options: RecipientsOptions, bcc: list[BccOptions]
) -> Rewriting:
    loop = asyncio.get_running_loop()
    fd = os.open(directory / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    watch = MapWatch(loop, Journal(fd, loop))
    made = Rewriting(domains, options, bcc, watch)
    await watch.look()
    os.close(fd)
    return made


UNKNOWN = Found((), is_unknown=True)

FOUND: list[tuple[str, Found, str]] = [
    ("bob@ours.example", Found((b"bob@ours.example",)), "in the list"),
    ("BOB@Ours.Example", Found((b"BOB@Ours.Example",)), "in any case, and left as it is"),
    ("bob@ours.example.", Found((b"bob@ours.example.",)), "with a final dot"),
    ("carol@ours.example", Found((b"carol@ours.example",)), "the list in any case"),
    ("abuse@ours.example", Found((b"abuse@ours.example",)), "a whole mailbox in the list"),
    ("eve@ours.example", UNKNOWN, "not in the list"),
    ("bo@ours.example", UNKNOWN, "not by its beginning"),
    ("bob+x@ours.example", Found((b"bob+x@ours.example",)), "with a tag"),
    ("+x@ours.example", UNKNOWN, "a tag of nobody"),
    ("plus+name@ours.example", Found((b"plus+name@ours.example",)), "what looks like a tag and is a name"),
    ("plus@ours.example", UNKNOWN, "which is not there without it"),
    ('"bob"@ours.example', Found((b'"bob"@ours.example',)), "quotes that are not needed"),
    ('"b\\ob"@ours.example', Found((b'"b\\ob"@ours.example',)), "a backslash that is not needed"),
    ('"quoted one"@ours.example', Found((b'"quoted one"@ours.example',)), "quotes that are"),
    ("eve@free.example", Found((b"eve@free.example",)), "a domain that takes everybody"),
    ("eve@not.example", Found((b"eve@not.example",)), "a domain that is not ours"),
    ("eve@a.wide.example", UNKNOWN, "a domain below ours"),
    ("bob@a.b.wide.example", Found((b"bob@a.b.wide.example",)), "at any depth"),
    ("bob@wide.example", Found((b"bob@wide.example",)), "but not the domain itself"),
    ("bob@exact.example", Found((b"bob@exact.example",)), "where case counts"),
    ("Bob@exact.example", UNKNOWN, "another"),
    ("Carol@exact.example", Found((b"Carol@exact.example",)), "as the list writes it"),
    ("bob+x@exact.example", UNKNOWN, "without tags"),
    ("info@ours.example", Found((b"bob@ours.example", b"carol@ours.example")), "several"),
    ("INFO@ours.example", Found((b"bob@ours.example", b"carol@ours.example")), "an alias in any case"),
    ("self@ours.example", Found((b"dave@else.example",), unknown=(b"self@ours.example",)), "itself, once"),
    ("out@ours.example", Found((b"dave@else.example",)), "to elsewhere: the operator said so"),
    ("gone@ours.example", UNKNOWN, "to nobody we know"),
    ("some@ours.example", Found((b"bob@ours.example",), unknown=(b"nobody@ours.example",)), "one of them unknown"),
    ("loop-a@ours.example", UNKNOWN, "a loop ends, at nobody"),
    ("twice@ours.example", Found((b"bob@ours.example", b"carol@ours.example")), "each once, in any spelling"),
    ("deep1@ours.example", Found((b"bob@ours.example",)), "as deep as may be"),
    ("drop@ours.example", Found(()), "taken and dropped"),
    ("tagged+x@ours.example", Found((b"bob+x@ours.example",)), "the tag goes along in our domains"),
    ("away+x@ours.example", Found((b"dave@else.example",)), "and not to others"),
    ("bob+special@ours.example", Found((b"carol@ours.example",)), "an alias with its tag is closer"),
    ('"spaced out"@ours.example', Found((b"bob@ours.example",)), "an alias in quotes"),
    ("bob@old.example", Found((b"bob@ours.example",)), "a whole domain"),
    ("eve@old.example", UNKNOWN, "and who is not there is not here"),
    ("info@other.example", Found((b"bob@ours.example", b"carol@ours.example")), "alias_of, then aliases"),
    ("anybody@catch.example", Found((b"bob@ours.example",)), "a catch-all in the map"),
    ("anybody@caught.example", Found((b"bob@ours.example",)), "catch_all"),
    ("carol@caught.example", Found((b"carol@caught.example",)), "not for those who are known"),
    ("elsewhere@not.example", Found((b"bob@ours.example",)), "an alias of a domain that is not ours"),
    ("bob@asked.example", Found((b"bob@asked.example",)), "the list first"),
    ("eve@asked.example", Found((b"eve@asked.example",), asks=True), "then the next hop"),
    ("bob@[192.0.2.1]", Found((b"bob@[192.0.2.1]",)), "an address literal"),
]


@pytest.mark.parametrize(("path", "found", "reason"), FOUND, ids=[row[2] for row in FOUND])
def test_a_forward_path_stands_for(tmp_path: Path, path: str, found: Found, reason: str) -> None:
    assert rewriting(tmp_path).find(path.encode()) == found


@pytest.mark.parametrize("path", ["deep0@ours.example", "many@ours.example"])
def test_an_alias_that_is_too_deep_or_too_large_is_trouble(tmp_path: Path, path: str) -> None:
    with pytest.raises(ExpansionTooLarge):
        rewriting(tmp_path).find(path.encode())


@pytest.mark.parametrize("path", ["broken", "route", "nobody-at-all"])
def test_an_alias_with_something_that_is_no_mailbox_is_trouble(tmp_path: Path, path: str) -> None:
    with pytest.raises(MapTrouble, match=f"aliases: {path}@ours.example: "):
        rewriting(tmp_path).find(f"{path}@ours.example".encode())


def test_aliases_that_name_each_other_many_times_end_soon(tmp_path: Path) -> None:
    names = [f"n{number}@ours.example" for number in range(8)]
    (tmp_path / "dense").write_text("".join(f"{name} {' '.join(names)}\n" for name in names))
    made = rewriting(tmp_path, aliases=[f"file:{tmp_path}/dense"], max_depth=20, max_expansion=1000)
    assert len(made.find(b"n0@ours.example").unknown) == 8


def test_a_map_that_is_not_there_is_trouble_and_not_unknown(tmp_path: Path) -> None:
    made = rewriting(tmp_path, aliases=[f"file:{tmp_path}/none"])
    with pytest.raises(MapTrouble, match="none"):
        made.find(b"bob@ours.example")


@pytest.mark.parametrize(
    "local",
    [
        b'"victim@else.example"',
        b"victim%else.example",
        b"else.example!victim",
        b'"@else.example:victim"',
        b'"victim\\@else.example"',
    ],
)
@pytest.mark.parametrize("domain", [b"ours.example", b"old.example", b"other.example", b"free.example"])
def test_no_local_part_leads_out_of_our_domains(tmp_path: Path, local: bytes, domain: bytes) -> None:
    found = rewriting(tmp_path).find(local + b"@" + domain)
    assert found.is_unknown or found.mailboxes == (local + b"@free.example",)


SENDERS = [
    (b"bob@ours.example", b"bob.b@ours.example"),
    (b"BOB@OURS.example", b"bob.b@ours.example"),
    (b"bob+bounce@ours.example", b"bob.b@ours.example"),
    (b"eve@inner.ours.example", b"eve@ours.example"),
    (b'"a@b"@inner.ours.example', b'"a@b"@ours.example'),
    (b"bob.b@ours.example", b"bob.b@ours.example"),
    (b"eve@else.example", b"eve@else.example"),
    (b"", b""),
]


@pytest.mark.parametrize(("reverse_path", "becomes"), SENDERS)
def test_a_sender_is_rewritten_once(tmp_path: Path, reverse_path: bytes, becomes: bytes) -> None:
    assert rewriting(tmp_path).rewrite_sender(reverse_path) == becomes


def test_copies_go_by_sender_once_and_by_recipient_each_time(tmp_path: Path) -> None:
    rules = [
        {"to": "all@arc.example"},
        {"to": "from@arc.example", "sender": "x.example"},
        {"to": "to@arc.example", "recipient": "y.example"},
        {"to": "both@arc.example", "sender": "a@x.example", "recipient": ".y.example"},
    ]
    made = rewriting(tmp_path, bcc=rules)
    first = made.copies(b"a@x.example", b"b@y.example", is_first=True)
    assert first == [b"all@arc.example", b"from@arc.example", b"to@arc.example"]
    assert made.copies(b"a@x.example", b"c@s.y.example", is_first=False) == [b"both@arc.example"]
    assert made.copies(b"", b"c@z.example", is_first=True) == [b"all@arc.example"]


def test_lmdb_answers_with_keys_as_postmap_writes_them_too(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "a.lmdb"), subdir=False) as environment, environment.begin(write=True) as put:
        put.put(b"one@ours.example", b"bob@ours.example")
        put.put(b"two@ours.example\0", b"bob@ours.example\0")
    made = rewriting(tmp_path, aliases=[f"lmdb:{tmp_path}/a.lmdb"])
    for name in (b"one", b"two"):
        assert made.find(name + b"@ours.example").mailboxes == (b"bob@ours.example",)
    assert made.find(b"l" * 600 + b"@ours.example").is_unknown


def test_original_recipient_is_xtext() -> None:
    assert original_recipient(b"a+b=c@y.example") == b"rfc822;a+2Bb+3Dc@y.example"
    assert original_recipient(b'"a b"@y.example') == b'rfc822;"a+20b"@y.example'
    assert original_recipient("jörg@y.example".encode()) == b"utf-8;j\\x{F6}rg@y.example"
    assert original_recipient(b"=" * 300 + b"@y.example") == b""


def test_members_of_an_alias_are_not_reported_as_successes() -> None:
    assert notify_of_members(0) == 0
    assert notify_of_members(Notify.SUCCESS | Notify.FAILURE) == Notify.FAILURE
    assert notify_of_members(Notify.SUCCESS) == Notify.NEVER
    assert notify_of_members(Notify.NEVER) == Notify.NEVER
