"""Delivery into a Maildir: one file a message, whole and on stable storage before it can be seen.

tmp/NAME is written and synced, then linked into new/, then new/ is synced: a reader of new/ never sees a
partial message, and after "delivered" no power cut takes it back (https://cr.yp.to/proto/maildir.html). Runs
in worker threads; knows nothing of the queue (egress.pyx does). Lines end with LF in a Maildir, as its
readers expect.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import socket
import time
from collections.abc import Iterable

from angarium.model.outcome import Trouble

NAME_OCTETS_MAX = 255  # NAME_MAX of every file system a Maildir would be put on
DIRECTORY_MODE = 0o700
FILE_MODE = 0o600

# Octets of a local-part or domain that go into a directory name as they are; all others become %XX.
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-=@.")

_sequence = itertools.count()


def mailbox_directory(template: str, forward_path: bytes) -> str:
    """The Maildir of a recipient: `{local}` and `{domain}` of `template` filled in from its mailbox.

    forward_path  mailbox without brackets; a quoted local-part is taken without its quotes.
    Both parts are folded to lower case. The sub-address ("+detail", RFC 5233) is cut off. What is put in is
    always one path component or a part of one: no "/", no leading dot, no "..", no control octet, not empty,
    at most 255 octets; different mailboxes never meet in one directory by it.
    """
    local, _, domain = (
        forward_path.rpartition(b"@") if b"@" in forward_path else (forward_path, b"", b"localhost")
    )
    if len(local) >= 2 and local.startswith(b'"') and local.endswith(b'"'):
        local = _unquoted(local[1:-1])
    base, plus, _ = local.partition(b"+")
    if plus and base:
        local = base
    return template.replace("{local}", path_component(local)).replace("{domain}", path_component(domain))


def path_component(part: bytes) -> str:
    """`part` as (part of) a file name; see mailbox_directory. ASCII."""
    encoded = []
    previous_is_dot = True  # so that a leading dot is encoded
    for octet in part.lower():
        is_dot = octet == 0x2E
        if octet in _PLAIN and not (is_dot and previous_is_dot):
            encoded.append(chr(octet))
        else:
            encoded.append(f"%{octet:02X}")
        previous_is_dot = is_dot
    name = "".join(encoded) or "%"
    if len(name) > NAME_OCTETS_MAX:
        # Only octets that nearly all need %XX come here. "%%" stands in no other name.
        digest = hashlib.sha256(part.lower()).hexdigest()[:32]
        name = f"{name[: NAME_OCTETS_MAX - 40]}%%{digest}"
    return name


def _unquoted(content: bytes) -> bytes:
    plain = bytearray()
    octets = iter(content)
    for octet in octets:
        plain.append(next(octets, octet) if octet == 0x5C else octet)
    return bytes(plain)


class MaildirDelivery:
    """One message on its way into one Maildir: write()..., then commit() or abandon().

    reverse_path  for Return-Path; b"" is the null reverse-path.
    forward_path  for Delivered-To.
    is_binary     octets of the message are kept as they are; else its line ends become LF.
    All methods raise OSError; trouble_of() says what that means.
    """

    def __init__(
        self, directory: str, reverse_path: bytes, forward_path: bytes, *, is_binary: bool = False
    ) -> None:
        self._is_binary = is_binary
        self.directory = directory
        self.reverse_path = reverse_path
        self.forward_path = forward_path
        self.size_octets = 0
        self._name = ""
        self._fd = -1
        self._directory_fd = -1
        self._held_cr = False

    def write(self, octets: bytes) -> None:
        """A run of the message, CRLF line endings, in any cuts."""
        if self._fd < 0:
            self._open()
        if self._is_binary:
            self._write_all(octets)
            return
        if self._held_cr:
            octets = b"\r" + octets
        self._held_cr = octets.endswith(b"\r")
        if self._held_cr:
            octets = octets[:-1]
        self._write_all(octets.replace(b"\r\n", b"\n"))

    def commit(self) -> str:
        """Makes the message visible and durable; returns its path."""
        if self._fd < 0:
            self._open()
        if self._held_cr:
            self._write_all(b"\r")
        os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1
        name = f"{self._name},S={self.size_octets}"
        try:
            os.link(
                f"tmp/{self._name}",
                f"new/{name}",
                src_dir_fd=self._directory_fd,
                dst_dir_fd=self._directory_fd,
                follow_symlinks=False,
            )
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                raise
            # A file system without hard links. The name is unique, so nothing is replaced.
            os.rename(
                f"tmp/{self._name}",
                f"new/{name}",
                src_dir_fd=self._directory_fd,
                dst_dir_fd=self._directory_fd,
            )
        new_fd = os.open("new", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._directory_fd)
        try:
            os.fsync(new_fd)
        finally:
            os.close(new_fd)
        self.abandon()
        return f"{self.directory}/new/{name}"

    def abandon(self) -> None:
        """Leaves nothing behind but a message that commit() has made visible. Harmless at any time."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._directory_fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(f"tmp/{self._name}", dir_fd=self._directory_fd)
            os.close(self._directory_fd)
            self._directory_fd = -1

    def _open(self) -> None:
        self._directory_fd = _open_maildir(self.directory)
        self._name = _unique_name()
        self._fd = os.open(
            f"tmp/{self._name}",
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            FILE_MODE,
            dir_fd=self._directory_fd,
        )
        # RFC 5321 §4.4: final delivery adds Return-Path; Delivered-To ends loops between mailboxes.
        end = b"\r\n" if self._is_binary else b"\n"
        fields = b"Return-Path: <%b>" % self.reverse_path, b"Delivered-To: %b" % self.forward_path, b""
        self._write_all(end.join(fields))

    def _write_all(self, octets: bytes) -> None:
        view = memoryview(octets)
        while view:
            written = os.write(self._fd, view)
            self.size_octets += written
            view = view[written:]


def deliver(deliveries: list[MaildirDelivery], body: bytes) -> list[str | Trouble]:
    """One message, whole, to several Maildirs: for each the path of the new file, or why not. Blocks."""
    results: list[str | Trouble] = []
    for delivery in deliveries:
        try:
            delivery.write(body)
            results.append(delivery.commit())
        except OSError as error:
            delivery.abandon()
            results.append(trouble_of(error, delivery.directory))
    return results


def write_chunk(deliveries: list[MaildirDelivery], results: list[Trouble | None], chunk: bytes) -> None:
    """A run of a long message, to those that have not failed yet; failures go into `results`. Blocks."""
    for i, delivery in enumerate(deliveries):
        if results[i] is not None:
            continue
        try:
            delivery.write(chunk)
        except OSError as error:
            delivery.abandon()
            results[i] = trouble_of(error, delivery.directory)


def commit_all(deliveries: list[MaildirDelivery], results: list[Trouble | None]) -> list[str | Trouble]:
    """The end of a long message. Blocks."""
    final: list[str | Trouble] = []
    for delivery, trouble in zip(deliveries, results, strict=True):
        if trouble is not None:
            final.append(trouble)
            continue
        try:
            final.append(delivery.commit())
        except OSError as error:
            delivery.abandon()
            final.append(trouble_of(error, delivery.directory))
    return final


def abandon_all(deliveries: Iterable[MaildirDelivery]) -> None:
    """Nothing of these stays."""
    for delivery in deliveries:
        delivery.abandon()


def was_delivered_before(forward_path: bytes, message_start: bytes) -> bool:
    """Whether the header section already says that this mailbox had the message: a loop.

    message_start  the first chunk of the message; a header section that goes on behind it is not looked at.
    """
    end = message_start.find(b"\r\n\r\n")
    header = message_start if end < 0 else message_start[:end]
    wanted = forward_path.lower()
    for line in header.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon and name.strip().lower() == b"delivered-to" and value.strip().lower() == wanted:
            return True
    return False


def loop_trouble(forward_path: bytes) -> Trouble:
    """For was_delivered_before: permanent."""
    return Trouble(
        0, (5, 4, 6), f"mail loops: already delivered to {forward_path.decode('utf-8', 'replace')}"
    )


def trouble_of(error: OSError, directory: str) -> Trouble:
    """Nothing a file system says is the message's fault: always temporary, and the operator is told where."""
    number = error.errno or errno.EIO
    status = (4, 3, 0)
    if number == errno.EDQUOT:
        status = (4, 2, 2)  # mailbox full
    elif number in (errno.ENOSPC, errno.EFBIG):
        status = (4, 3, 1)  # mail system full
    elif number in (
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.EXDEV,
    ):
        status = (4, 3, 5)  # system incorrectly configured
    elif number in (errno.ENAMETOOLONG, errno.EISDIR):
        status = (4, 2, 0)
    return Trouble(0, status, f"cannot deliver to {directory}: {os.strerror(number)}")


def _open_maildir(directory: str) -> int:
    """A descriptor of the Maildir, made with cur, new and tmp where missing."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        fd = os.open(directory, flags)
    except FileNotFoundError:
        _make_directories(os.path.abspath(directory))
        fd = os.open(directory, flags)
    try:
        is_new = False
        for name in ("tmp", "cur", "new"):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, DIRECTORY_MODE, dir_fd=fd)
                is_new = True
        if is_new:
            os.fsync(fd)  # the way to the message must survive a power cut as the message does
    except OSError:
        os.close(fd)
        raise
    return fd


def _make_directories(directory: str) -> None:
    parent = os.path.dirname(directory)
    if not os.path.isdir(parent):
        _make_directories(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, DIRECTORY_MODE)
    _sync_directory(parent)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unique_name() -> str:
    now_utc_ns = time.time_ns()
    host = socket.gethostname().replace("/", r"\057").replace(":", r"\072")
    seconds, rest = divmod(now_utc_ns, 1_000_000_000)
    return f"{seconds}.M{rest // 1000:06d}P{os.getpid()}Q{next(_sequence)}.{host}"
