"""Credentials that a hook of the operator's knows: on_auth(Credentials).

It answers the identity, or None for credentials that are wrong; `Reject` is None too, `Defer` is "nobody can say now".
"""

from __future__ import annotations

from collections.abc import Callable
from types import CoroutineType
from typing import Any

from angarium.policy.arguments import Credentials
from angarium.policy.decisions import Defer
from angarium.policy.hooks import BoundHook
from angarium.sasl.backend import Gate, OwnConversation, Peer
from angarium.sasl.steps import CheckCertificate, CheckPassword, CheckToken, FetchScramKeys, ScramKeys, Unavailable


class HookBackend:
    """mechanisms: those of a backend that is shown the password or the token.

    hook  the hook of this moment: a reload may bring another, or take it away.
    """

    mechanisms = frozenset(("PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2", "EXTERNAL"))

    def __init__(self, hook: Callable[[], BoundHook | None]) -> None:
        self._hook = hook

    def begin(self, mechanism: str, peer: Peer, gate: Gate) -> OwnConversation:
        return OwnConversation(mechanism, peer, self, gate)

    def close(self) -> None:
        pass

    async def whose_password(self, ask: CheckPassword, peer: Peer) -> str | None:
        return await self._whose(Credentials("password", ask.identity, ask.password, "", peer.address, peer.is_secure))

    async def whose_token(self, ask: CheckToken, peer: Peer) -> str | None:
        return await self._whose(Credentials("token", ask.identity, "", ask.token, peer.address, peer.is_secure))

    async def whose_certificate(self, ask: CheckCertificate, peer: Peer) -> str | None:
        return await self._whose(Credentials("certificate", ask.identity, "", "", peer.address, peer.is_secure))

    async def scram_keys(self, ask: FetchScramKeys) -> ScramKeys:
        raise Unavailable("SCRAM keys are not asked of a hook")

    async def _whose(self, credentials: Credentials) -> str | None:
        hook = self._hook()
        if hook is None:
            raise Unavailable("the hook file defines no on_auth")
        answer: Any = hook(credentials)
        if type(answer) is CoroutineType:
            answer = await answer
        if isinstance(answer, Defer):
            raise Unavailable("the hook on_auth cannot say")
        return answer if isinstance(answer, str) and answer else None
