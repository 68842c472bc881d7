"""Networks of the configuration (Cython callers only)."""

from collections.abc import Sequence
from typing import final

from angarium.inbound.options import Network

@final
class NetworkList:
    """Networks, as clients are compared with them."""

    def __init__(self, networks: Sequence[Network]) -> None: ...
