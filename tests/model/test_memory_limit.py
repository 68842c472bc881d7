"""How much memory there is where control groups bound it, as cgroups(7) has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from angarium.model.memory_limit import machine_octets

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
SERVICE = "0::/system.slice/angarium.service\n"
MIB = 1 << 20


@pytest.mark.parametrize(
    ("membership", "files", "octets"),
    [
        (SERVICE, {}, MACHINE),
        (SERVICE, {"system.slice/angarium.service/memory.max": "max"}, MACHINE),
        (SERVICE, {"system.slice/angarium.service/memory.max": f"{64 * MIB}"}, 64 * MIB),
        (SERVICE, {"system.slice/memory.max": f"{80 * MIB}", "memory.max": f"{96 * MIB}"}, 80 * MIB),
        (SERVICE, {"system.slice/angarium.service/memory.high": f"{48 * MIB}"}, 48 * MIB),
        (SERVICE, {"system.slice/other.service/memory.max": f"{MIB}"}, MACHINE),
        (SERVICE, {"memory.max": f"{MACHINE * 2}"}, MACHINE),
        ("0::/\n", {"memory.max": f"{32 * MIB}"}, 32 * MIB),                               # a container
        ("0::/../../elsewhere\n", {"memory.max": f"{32 * MIB}"}, 32 * MIB),                # and one that was entered
        ("0::/a.service\n", {"unified/a.service/memory.max": f"{16 * MIB}"}, 16 * MIB),    # beside version 1
        ("4:cpu,memory:/docker/1\n", {"memory/docker/memory.limit_in_bytes": f"{8 * MIB}"}, 8 * MIB),
        ("4:cpuset:/docker\n", {"memory/docker/memory.limit_in_bytes": f"{8 * MIB}"}, MACHINE),
        ("nonsense\n", {"memory.max": "64"}, MACHINE),
    ],
)
def test_the_least_of_the_machine_and_its_control_groups(
    tmp_path: Path, membership: str, files: dict[str, str], octets: int
) -> None:
    (tmp_path / "cgroup").write_text(membership)
    for name, text in files.items():
        place = tmp_path / "mount" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text + "\n")
    assert machine_octets(tmp_path / "cgroup", tmp_path / "mount") == octets


def test_without_control_groups_it_is_the_machine(tmp_path: Path) -> None:
    assert machine_octets(tmp_path / "none", tmp_path) == MACHINE
