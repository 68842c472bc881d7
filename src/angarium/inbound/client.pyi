"""Who talks to us, as the verbs see it: rights and transaction, no socket."""

from angarium.inbound.context import InboundContext

class Client:
    """Made by connections only."""

    def __init__(self, context: InboundContext) -> None: ...
