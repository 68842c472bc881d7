"""What the operator may set about a listener's socket itself: [listener.socket]."""

from __future__ import annotations

import re
from typing import Final

import msgspec

_MODE: Final = re.compile(r"0?[0-7]{3}", re.ASCII)
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
# sd_listen_fds_with_names(3): printable ASCII without ":", 255 characters at the most.
_NAME: Final = re.compile(r"[!-9;-~]{1,255}", re.ASCII)


class SocketOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A listener's socket.

    mode   of a unix socket's name, octal: who may connect.
    owner  of a unix socket's name: "user", "user:group" or ":group"; "": whoever bound it.
    name   FileDescriptorName= of the socket that the service manager passes for this listener; "": one passed for
           the same address is taken, and without one it is bound.
    """

    mode: str = "0666"
    owner: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if not _MODE.fullmatch(self.mode):
            raise ValueError(f'mode: "{self.mode}": expected three octal digits, such as "0660"')
        user, colon, group = self.owner.partition(":")
        parts = [part for part in (user, group) if part]
        if not all(_ACCOUNT.fullmatch(part) for part in parts) or (colon and not group):
            raise ValueError(f'owner: "{self.owner}": expected "user", "user:group" or ":group"')
        if self.name and not _NAME.fullmatch(self.name):
            raise ValueError(f'name: "{self.name}" is no name of a socket (FileDescriptorName=)')

    @property
    def mode_bits(self) -> int:
        return int(self.mode, 8)
