from angarium.spool.shard import Shard

class SpoolLoad:
    """Writers of a shard as C callbacks: each submits its next message when the one before is durable.

    writers          messages on their way at once
    message_octets   of each
    """

    @property
    def messages(self) -> int:
        """Durable so far."""
    @property
    def under_way(self) -> int: ...
    @property
    def error(self) -> int:
        """The errno of a failed commit, 0 when there was none."""
    def __init__(self, shard: Shard, writers: int, message_octets: int) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None:
        """Submits nothing more; what is under way ends by itself."""
