"""One SASL exchange, server side, without a socket, a clock or a credential: responses and answers in, steps out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from angarium.model.errors import LocalProtocolError
from angarium.sasl.bearer import oauthbearer, xoauth2
from angarium.sasl.external import external
from angarium.sasl.mechanism import Begin, Refusal
from angarium.sasl.plain import login, plain
from angarium.sasl.scram import scram_sha_256, scram_sha_256_plus
from angarium.sasl.steps import Accepted, Answer, Challenge, Channel, Refused, Step

# In the order in which they are offered: clients often take the first that they know.
MECHANISMS: Final[dict[str, Begin]] = {
    "SCRAM-SHA-256-PLUS": scram_sha_256_plus,
    "SCRAM-SHA-256": scram_sha_256,
    "PLAIN": plain,
    "LOGIN": login,
    "EXTERNAL": external,
    "OAUTHBEARER": oauthbearer,
    "XOAUTH2": xoauth2,
}
ROUNDS: Final = 8  # more than any mechanism here wants


class Exchange:
    """start() once, then respond() to every Challenge and answer() to every Ask until Accepted or Refused.

    Any octets give steps, never an exception.
    offers_plus  SCRAM-SHA-256-PLUS was in the list that the client saw.
    Raises KeyError for a mechanism that is not in MECHANISMS.
    """

    def __init__(self, mechanism: str, channel: Channel, *, offers_plus: bool = False) -> None:
        self._begin = MECHANISMS[mechanism]
        self._channel = channel
        self._offers_plus = offers_plus
        self._last: Step | None = None
        self._rounds = 0

    def start(self, initial: bytes | None) -> Step:
        """initial  the initial response; None: the client sent none, b"": an empty one ("=" in SMTP)."""
        self._generator = self._begin(initial, self._channel, self._offers_plus)
        return self._step(lambda: next(self._generator))

    def respond(self, response: bytes) -> Step:
        if not isinstance(self._last, Challenge):
            raise LocalProtocolError("respond() answers a Challenge")
        return self._step(lambda: self._generator.send(response))

    def answer(self, answer: Answer) -> Step:
        if self._last is None or isinstance(self._last, Challenge | Accepted | Refused):
            raise LocalProtocolError("answer() answers an Ask")
        return self._step(lambda: self._generator.send(answer))

    def _step(self, advance: Callable[[], Step]) -> Step:
        self._rounds += 1
        try:
            step = advance() if self._rounds <= ROUNDS else Refused("endless")
        except StopIteration as end:
            step = end.value
        except Refusal as refusal:
            step = Refused(refusal.reason)
        self._last = step
        return step
