"""`angarium shaping`, as docs/shaping.md shows it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from dns_server import DnsServer
from relay_process import angarium

PAGE = Path(__file__).parents[2] / "docs" / "shaping.md"
(EXAMPLE,) = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
(CONSOLE,) = re.findall(r"^```console\n\$ (.*?)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def folder_of(tmp_path: Path, dns: DnsServer) -> Path:
    # Behind the example, so that the lines are those of the page.
    (tmp_path / "angarium.toml").write_text(f'{EXAMPLE}\n[resolver]\nnameservers = ["{dns.address}"]\n')
    return tmp_path


RECORDS = {"bank.example": {"MX": ["10 mail.old.example."]}, "mail.old.example": {"A": ["192.0.2.77"]}}


def ask(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return angarium("shaping", *words, cwd=folder)


def test_the_example_of_the_page_gives_what_the_page_shows(tmp_path: Path) -> None:
    command, shown = CONSOLE
    with DnsServer(RECORDS) as dns:
        told = ask(folder_of(tmp_path, dns), *command.split()[2:])
    assert told.returncode == 0, told.stderr
    found, wanted = ([re.sub(" +", " ", line) for line in text.splitlines()] for text in (told.stdout, shown))
    assert found[: len(wanted)] == wanted
    (end_timeout,) = (line for line in found if line.startswith(" end_timeout "))
    assert end_timeout.endswith('shaping.site."mail.old.example".end_timeout')
    assert any(line.startswith(' retry { first = "1m", max = "30m" } angarium.toml:') for line in found)


def test_json_names_file_line_and_key(tmp_path: Path) -> None:
    records = {**RECORDS, "far.example": {"MX": ["5 mx2h1.comcast.net."]}}
    records["mx2h1.comcast.net"] = {"A": ["192.0.2.78"]}
    with DnsServer(records) as dns:
        told = ask(folder_of(tmp_path, dns), "far.example", "--json")
    answer = json.loads(told.stdout)
    assert answer["site"] == "mx2h1.comcast.net"
    (connections,) = (each for each in answer["shaping"] if each["key"] == "connections")
    assert connections["value"] == "25" and connections["file"].endswith("/angarium/config/shaping.toml")
    line = Path(connections["file"]).read_text().splitlines()[connections["line"] - 1]
    assert line.startswith("connections") and connections["set_by"] == "shaping.provider.comcast.connections"
    assert connections["note"] == "counted for provider comcast, all sites together"


def test_what_cannot_be_asked_is_told(tmp_path: Path) -> None:
    with DnsServer(RECORDS) as dns:
        folder = folder_of(tmp_path, dns)
        unknown = ask(folder, "bank.example", "--source", "ip-9")
        nowhere = ask(folder, "gone.example")
    assert (unknown.returncode, nowhere.returncode) == (2, 2)
    assert "there is no [source.ip-9]; there are: ip-1, ip-2" in unknown.stderr
    assert nowhere.stderr.startswith("angarium: gone.example: Domain not found")
