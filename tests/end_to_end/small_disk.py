"""A file system of a test's own: ext4 in a file, mounted by the loop device. Needs root; where the machine does not
allow it the test is skipped and says why.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(directory: Path, octets: int) -> Iterator[Path]:
    """Where it is mounted: a directory below `directory`, nothing in it, no block kept for root."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not installed (e2fsprogs)")
    image, place = directory / "disk.img", directory / "disk"
    with image.open("wb") as file:
        file.truncate(octets)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True, stdin=subprocess.DEVNULL)
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-o", "loop", str(image), str(place)], check=False, capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"loop devices cannot be mounted here: {mounted.stderr.strip()}")
    try:
        shutil.rmtree(place / "lost+found")
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)
        image.unlink()


def free_octets(place: Path) -> int:
    room = os.statvfs(place)
    return room.f_bavail * room.f_frsize


def fill(path: Path) -> None:
    """Makes a file that takes every block that is left."""
    with path.open("ab", buffering=0) as file:
        for piece in (1 << 20, 512):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(piece))
                    os.fsync(file.fileno())
