"""AUTH whose credentials a hook of the operator's knows."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from inbound.auth_harness import CLEAR, plain
from inbound.intake_harness import IntakeHarness, run
from inbound.policy_harness import apply_policy, policy_harness
from inbound.smtp_peer import SmtpPeer

from angarium.inbound.authority import Authority
from angarium.inbound.quota import Counts
from angarium.model.units import Duration
from angarium.sasl.options import AuthOptions, CredentialSource

DOCS = Path(__file__).parents[2] / "docs"
HOOKS = """
PASSWORDS = {"alice@x.example": "correct horse"}

def on_auth(credentials):
    assert credentials.address == "127.0.0.1" and not credentials.is_secure
    assert "horse" not in repr(credentials)
    if PASSWORDS.get(credentials.identity) == credentials.password:
        return credentials.identity
"""


@asynccontextmanager
async def hook_harness(folder: Path, hooks: str, **policy: Any) -> AsyncIterator[IntakeHarness]:
    async with policy_harness(folder, hooks, listener={"auth": CLEAR, "relay_from": []}, **policy) as harness:
        authority = Authority(harness.loop, harness.journal, Counts(), harness.policy.auth_hook)  # type: ignore[attr-defined]
        authority.apply(AuthOptions(credentials=CredentialSource.decode("hook"), failure_delay=Duration(0)))
        harness.intake.authority = authority
        try:
            yield harness
        finally:
            authority.close()


def bearer(token: str) -> bytes:
    return b"AUTH OAUTHBEARER " + base64.b64encode(f"n,,\x01auth=Bearer {token}\x01\x01".encode()) + b"\r\n"


@pytest.mark.parametrize("kind", ["def", "async def"], ids=["function", "coroutine"])
def test_the_hook_knows_who_a_password_is(tmp_path: Path, kind: str) -> None:
    async def main() -> None:
        async with hook_harness(tmp_path, HOOKS.replace("def", kind)) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(plain(password="wrong")))[:9] == "535 5.7.8"
            assert (await peer.ask(plain("nobody")))[:9] == "535 5.7.8"
            assert (await peer.ask(plain()))[:9] == "235 2.7.0"
            assert (await peer.ask(b"MAIL FROM:<bob@x.example>\r\n"))[:9] == "553 5.7.1"
            assert (await peer.ask(b"MAIL FROM:<alice@x.example>\r\n"))[:3] == "250"
            assert (await peer.ask(b"RCPT TO:<anybody@far.example>\r\n"))[:3] == "250"

    run(main())


@pytest.mark.parametrize(
    "body",
    ["return Defer('later')", "raise OSError('the directory is away')", "return Accept()", "return 7"],
    ids=["defer", "raises", "decision", "nonsense"],
)
def test_a_hook_that_cannot_say_costs_nobody_the_password(tmp_path: Path, body: str) -> None:
    hooks = f"def on_auth(credentials):\n    {body}\n"

    async def main() -> None:
        async with hook_harness(tmp_path, hooks, on_error="accept") as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(plain()))[:9] == "454 4.7.0"
            assert (await peer.ask(b"MAIL FROM:<alice@x.example>\r\n"))[:3] == "250"
            assert (await peer.ask(b"RCPT TO:<anybody@far.example>\r\n"))[0] == "5"

    run(main())


def test_a_hook_that_is_late_costs_nobody_the_password(tmp_path: Path) -> None:
    hooks = "import asyncio\nasync def on_auth(credentials):\n    await asyncio.Event().wait()\n"

    async def main() -> None:
        async with hook_harness(tmp_path, hooks, timeout="50ms", on_timeout="accept") as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(plain()))[:9] == "454 4.7.0"

    run(main())


def test_reject_is_a_wrong_password_and_a_malformed_identity_is_nobody(tmp_path: Path) -> None:
    hooks = "def on_auth(credentials):\n    return Reject('no') if credentials.password == 'x' else 'a\\r\\nb'\n"

    async def main() -> None:
        async with hook_harness(tmp_path, hooks) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(plain(password="x")))[:9] == "535 5.7.8"
            assert (await peer.ask(plain(password="y")))[:9] == "454 4.7.0"

    run(main())


def test_a_reload_brings_another_hook_and_may_take_it_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with hook_harness(tmp_path, HOOKS) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            path = str(tmp_path / "policy.py")
            apply_policy(harness, harness.policy, "def on_auth(c):\n    return None\n", path=path)  # type: ignore[attr-defined]
            assert (await peer.ask(plain()))[:9] == "535 5.7.8"
            apply_policy(harness, harness.policy, "def on_mail(m):\n    return None\n", path=path)  # type: ignore[attr-defined]
            assert (await peer.ask(plain()))[:9] == "454 4.7.0"

    run(main())


def test_the_example_of_the_manual_takes_tokens(tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", (DOCS / "auth.md").read_text(), re.S)
    assert found is not None

    async def main() -> None:
        async with hook_harness(tmp_path, found[1]) as harness:
            peer = await SmtpPeer.greeted(harness.port)
            assert (await peer.ask(bearer("e7a1-55d0")))[:9] == "235 2.7.0"
            stranger = await SmtpPeer.greeted(harness.port)
            assert (await stranger.ask(plain()))[:9] == "535 5.7.8"
            assert (await stranger.ask(bearer("0000")))[:3] == "334"    # RFC 7628 §3.2.2: the error, then the 535
            assert (await stranger.ask(b"AQ==\r\n"))[:9] == "535 5.7.8"

    run(main())


def test_what_is_no_source_of_credentials_is_refused() -> None:
    assert CredentialSource.decode("hook").kind == "hook"
    with pytest.raises(ValueError, match="expected"):
        CredentialSource.decode("hooks")
