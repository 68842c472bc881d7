"""Limits of clients' networks and of the machine."""

from typing import final

from angarium.admission.options import AdmissionOptions
from angarium.admission.tallies import Rules, Tallies

@final
class Gate:
    """[admission]'s limits, compiled for one worker. A reload makes a new one; connections keep what they took."""

    tallies: Tallies
    rules: Rules | None
    max_sessions: int
    tarpit_errors: int
    tarpit_ms: int
    def __init__(self, tallies: Tallies, options: AdmissionOptions) -> None: ...
    @property
    def counts(self) -> bool:
        """Whether there is any limit to hold."""
