"""[shaping] from the file to what holds: unset keys, files beneath, and the line that set each key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from angarium.config.explain_shaping import ShapingLine, explain_shaping
from angarium.config.files import KeyPath
from angarium.config.lines import lines_of
from angarium.config.schema import load, of_tables
from angarium.config.shaping_files import shipped
from angarium.config.tls_warnings import tls_warnings
from angarium.model.errors import ConfigError
from angarium.model.plan import Host, Site

LISTENER = '[[listener]]\naddress = "127.0.0.1:2525"\n'
SITE = Site("mx1.big.example", "smtp", (Host("mx1.big.example", ("192.0.2.1",)),))


def write(folder: Path, text: str, **others: str) -> Path:
    for name, content in others.items():
        (folder / f"{name}.toml").write_text(content)
    path = folder / "angarium.toml"
    path.write_text(text + LISTENER)
    return path


def lines(path: Path) -> dict[str, ShapingLine]:
    found: dict[str, ShapingLine] = {}
    for line in explain_shaping(*load(path), SITE, "a.example"):
        found.setdefault(line.key, line)
    return found


WHOLE = """\
[shaping.default]
connections = 40        # line 2
message_rate = "100/s"
[shaping.provider.big]  # line 4
mx = ["*.big.example"]
connections = 10
message_rate = "unset"  # line 7

[shaping.domain."a.example"]
retry = { first = "1m" }        # line 10
[shaping.tenant]
shop = { message_rate = "600/m" }       # line 12
"""


def test_every_key_says_which_line_of_which_file_set_it(tmp_path: Path) -> None:
    found = lines(write(tmp_path, WHOLE))
    where = tmp_path / "angarium.toml"
    assert found["connections"][:3] == ("connections", "10", (where, 6, "shaping.provider.big.connections"))
    assert str(found["retry"].place) == f'{where}:10 shaping.domain."a.example".retry'
    assert found["retry"].value == '{ first = "1m" }'
    unset = found["message_rate"]
    assert unset.place is not None
    assert (unset.value, unset.place.line, unset.note.split(";")[0]) == ("none", 7, "unset")
    assert (found["idle_time"].value, found["idle_time"].place) == ('"5s"', None)


def test_both_rates_of_a_tenant_are_told(tmp_path: Path) -> None:
    config, tree = load(write(tmp_path, WHOLE))
    other = Site("mx.small.example", "smtp")
    told = explain_shaping(config, tree, other, "b.example", tenant="shop")
    rates = [each for each in told if each.key == "message_rate"]
    assert [(each.value, each.place and each.place.line) for each in rates] == [('"600/m"', 12), ('"100/s"', 3)]
    assert "besides what is counted for the site" in rates[0].note


def test_each_limit_of_a_tenant_has_its_line_and_so_has_what_it_unsets(tmp_path: Path) -> None:
    own = '[shaping.default]\nconnections = 5\nmessage_rate = "9/s"\n[shaping.tenant.shop]\nconnections = 3\n'
    own += 'connection_rate = "1/s"\nmessage_rate = "unset"\n'
    told = explain_shaping(*load(write(tmp_path, own)), SITE, "a.example", tenant="shop")
    found = [(each.besides, each.key, each.value, each.place and each.place.line) for each in told[:5]]
    assert found == [
        ("tenant", "connections", "3", 5), ("tenant", "connection_rate", '"1/s"', 6), ("", "connections", "5", 2),
        ("", "connection_rate", "none", None), ("", "message_rate", "none", 7),
    ]  # fmt: skip


def test_the_line_of_a_certificate_and_of_what_is_not_heeded_is_told(tmp_path: Path) -> None:
    own = '[shaping.default]\ntls_ca = "/ca.pem"\n[shaping.provider.big]\nmx = ["*.big.example"]\ndane = false\n'
    own += '[shaping.domain."a.example"]\ntls_ca = "unset"\ntls_certificate = { cert = "/c.pem", key = "/c.key" }\n'
    found = lines(write(tmp_path, own))
    told = {key: (each.value, each.place.line, each.note) for key, each in found.items() if each.place is not None}
    assert told == {
        "dane": ("false", 5, ""),
        "tls_ca": ("none", 7, "unset"),
        "tls_certificate": ('{ cert = "/c.pem", key = "/c.key" }', 8, ""),
    }


OF_PAIRS = """\
[source.ip-1]
[shaping.provider.big]
mx = ["*.big.example"]
[shaping.source.ip-1]
connections  = 10
message_rate = "50/s"
[shaping.source.ip-1.provider.big]      # line 7
connections     = 3
connection_rate = "20/m"
message_rate    = "unset"
share           = true
[shaping.source.ip-1.site."mx1.big.example"]
connection_rate = "unset"               # line 13
idle_time       = "9s"
"""


def test_limits_of_source_and_site_have_their_lines(tmp_path: Path) -> None:
    config, tree = load(write(tmp_path, OF_PAIRS))
    told = explain_shaping(config, tree, SITE, "a.example", source="ip-1")
    found = {each.key: (each.value, each.place and (each.place.line, each.place.key), each.note) for each in told}
    pair = "shaping.source.ip-1.provider.big"
    counted = "counted for source ip-1 provider big, all sites together"
    assert found["connections"] == ("3", (8, f"{pair}.connections"), counted)
    assert found["message_rate"] == ("none", (10, f"{pair}.message_rate"), "unset")
    site = 'shaping.source.ip-1.site."mx1.big.example"'
    assert found["connection_rate"] == ("none", (13, f"{site}.connection_rate"), "unset")
    assert found["idle_time"] == ('"9s"', (14, f"{site}.idle_time"), "")
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(tree.tables))
    assert of_tables(sent).shaping == config.shaping


def test_tables_of_source_and_site_of_other_files_are_taken_key_by_key(tmp_path: Path) -> None:
    """Once all of them were dropped when the own file had one, and what came through had no line."""
    own = '[shaping]\nfiles = ["more.toml"]\n' + OF_PAIRS
    more = """\
[shaping.source.ip-1.provider.big]
connections   = 9       # the own file has it
idle_time     = "7s"    # line 3
max_ready     = 5
[shaping.source.ip-1.site."mx1.big.example"]
mail_timeout  = "8s"    # line 6
[shaping.source.ip-2.site."mx1.big.example"]
connections   = 2       # line 8
retry         = { first = "9m" }
"""
    path = write(tmp_path, own + "[source.ip-2]\n", more=more)
    config, tree = load(path)
    of_both = config.shaping.source["ip-1"]
    assert (of_both.provider["big"].connections, of_both.provider["big"].max_ready) == (3, 5)
    found = {each.key: each for each in explain_shaping(config, tree, SITE, "a.example", source="ip-1")}
    assert (found["connections"].value, found["max_ready"].value, found["idle_time"].value) == ("3", "5", '"9s"')
    assert found["max_ready"].place == (tmp_path / "more.toml", 4, "shaping.source.ip-1.provider.big.max_ready")
    assert found["mail_timeout"].place is not None and found["mail_timeout"].place.line == 6
    found = {each.key: each for each in explain_shaping(config, tree, SITE, "a.example", source="ip-2")}
    of_more = 'shaping.source.ip-2.site."mx1.big.example"'
    assert found["connections"].place == (tmp_path / "more.toml", 8, f"{of_more}.connections")
    assert found["retry"].place == (tmp_path / "more.toml", 9, f"{of_more}.retry")


def test_a_default_that_is_written_out_has_its_line_too(tmp_path: Path) -> None:
    found = lines(write(tmp_path, "[shaping.default]\nconnections = 32\n"))["connections"]
    assert found.place is not None and found.place.line == 2


def test_keys_of_the_own_file_hold_before_those_of_other_files(tmp_path: Path) -> None:
    own = '[shaping]\nfiles = ["first.toml", "second.toml"]\n'
    own += '[shaping.provider.big]\nconnections = 5\nidle_time = "unset"\n'
    first = '[shaping.provider.big]\nmx = ["*.big.example"]\nconnections = 7\nidle_time = "9s"\n'
    first += "recipients_per_transaction = 8\n"
    second = "[shaping.provider.big]\nrecipients_per_transaction = 9\n[shaping.default]\nmessages_per_connection = 50\n"
    found = lines(write(tmp_path, own, first=first, second=second))
    told = {key: (each.value, each.place.file.name) for key, each in found.items() if each.place is not None}
    assert told["connections"] == ("5", "angarium.toml")
    assert told["idle_time"] == ('"5s"', "angarium.toml")
    assert told["recipients_per_transaction"] == ("8", "first.toml")
    assert told["messages_per_connection"] == ("50", "second.toml")


def test_a_worker_reads_the_same_from_the_tables_it_is_sent(tmp_path: Path) -> None:
    config, tree = load(write(tmp_path, WHOLE + '[shaping]\nfiles = ["@shipped"]\n'))
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(tree.tables))
    assert of_tables(sent).shaping == config.shaping


def test_what_ships_loads_and_every_number_has_its_source(tmp_path: Path) -> None:
    config, tree = load(write(tmp_path, '[shaping]\nfiles = ["@shipped"]\n'))
    assert config.shaping.provider["yahoo"].messages_per_connection == 20
    assert shipped() in tree.files
    for line in shipped().read_text().splitlines():
        _, equals, value = line.partition("=")
        if equals and not line.startswith("#") and value.partition("#")[0].strip().isdigit():
            assert re.search(r"https://\S+\.\S+", value.partition("#")[2]), line
    assert set(tomllib.loads(shipped().read_text())["shaping"]) == {"provider"}


def test_who_asks_less_of_tls_than_a_domain_before_which_it_holds_is_warned(tmp_path: Path) -> None:
    own = """\
[source.ip-1]
[shaping.default]
tls = "required"
[shaping.provider.big]
mx = ["*.big.example"]
[shaping.domain."bank.example"]
tls = "encrypt"
[shaping.domain."pay.example"]
tls = "required"
[shaping.source.ip-1]
tls = "required"
[shaping.source.ip-1.provider.big]
tls = "none"            # line 13
[shaping.tenant.shop]
tls = "encrypt"         # line 15
[shaping.tenant.bulk]
tls = "unset"           # line 17
"""
    config, tree = load(write(tmp_path, own))
    told = list(tls_warnings(config.shaping, tree))
    where = tmp_path / "angarium.toml"
    assert [each.partition(": ")[0] for each in told] == [
        f"{where}:15 shaping.tenant.shop.tls",
        f"{where}:17 shaping.tenant.bulk.tls",
        f"{where}:13 shaping.source.ip-1.provider.big.tls",
    ]
    assert told[0].partition(": ")[2] == (
        '"encrypt" holds before shaping.domain."pay.example".tls, "required": '
        "a table of a tenant is narrower than that of a domain"
    )
    assert '"opportunistic" holds before shaping.domain."bank.example".tls, "encrypt", and before 1 more' in told[1]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[shaping.tenant.t]\nconnections = 0\n", "shaping.tenant.t.connections: between 1 and 65535"),
        ('[shaping.tenant.t]\nlogin = "us"\n', "shaping.tenant.t.login: would be told to every host in the world"),
        ('[shaping.source.ip-9]\nconnections = 3\n', "shaping.source.ip-9: there is no [source.ip-9]"),
        (
            "[source.a]\n[shaping.provider.big]\nmx = ['x.example']\n[shaping.source.a.provider.bug]\nbdat = false\n",
            'shaping.source.a.provider.bug: there is no [shaping.provider.bug]; did you mean "big"?',
        ),
        (
            "[source.a]\n[shaping.source.a.site.x]\naddress_family = 'ipv4'\n",
            "shaping.source.a.site.x.address_family: the address in [source] decides it",
        ),
        ("[source.a]\n[shaping.source.a.site.x]\nshare = true\n", "shaping.source.a.site.x.share: unknown key"),
        ("[source.a]\n[shaping.source.a.site.x]\nlogin = 'us'\n", "source.a.site.x.login: there is no [login.us]"),
        ('[shaping.domain."a b"]\nconnections = 3\n', 'shaping.domain: "a b" is neither a domain'),
        ('[shaping.domain."x.example"]\nshare = true\n', 'shaping.domain."x.example".share: unknown key'),
        ('[shaping.domain."x.example"]\nfoo = "unset"\n', 'shaping.domain."x.example".foo: unknown key'),
        ('[shaping.provider.p]\nmx = "unset"\n', "shaping.provider.p.mx: expected array, got string"),
        ('[shaping.default]\nretry = { first = "1m" }\n', "shaping.default.retry: for all mail it is set in"),
        ('[shaping]\nfiles = ["gone.toml"]\n', "gone.toml: no such file"),
        ('[shaping]\nfiles = ["other.toml"]\n', "other.toml: node: a file of [shaping] files holds [shaping.*] only"),
    ],
)
def test_a_refusal_names_the_key(tmp_path: Path, text: str, wanted: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(write(tmp_path, text, other="[node]\nworkers = 1\n"))
    assert wanted in str(refused.value)


def test_lines_are_found_whatever_the_file_looks_like() -> None:
    text = '''# a comment with [brackets] and "quotes"
top = 1
multi = """
[not.a.table]
x = 2 \\""" still
"""
array = [   # line 7
  "]", 'x=[',
  { a = 1 },
]
"quoted key"."a.b" = 'lite#ral'
[a.b]
c = { d = "}" } # line 13
[[list]]
k = 1
[list.sub]
k = 2
[[list]]
k = 3   # line 19
date = 1979-05-27T07:32:00Z
'''
    tomllib.loads(text)
    found = lines_of(text)
    assert {path: line for path, line in found.items() if path[-1] in ("top", "multi", "array", "a.b", "c")} == {
        ("top",): 2, ("multi",): 3, ("array",): 7, ("quoted key", "a.b"): 11, ("a", "b", "c"): 13,
    }  # fmt: skip
    assert (found["list", 0, "k"], found["list", 0, "sub", "k"], found["list", 1, "k"]) == (15, 17, 19)
    assert found["list", 1, "date"] == 20
    assert lines_of(text.replace("\n", "\r\n")) == found


def test_every_key_of_every_example_has_a_line() -> None:
    for path in (Path(__file__).parents[2] / "examples").glob("*.toml"):
        text = path.read_text()
        found = lines_of(text)

        check_lines(tomllib.loads(text), (), found, text.splitlines())


def check_lines(table: dict[str, Any], here: KeyPath, found: dict[KeyPath, int], lines: list[str]) -> None:
    for key, value in table.items():
        assert key in lines[found[*here, key] - 1]
        if isinstance(value, dict) and any(path[: len(here) + 1] == (*here, key) != path for path in found):
            check_lines(value, (*here, key), found, lines)
        for index, item in enumerate(value if isinstance(value, list) else ()):
            if (*here, key, index) in found:
                check_lines(item, (*here, key, index), found, lines)


