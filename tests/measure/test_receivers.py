"""Which receiver a sink plays for whom, and what each puts up with: sessions without sockets."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path

import pytest
from config.test_documentation import ROOT, blocks

from angarium.config.decode import decode_tables
from angarium.config.files import Tree
from angarium.measure.receiver_options import ReceiverOptions, ReceiversFile
from angarium.measure.receivers import Receiver, Receivers
from angarium.measure.rules import Rule, parse_reply_rule
from angarium.measure.sink import Sink
from angarium.measure.sink_session import Session
from angarium.measure.sources import Counts, Greylist, Pace, Source
from angarium.model.errors import ConfigError

MAIL = b"MAIL FROM:<a@x.example>\r\n"
MESSAGE = b"DATA\r\ntext\r\n.\r\n"


def read(text: str) -> dict[str, ReceiverOptions]:
    tree = Tree()
    tree.files.append(Path("receivers.toml"))
    tree.merge(tomllib.loads(text), Path("receivers.toml"), text)
    return decode_tables(tree, ReceiversFile).receiver


def sink(text: str, rules: list[Rule] | None = None) -> Sink:
    made = [
        Receiver(name, options, rules=rules, chance=random.Random(1)) for name, options in read(text).items()
    ]
    return Sink(Receivers(made))


def session(sink: Sink, address: str = "127.0.0.1", client: str = "127.0.0.1", port: int = 25) -> Session:
    found = sink.receivers.of_connection(address, port, client)
    begun = Session(sink, found, client=client, address=address, peer=f"{client}:1")
    begun.begin()
    return begun


def said(session: Session, octets: bytes = b"") -> list[str]:
    """Replies, each its code and, where there is one, its enhanced code; delays are skipped."""
    session.receive(octets)
    out = session.take_out()
    while session.wait_s is not None:
        session.resume()
        out += session.take_out()
    return [line[:9].strip().decode() if line[4:5].isdigit() and b"." in line[4:9] else line[:3].decode()
            for line in out.split(b"\r\n") if line[3:4] == b" "]


def rcpt(*paths: str) -> bytes:
    return b"".join(f"RCPT TO:<{path}>\r\n".encode() for path in paths)


def test_the_first_receiver_that_fits_address_port_and_client_is_taken() -> None:
    s = sink("""
        [receiver.port]
        address = ["127.20.0.0/16"]
        port = [2525]
        [receiver.client]
        address = ["127.20.0.0/16"]
        client = ["10.0.0.0/8"]
        [receiver.address]
        address = ["127.20.0.0/16", "::1/128"]
        """)

    def found(*key: object) -> str:
        return s.receivers.of_connection(*key)[0].name      # type: ignore[arg-type]

    assert found("127.20.1.1", 2525, "10.0.0.1") == "port"
    assert found("127.20.1.1", 25, "10.0.0.1") == "client"
    assert found("127.20.1.1", 25, "11.0.0.1") == found("::1", 25, "::1") == "address"
    assert found("127.21.1.1", 2525, "10.0.0.1") == found("", 0, "") == "default"


def test_connections_over_the_limit_of_a_client_are_greeted_with_421_and_closed() -> None:
    s = sink('[receiver.a]\nconnections = 2\nreplies.connections = "421 4.7.0 No more of {client}"')
    first, second, third = (session(s) for _ in range(3))
    assert first.take_out().startswith(b"220 ")
    assert second.take_out().startswith(b"220 ")
    assert third.take_out() == b"421 4.7.0 No more of 127.0.0.1\r\n"
    assert third.is_over
    assert session(s, client="127.0.0.2").take_out().startswith(b"220 ")
    third.end()
    first.end()
    assert session(s).take_out().startswith(b"220 ")
    report = s.receivers.report()["a"]
    assert isinstance(report, dict)
    assert report["refused_connections"] == 1
    assert report["open"] == 4
    (first_source, _) = report["sources"]
    assert first_source["source"] == "127.0.0.1"
    assert first_source["connections"] == 4
    assert first_source["open"] == 3


def test_each_address_may_be_a_receiver_by_itself() -> None:
    s = sink('[receiver.a]\naddress = ["127.20.0.0/16"]\neach_address = true\nconnections = 1')
    assert session(s, "127.20.0.1").take_out().startswith(b"220 ")
    assert session(s, "127.20.0.2").take_out().startswith(b"220 ")
    assert session(s, "127.20.0.1").take_out().startswith(b"421 ")
    report = s.receivers.report()["a"]
    assert isinstance(report, dict)
    connections = {each["address"]: each["connections"] for each in report["sources"]}
    assert connections == {"127.20.0.1": 2, "127.20.0.2": 1}


def test_the_message_behind_the_last_one_of_a_connection_gets_421() -> None:
    s = session(sink("[receiver.a]\nmessages_per_connection = 2"))
    whole = MAIL + rcpt("b@y.example") + MESSAGE
    assert said(s, whole * 3) == ["220"] + ["250 2.1.0", "250 2.1.5", "354", "250 2.0.0"] * 2 + ["421 4.7.0"]
    assert s.is_over


def test_message_rate_is_that_of_a_client_over_all_its_connections() -> None:
    s = sink('[receiver.a]\nmessage_rate = "3/h"')
    assert said(session(s), MAIL) == ["220", "250 2.1.0"]
    assert said(session(s), MAIL) == ["220", "450 4.2.1"]
    assert said(session(s, client="127.0.0.2"), MAIL) == ["220", "250 2.1.0"]


def test_recipients_over_the_limit_are_put_off() -> None:
    s = session(sink("[receiver.a]\nrecipients_per_message = 2"))
    paths = rcpt("1@y.example", "2@y.example", "3@y.example")
    assert said(s, MAIL + paths + MESSAGE) == [
        "220", "250 2.1.0", "250 2.1.5", "250 2.1.5", "452 4.5.3", "354", "250 2.0.0"
    ]


def test_a_triple_must_be_known_for_a_while() -> None:
    known = Greylist(30)
    triple = ("127.0.0.1", b"a@x.example", b"b@y.example")
    assert not known.knows(triple, 100)
    assert not known.knows(triple, 129)
    assert known.knows(triple, 130)
    assert not known.knows(("127.0.0.2", *triple[1:]), 130)


def test_a_pace_lets_a_seconds_worth_pass_and_then_no_more_than_its_rate() -> None:
    pace = Pace(50)
    assert sum(pace.allows(100.0) for _ in range(200)) == 50
    assert sum(pace.allows(100.0 + i / 1000) for i in range(10_000)) == pytest.approx(500, abs=1)


def test_a_receiver_by_domain_takes_over_from_the_first_recipient_to_the_end() -> None:
    s = session(sink("""
        [receiver.company]
        domain = ["company.example", "*.company.example"]
        reply = ["dot=554 5.7.1 Not here"]
        """))
    assert said(s, MAIL + rcpt("a@other.example", "b@company.example") + MESSAGE)[-1] == "250 2.0.0"
    assert said(s, MAIL + rcpt("b@COMPANY.example", "a@other.example") + MESSAGE)[-1] == "554 5.7.1"
    assert said(s, MAIL + rcpt("b@deep.company.example") + MESSAGE)[-1] == "554 5.7.1"
    assert said(s, MAIL + rcpt("b@mycompany.example") + MESSAGE)[-1] == "250 2.0.0"


def test_rules_of_the_command_line_come_before_a_receivers_own() -> None:
    s = sink('[receiver.a]\nreply = ["rcpt=550 5.1.1 No"]', [parse_reply_rule("rcpt=452 4.2.2 Full")])
    assert said(session(s), MAIL + rcpt("a@b")) == ["220", "250 2.1.0", "452 4.2.2"]


def test_a_delay_holds_back_what_is_behind_it_reply_by_reply() -> None:
    s = session(sink('[receiver.a]\ndelay = ["*=0.25"]'))
    assert (s.take_out(), s.wait_s) == (b"", 0.25)
    s.receive(MAIL + rcpt("a@b"))
    s.resume()
    assert s.take_out().startswith(b"220 ")
    assert s.wait_s == 0.25
    s.resume()
    assert s.take_out() == b"250 2.1.0 OK\r\n"
    s.resume()
    assert s.take_out() == b"250 2.1.5 OK\r\n"
    assert s.wait_s is None


def test_auth_prompts_for_what_the_mechanism_wants() -> None:
    s = session(sink("[receiver.a]\nauth = true"))
    assert said(s, b"EHLO x\r\nAUTH LOGIN\r\nYQ==\r\nYg==\r\nAUTH PLAIN AGEAYg==\r\nAUTH PLAIN\r\n*\r\nNOOP\r\n") == [
        "220", "250", "334", "334", "235 2.7.0", "235 2.7.0", "334", "501 5.7.0", "250 2.0.0"
    ]
    assert said(session(sink("")), b"AUTH PLAIN AGEAYg==\r\n") == ["220", "504 5.5.4"]


def test_nothing_that_came_before_tls_counts() -> None:
    s = sink("[receiver.a]")
    receiver = s.receivers.of_connection("127.0.0.1", 25, "127.0.0.1")[0]
    receiver.tls = object()     # type: ignore[assignment]
    one = session(s)
    assert said(one, MAIL + b"STARTTLS\r\n" + rcpt("a@b")) == ["220", "250 2.1.0", "220 2.0.0"]
    assert one.wants_tls
    one.tls_begun()
    assert said(one, rcpt("a@b")) == ["503 5.5.1"]


def test_seconds_are_told_once_they_are_over_and_add_up() -> None:
    told: list[tuple[int, Counts]] = []
    source = Source("a", "127.0.0.1", "", tell=lambda _, second, counts: told.append((second, counts)))
    source.roll(10)
    source._live.messages = 3
    source.roll(10)
    assert told == []
    source.roll(11)
    source.roll(12)     # nothing happened in 11
    source._live.messages = 5
    source.roll(13)
    assert told == [(10, Counts(messages=3)), (12, Counts(messages=5))]
    assert source.total().messages == 8
    assert source.busiest == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[receiver.a]\nlimit = 1", "receiver.a.limit: unknown key"),
        ('[receiver.a]\naddress = ["127.0.0.0/33"]', "receiver.a.address[0]: "),
        ('[receiver.a]\nreply = ["rcpt=450", "nothing=1"]', "receiver.a.reply[1]: "),
        ('[receiver.a]\nmessage_rate = "fast"', "receiver.a.message_rate: expected a rate"),
        ('[receiver.a]\nwithout = ["PIPELINES"]', "receiver.a.without[0]: "),
        ("[receiver.a]\nconnections = -1", "receiver.a.connections: "),
        ('[receiver.a]\ndomain = ["b.example"]\nconnections = 1', "receiver.a.connections: not with domain"),
        ('[receiver.a]\nreplies.greylist = "250 fine"', "receiver.a.replies.greylist: "),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_its_key(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"receivers\.toml: ") as refused:
        read(text)
    assert words in str(refused.value)


def test_the_example_of_the_page_plays_what_it_says() -> None:
    (text,) = (text for kind, text in blocks(ROOT / "docs" / "sink.md") if kind == "toml receivers")
    s = sink(text)
    big = [session(s, "127.20.3.4") for _ in range(21)]
    assert [one.take_out()[:3] for one in big] == [b"220"] * 20 + [b"421"]
    s = sink(text)
    whole = MAIL + rcpt("b@y.example") + MESSAGE
    replies = said(session(s, "127.20.3.4"), whole * 101)
    assert replies[-1] == "421"
    assert replies.count("250 2.0.0") > 90
    slow = session(s, "127.30.0.1")
    assert slow.wait_s == 0.2
    assert said(slow)[0] == "220"
    assert said(session(s), MAIL + rcpt("b@mail.company.example"))[-1] == "451 4.7.1"
