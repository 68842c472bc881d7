"""What the service manager is told."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import pytest
from relay_process import RelayProcess, maildir_route, wait_for


@pytest.mark.parametrize("is_abstract", [False, True])
def test_ready_reloading_and_stopping_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_abstract: bool
) -> None:
    name = f"@angarium-test-{tmp_path.name}-{id(tmp_path)}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if is_abstract else name)
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        with RelayProcess(tmp_path, maildir_route(tmp_path)) as relay:
            assert manager.recv(100) == b"READY=1"
            relay.signal(signal.SIGHUP)
            assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", manager.recv(100))
            assert manager.recv(100) == b"READY=1"
            wait_for(lambda: relay.events("reloaded"), "reloaded")
            relay.stop()
            assert manager.recv(100) == b"STOPPING=1"
