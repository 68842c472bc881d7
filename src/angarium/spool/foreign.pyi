"""A shard that another worker owns, for reading."""

from typing import final

from angarium.spool.shard import Shard

@final
class ForeignShard(Shard):
    """Its reader thread, without lock, commit thread or recovery. attach() and close() as of any shard; what appends raises.

    Raises SpoolError when its directory cannot be opened.
    """

    def __init__(self, directory_fd: int, name: str, number: int) -> None: ...
