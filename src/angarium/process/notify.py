"""Telling the service manager how far we are: sd_notify(3), one datagram to $NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket
import time


def notify_ready() -> None:
    """Start-up or a reload is over; workers serve."""
    _notify("READY=1")


def notify_reloading() -> None:
    """A reload began; notify_ready() ends it. systemd 253 wants the time of it too."""
    _notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def notify_stopping() -> None:
    """Shutdown began."""
    _notify("STOPPING=1")


def _notify(state: str) -> None:
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    if path.startswith("@"):
        path = "\0" + path[1:]  # abstract namespace, unix(7)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(state.encode(), path)
    except OSError:
        pass  # the service manager's loss: mail must not stop for it
