"""Messages of our own, put into spool and queue."""

from collections.abc import Callable

from angarium.queue.scheduler import Scheduler
from angarium.spool.shard import Shard

def inject(
    scheduler: Scheduler,
    shard: Shard,
    reverse_path: bytes,
    recipients: list[bytes],
    body: bytes,
    flags: int,
    done: Callable[[int, int], object],
    id: int = 0,
    *,
    notify: int = 0,
    attributes: dict[int, bytes] | None = None,
) -> None:
    """Puts a message into the spool and, once it is there, into the queue.

    recipients  forward-paths (mailboxes without brackets), at least one. body: CRLF lines. flags: SPOOL_ENVELOPE_*.
    notify      SMTP_NOTIFY_* of all recipients. attributes: SPOOL_ATTRIBUTE_* to text.
    id          of Shard.new_id() when it is known already; 0: a new one.
    done(error, id) is called on the loop when the message is on stable storage (error 0) or is not (errno).
    Raises SpoolError when the envelope cannot be built (a mailbox with control octets).
    """
