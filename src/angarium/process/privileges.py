"""What a process may: becoming an unprivileged user, and having enough file descriptors."""

from __future__ import annotations

import os
import pwd
import resource
from typing import Final

from angarium.model.errors import ConfigError

# A session costs one descriptor. The hard limit is the administrator's; within it there is no reason to be
# modest.
_DESCRIPTORS_WANTED: Final = 1 << 20
# Of a worker, for what is not a session of a client: connections to next hops, segments of the spool, look-ups. Judged.
_DESCRIPTORS_BESIDE: Final = 2000


def descriptors_wanted(sessions: int, workers: int) -> int:
    """Of one worker, when so many sessions of all listeners are spread over all workers as the kernel does it."""
    return -(-sessions // workers) + _DESCRIPTORS_BESIDE


def raise_descriptor_limit() -> int:
    """Raises the soft limit of open files as far as the hard one allows; returns it. The kernel's own bound may be
    lower than an unlimited one says.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return wanted if soft == resource.RLIM_INFINITY else soft


def account_of(user: str) -> pwd.struct_passwd | None:
    """Whom node.user means; None when we are not root or are to stay who we are. Raises ConfigError."""
    if not user:
        return None
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise ConfigError(f'node.user: there is no user "{user}"') from None
    if os.geteuid() == 0:
        return account
    if os.geteuid() != account.pw_uid:
        raise ConfigError(f'node.user: only root can become "{user}"')
    return None


def give_directory(path: str, account: pwd.struct_passwd) -> None:
    """Makes a directory that is missing, for this user. One that exists is left as it is."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    os.chown(path, account.pw_uid, account.pw_gid)


def become(account: pwd.struct_passwd) -> None:
    """Gives up root for good: groups first, for a user may not change them."""
    os.initgroups(account.pw_name, account.pw_gid)
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
