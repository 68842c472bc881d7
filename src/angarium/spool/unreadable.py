"""What it means for a recipient that the message cannot be had from the spool."""

from __future__ import annotations

import errno
import os

from angarium.model.outcome import Trouble


def trouble_of_spool(number: int) -> Trouble:
    """Temporary, whatever it is: another disk of a mirror, or a backup, may still have it. So the message waits, is
    never sent damaged, and its sender is told when it expires. Where the damage lies is in the event `spool-damaged`.

    number  errno of a read; EBADMSG: the octets are there and are not what was stored.
    """
    what = "its octets on disk are damaged" if number == errno.EBADMSG else os.strerror(number)
    return Trouble(0, (4, 3, 0), "message cannot be read from the spool: " + what)
