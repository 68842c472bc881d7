"""What a try at AUTH puts down before anybody judges it: a place of the client's address, and one of the identity that
is claimed. A success, and nobody who could say, give them back; whatever else becomes of the try, they are gone.

Counted afterwards, tries that are judged side by side would all pass a limit that the first of them had used up. The
places are in tables of the machine (quota.py), so this holds over all workers; those of a worker that dies stay taken.
"""

from __future__ import annotations

from collections import Counter

from angarium.inbound.quota import HOUR_NS, Allowance, Counts
from angarium.sasl.options import AuthOptions
from angarium.sasl.preparation import counted_as
from angarium.sasl.steps import Unavailable


class TooManyFailures(Unavailable):
    """Not tried: others failed, or may fail yet. `reason` is the word for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class AddressBarred(TooManyFailures):
    """All places of the address are gone, and no try of this worker may bring one back."""

    def __init__(self) -> None:
        super().__init__("too-many-failures-of-address")


class Stakes:
    """Those of one worker."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.at_once: Counter[bytes] = Counter()  # tries that are being judged, of each address

    def begin(self, network: bytes, options: AuthOptions) -> Stake:
        return Stake(self, network, options)


class Stake:
    """Of one exchange. admit() before every question and before a verdict is told; then give_back() or forfeit()."""

    def __init__(self, stakes: Stakes, network: bytes, options: AuthOptions) -> None:
        self._stakes = stakes
        self._network = network
        self._options = options
        self._address: Allowance | None = None
        self._identities: dict[str, Allowance] = {}

    @property
    def is_down(self) -> bool:
        return self._address is not None

    def look(self) -> None:
        """Raises TooManyFailures when admit() would for the address. Takes nothing."""
        if self._address is None and self._of_address().wait_ns():
            raise self._no_place()

    def admit(self, identity: str) -> None:
        """Takes what is not yet taken; identity "": not known. Raises TooManyFailures, and has taken nothing then."""
        had_address = self.is_down
        if not had_address:
            address = self._of_address()
            if not address.take():
                raise self._no_place()
            self._address = address
            self._stakes.at_once[self._network] += 1
        identity = counted_as(identity)
        if not identity or identity in self._identities:
            return
        allowance = Allowance(
            self._stakes.counts.failures_of_identities, identity, self._options.failures_per_identity, HOUR_NS
        )
        if allowance.take():
            self._identities[identity] = allowance
            return
        if not had_address:
            self.give_back()
        raise TooManyFailures("too-many-failures-of-identity")

    def give_back(self) -> None:
        """Nothing was found wrong."""
        for allowance in (self._address, *self._identities.values()):
            if allowance is not None:
                allowance.give_back()
        self._leave()

    def forfeit(self) -> None:
        """It was wrong, or whoever left early may know that it was. Costs a place of the address at the least."""
        if self._address is None:
            self._of_address().take()
        self._leave()

    def _leave(self) -> None:
        if self._address is not None:
            self._stakes.at_once[self._network] -= 1
            if not self._stakes.at_once[self._network]:
                del self._stakes.at_once[self._network]
        self._address = None
        self._identities.clear()

    def _no_place(self) -> TooManyFailures:
        return TooManyFailures("too-many-tries-at-once") if self._stakes.at_once[self._network] else AddressBarred()

    def _of_address(self) -> Allowance:
        table = self._stakes.counts.failures_of_addresses
        return Allowance(table, self._network.hex(), self._options.failures_per_address, HOUR_NS)
