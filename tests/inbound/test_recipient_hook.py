"""Domains whose recipients a hook of the operator's knows: what it may answer, what is kept, what its failures cost."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from inbound.intake_harness import HOSTNAME, IntakeHarness, intake_harness, run
from inbound.policy_harness import apply_policy
from inbound.smtp_peer import SmtpPeer
from inbound.test_recipients import NextHop, queued, rcpt

from angarium.inbound.policy import Policy
from angarium.inbound.recipients import RecipientJudge, own_domain_keys
from angarium.model.units import decode_unit
from angarium.policy.hook_file import HookFileError, load_hooks, read_source
from angarium.recipients.options import BccOptions, DomainOptions, RecipientsOptions

DOMAINS: dict[str, Any] = {"ours.example": {"recipients": ["file:@DIR@/users", "hook"]}}
DIRECTORY = """
asked = []
ANSWERS = {
    "bob": True, "eve": False, "gone": Reject("This mailbox is closed", status="5.2.1"),
    "away": Defer("The directory is away", status="4.3.1"),
    "moved": Redirect(["bob@else.example", "carol@ours.example"]),
    "nobody": Redirect(["stranger@listed.example"]),
    "some": Redirect(["carol@listed.example", "stranger@listed.example"]),
    "utf8": Redirect(["müller@else.example"]),
    "none": None, "nonsense": "yes", "label": Redirect(["x@else.example"], Accept(tenant="t")),
}

def knows_recipient(recipient):
    asked.append(recipient)
    with open("@DIR@/asked", "a") as file:
        file.write(f"{recipient.mailbox} {recipient.local_part} {recipient.name} {recipient.tag} {recipient.domain}\\n")
    if recipient.name == "raises":
        raise OSError("no directory")
    return ANSWERS[recipient.name]
"""


class Directory:
    """The harness with a hook file and a judge of recipients, as a worker has them."""

    def __init__(self, harness: IntakeHarness, folder: Path) -> None:
        self.harness = harness
        self.folder = folder
        self.policy = Policy(harness.loop, harness.journal)
        self.judge = RecipientJudge(harness.loop, harness.journal, HOSTNAME, self.policy.recipient_hook)
        harness.intake.appointing = (
            self.policy.appoint_services, self.policy.appoint_hooks, self.judge.judges_of, self.policy.appoint_last,
        )  # fmt: skip

    async def apply(self, hooks: str, domains: dict[str, Any], hook: dict[str, Any], **policy: Any) -> None:
        """As a start and as a reload."""
        text = msgspec.json.encode([domains, {"hook": hook}]).replace(b"@DIR@", str(self.folder).encode())
        kind = tuple[dict[str, DomainOptions], RecipientsOptions]
        own, options = msgspec.convert(msgspec.json.decode(text), kind, dec_hook=decode_unit)
        self.harness.intake.own_domains = own_domain_keys(own)
        path = self.folder / "policy.py"
        apply_policy(self.harness, self.policy, hooks.replace("@DIR@", str(self.folder)), path=path, **policy)
        hop = NextHop()
        await self.judge.apply(own, options, list[BccOptions](), hop.plan, hop.terms)
        self.harness.listeners[0].apply(HOSTNAME, self.harness.listeners[0].context.options)

    def asked(self) -> list[str]:
        path = self.folder / "asked"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


@asynccontextmanager
async def directory(
    folder: Path, hooks: str = DIRECTORY, domains: dict[str, Any] | None = None, hook: dict[str, Any] | None = None,
    **policy: Any,
) -> AsyncIterator[tuple[Directory, SmtpPeer]]:  # fmt: skip
    (folder / "users").write_text("carol\n")
    async with intake_harness(folder, relay_from=[]) as harness:
        made = Directory(harness, folder)
        domains = {"listed.example": {"recipients": ["file:@DIR@/users"]}, **(domains or DOMAINS)}
        await made.apply(hooks, domains, hook or {}, **policy)
        peer = await SmtpPeer.greeted(harness.port)
        await peer.ask(b"MAIL FROM:<a@x.example>\r\n")
        try:
            yield made, peer
        finally:
            made.judge.close()
            made.policy.close()


KINDS = pytest.mark.parametrize("kind", ["def", "async def"], ids=["function", "coroutine"])


@KINDS
@pytest.mark.parametrize(
    ("local_part", "reply", "reason"),
    [
        ("bob", "250 2.1.5", ""),
        ("eve", "550 5.1.1", "unknown-recipient"),
        ("gone", "550 5.2.1 This mailbox is closed", "policy-hook"),
        ("away", "451 4.3.1 The directory is away", "policy-hook"),
        ("moved", "250 2.1.5", ""),
        ("nobody", "550 5.1.1", "unknown-recipient"),
        ("carol", "250 2.1.5", ""),
    ],
)
def test_what_it_answers_is_what_the_client_hears(
    tmp_path: Path, kind: str, local_part: str, reply: str, reason: str
) -> None:
    async def main() -> None:
        async with directory(tmp_path, DIRECTORY.replace("def knows", f"{kind} knows")) as (made, peer):
            assert (await rcpt(peer, f"{local_part}@ours.example")).startswith(reply)
            assert [each["reason"] for each in made.harness.events("rejected")] == ([reason] if reason else [])
            assert made.asked() == ([] if local_part == "carol" else [f"{local_part}@ours.example"]), "lists come first"

    run(main())


@KINDS
@pytest.mark.parametrize("local_part", ["raises", "none", "nonsense", "label", "missing"])
def test_a_hook_that_fails_costs_nobody_the_mail_and_lets_nobody_in(tmp_path: Path, kind: str, local_part: str) -> None:
    hooks = DIRECTORY.replace("def knows", f"{kind} knows")

    async def main() -> None:
        async with directory(tmp_path, hooks, on_error="accept", on_timeout="accept") as (made, peer):
            for _ in range(2):
                assert (await rcpt(peer, f"{local_part}@ours.example"))[:9] == "451 4.3.0"
            assert len(made.asked()) == 2, "trouble is not kept"
            error = made.harness.events("hook-error")[0]
            assert error["hook"] == "knows_recipient"
            file, _, line = error["at"].rpartition(":")
            assert file.endswith("/policy.py")
            if local_part not in ("raises", "missing"):
                assert "knows_recipient" in (made.folder / "policy.py").read_text().splitlines()[int(line) - 1]

    run(main())


def test_it_is_told_the_mailbox_as_it_is_compared(tmp_path: Path) -> None:
    async def main() -> None:
        async with directory(tmp_path) as (made, peer):
            assert (await rcpt(peer, '"Bob"+Lists@OURS.Example'))[:3] == "501"
            assert (await rcpt(peer, "Bob+Lists@OURS.Example"))[:3] == "250"
            assert (tmp_path / "asked").read_text() == "Bob+Lists@OURS.Example bob+lists bob +lists ours.example\n"
            # Another spelling is the same mailbox, and the answer is kept.
            assert (await rcpt(peer, '"bob+lists"@ours.example'))[:3] == "250"
            assert len(made.asked()) == 1

    run(main())


def test_whom_it_names_gets_the_mail_as_behind_an_alias(tmp_path: Path) -> None:
    async def main() -> None:
        async with directory(tmp_path) as (made, peer):
            assert (await rcpt(peer, "moved@ours.example", " NOTIFY=SUCCESS"))[:3] == "250"
            assert (await rcpt(peer, "some@ours.example"))[:3] == "250"
            assert [each["unknown"] for each in made.harness.events("alias-unknown")] == [["stranger@listed.example"]]
            recipients = await queued(made.harness, peer)
            assert [path for path, _, _ in recipients] == [
                "moved@ours.example", "bob@else.example", "carol@ours.example", "carol@listed.example",
            ]  # fmt: skip
            assert recipients[3][1] == "rfc822;some@ours.example"

    run(main())


def test_an_address_that_needs_smtputf8_is_not_put_into_a_transaction_without(tmp_path: Path) -> None:
    async def main() -> None:
        async with directory(tmp_path) as (_, peer):
            assert (await rcpt(peer, "utf8@ours.example"))[:9] == "553 5.6.7"
            await peer.ask(b"RSET\r\n")
            await peer.ask(b"MAIL FROM:<a@x.example> SMTPUTF8\r\n")
            assert (await rcpt(peer, "utf8@ours.example"))[:3] == "250"

    run(main())


def test_a_no_leads_to_the_catch_all_and_a_reject_does_not(tmp_path: Path) -> None:
    domains = {"ours.example": {"recipients": ["hook"], "catch_all": "post@else.example"}}

    async def main() -> None:
        async with directory(tmp_path, domains=domains) as (made, peer):
            assert (await rcpt(peer, "gone@ours.example"))[:9] == "550 5.2.1"
            assert (await rcpt(peer, "eve@ours.example"))[:3] == "250"
            assert [path for path, _, _ in await queued(made.harness, peer)] == ["post@else.example"]

    run(main())


def test_yes_and_no_are_kept_until_a_reload_and_not_where_their_time_is_0(tmp_path: Path) -> None:
    async def main() -> None:
        async with directory(tmp_path, hook={"unknown_time": "0s"}) as (made, peer):
            for _ in range(3):
                assert (await rcpt(peer, "bob@ours.example"))[:3] == "250"
            for _ in range(2):
                assert (await rcpt(peer, "eve@ours.example"))[:3] == "550"
            assert made.asked() == ["bob@ours.example", "eve@ours.example", "eve@ours.example"]
            await made.apply(DIRECTORY.replace('"bob": True', '"bob": False'), DOMAINS, {})
            assert (await rcpt(peer, "bob@ours.example"))[:3] == "550"

    run(main())


WAITING = """
import asyncio, pathlib
go_on = asyncio.Event()

async def knows_recipient(recipient):
    with open("@DIR@/asked", "a") as file:
        file.write(f"{recipient.mailbox}\\n")
    if recipient.name == "never":
        await asyncio.Event().wait()
    while not pathlib.Path("@DIR@/go-on").exists():
        await asyncio.sleep(0.005)
    return True
"""


def test_for_one_mailbox_there_is_one_question_and_who_leaves_takes_it_from_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        async with directory(tmp_path, WAITING) as (made, peer):
            leaver = await SmtpPeer.greeted(made.harness.port)
            await leaver.ask(b"MAIL FROM:<a@x.example>\r\n")
            leaver.say(b"RCPT TO:<bob@ours.example>\r\n")
            await made.harness.until(made.asked)
            peer.say(b"RCPT TO:<BOB@ours.example>\r\n")
            # Reset: an end of what it says alone would be waited with.
            leaver_socket = leaver.writer.get_extra_info("socket")
            leaver_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            leaver.cut()
            await made.harness.until(lambda: len(made.harness.intake.clients) == 1)
            other = await SmtpPeer.greeted(made.harness.port)
            assert (await other.ask(b"NOOP\r\n"))[:3] == "250", "nobody else waits"
            (tmp_path / "go-on").write_text("")
            assert (await peer.reply())[:3] == "250"
            assert made.asked() == ["bob@ours.example"]

    run(main())


def test_one_that_takes_too_long_is_deferred_and_a_stop_does_not_wait_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        timeouts = {"knows_recipient": "50ms"}
        async with directory(tmp_path, WAITING, on_timeout="accept", timeouts=timeouts) as (made, peer):
            assert (await rcpt(peer, "never@ours.example"))[:9] == "451 4.7.1"
            (event,) = made.harness.events("hook-timeout")
            assert (event["hook"], event["limit_s"]) == ("knows_recipient", 0.05)
            await made.apply(WAITING, DOMAINS, {}, timeout="600s")
            peer.say(b"RCPT TO:<never@ours.example>\r\n")
            await made.harness.until(lambda: len(made.asked()) == 2)
        await asyncio.sleep(0)
        assert not [task for task in asyncio.all_tasks() if "RecipientHook" in repr(task)]

    run(main())


def test_an_answer_to_the_former_file_is_said_and_not_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with directory(tmp_path, WAITING) as (made, peer):
            peer.say(b"RCPT TO:<bob@ours.example>\r\n")
            await made.harness.until(made.asked)
            await made.apply("def knows_recipient(recipient):\n    return False\n", DOMAINS, {})
            (tmp_path / "go-on").write_text("")
            assert (await peer.reply())[:3] == "250"
            assert (await rcpt(peer, "bob@ours.example"))[:3] == "550"

    run(main())


def test_a_file_without_the_hook_is_refused_where_a_domain_asks_for_it(tmp_path: Path) -> None:
    path = tmp_path / "policy.py"
    path.write_text("def on_rcpt(rcpt):\n    pass\n")
    source = read_source(str(path), (("knows_recipient", 'domain."x.example".recipients'),))
    with pytest.raises(HookFileError) as refused:
        load_hooks(source)
    assert str(refused.value) == f'{path}: defines no knows_recipient, which domain."x.example".recipients needs'
