"""Forking a worker: what a child must forget of its parent before it works for itself.

Forked, not executed: the interpreter, the modules and the configuration stay shared pages, which is most of a
worker's memory. In return the child drops here what was the supervisor's alone: signal handlers, the wake-up
descriptor, the event loop's descriptors, the other workers' sockets. The caller must not be inside a running
event loop and must have no other threads.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from typing import Final

from angarium.model.memory import return_free_memory

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

# Loaded here, before any fork: dlopen in a child would be a page of work for each.
_libc = ctypes.CDLL(None, use_errno=True)


def fork(name: str, keep: Collection[int], main: Callable[[], int]) -> int:
    """Starts a child that runs `main` and exits with what it returns; returns its process id.

    name  shown by ps and top, at most 15 octets.
    keep  descriptors the child may use; of the others only 0, 1 and 2 stay, the rest become /dev/null.
    A child whose parent dies is killed with it (PR_SET_PDEATHSIG): a spool must not stay owned by orphans.
    Raises OSError when there is no memory, or too many processes.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    # A signal between fork and the child's own handlers would run the parent's.
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
        raise
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
        return pid
    status = 1
    try:
        _forget_parent(keep)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        # Not by /proc/self/comm, which is root's in a process that has changed its user.
        _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
        status = main()
    except BaseException:
        # Not into what hooks print (policy/printed.py), which nobody would write any more.
        traceback.print_exc(file=sys.__stderr__)
    finally:
        # Not sys.exit: finalisers and atexit functions of the parent's objects are the parent's business.
        os._exit(status)


def freeze() -> None:
    """Puts all that exists beyond the garbage collector's reach: it touches the shared pages no more.

    What is free goes back to the system: each process that used it again would have its own copy of the page.
    """
    gc.collect()
    gc.freeze()
    return_free_memory()


def _forget_parent(keep: Collection[int]) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group: the supervisor decides what it means
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Replaced rather than closed: objects of the parent still hold the numbers, and a number given out again
    # would make them act on our files.
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in [int(entry) for entry in os.listdir("/proc/self/fd")]:
        # (listdir's own descriptor is gone by now.)
        if fd > 2 and fd != null and fd not in keep and os.path.exists(f"/proc/self/fd/{fd}"):
            os.dup2(null, fd, inheritable=False)
    os.close(null)
    freeze()
