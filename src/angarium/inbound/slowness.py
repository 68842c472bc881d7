"""A judge that refuses nothing and takes its time: MAIL is answered later while the queue is nearly full, so that
clients bring less before any of them is put off."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from angarium.inbound.judgement import MailCase


class Slowness:
    """wait_s: for each MAIL."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s

    def __call__(self, case: MailCase) -> Coroutine[None, None, None]:
        return asyncio.sleep(self.wait_s)
