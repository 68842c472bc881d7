"""Postfix's `posttls-finger`, asked through a name server of the test's own."""

from __future__ import annotations

import asyncio
import os
import shlex
from pathlib import Path

from interop.programs import program


async def posttls_finger(folder: Path, address: str, *words: str) -> str:
    """What it prints. With a resolv.conf of its own: its resolver is libc's. address: of the name server, port 53."""
    conf = folder / "resolv.conf"
    if not conf.exists():               # others may be reading it
        conf.write_text(f"nameserver {address}\noptions trust-ad\n")
        (folder / "main.cf").write_text("compatibility_level = 3.6\ninet_protocols = ipv4\n")
    mount = f"mount --bind {shlex.quote(str(conf))} /etc/resolv.conf"
    finger = f"{program('posttls-finger')} -c -t 10 -L summary {shlex.join(words)}"
    process = await asyncio.create_subprocess_exec(
        program("unshare"), "-m", "sh", "-c", f"{mount} && exec {finger}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "MAIL_CONFIG": str(folder)},
    )  # fmt: skip
    output, _ = await process.communicate()
    return output.decode("utf-8", "replace")
