"""A message outside of a spool: ID.eml, its octets as they are, and ID.json, everything else (ExportedMessage).

Octets that are no UTF-8 (a peer may have said anything) stand in the JSON as lone surrogates, U+DC80 and above, as
Python's "surrogateescape" makes them, so that what goes out comes back the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Final, Literal

import msgspec

from angarium.model.errors import AngariumError
from angarium.model.printable import json_line
from angarium.spool.contents import StoredMessage
from angarium.spool.envelope import (
    Attribute,
    Envelope,
    Flag,
    Recipient,
    RecipientState,
    Status,
    decode_id,
    encode_id,
)

FORMAT: Final = "angarium-message 1"

_NOTIFY: Final = {1: "never", 2: "success", 4: "failure", 8: "delay", 16: "expanded"}
_STATE_FLAGS: Final = {1: "delay-reported", 2: "report-done"}
_BAD_LINE_END: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n|\x00")


class NotExported(AngariumError):
    """Files that are no exported message; the text names the file."""


class NameTaken(AngariumError):
    """A file of another content is there already; the text names it."""


class ExportedRecipient(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One recipient: what RCPT said and what has become of it.

    notify              RFC 3461 §4.1; empty: not given.          orcpt  as given, "rfc822;xtext", or "".
    outcome             delivered, failed and expired are final.  attempts  so far.
    next_attempt_utc_s  0: as soon as may be.                     reply_code  of the last reply, 0: none.
    enhanced_status     "4.7.1" or "".                            reply, remote_host  what was said last, by whom.
    flags               "report-done": nobody needs to be told of the final outcome any more; "delay-reported".
    """

    forward_path: str
    orcpt: str = ""
    notify: list[Literal["never", "success", "failure", "delay", "expanded"]] = []
    outcome: Literal["waiting", "delivered", "failed", "expired"] = "waiting"
    attempts: int = 0
    next_attempt_utc_s: int = 0
    reply_code: int = 0
    enhanced_status: str = ""
    reply: str = ""
    remote_host: str = ""
    flags: list[Literal["delay-reported", "report-done"]] = []


class ExportedMessage(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The JSON beside an .eml file.

    id            queue id in the spool it comes from.    received_utc_ms  when it was taken: its age counts from here.
    octets        of the message.                         reverse_path  without brackets; "": null.
    envid, ret    RFC 3461 §4.4, 4.3: as given, or "".    helo, client_address, listener  for the log.
    is_smtputf8, is_8bitmime  what MAIL said (RFC 6531 §3.4, RFC 6152).    is_report  a DSN made by the relay itself.
    is_binarymime  RFC 3030.    requires_tls  RFC 8689 §2.    tls_optional  field TLS-Required: No (RFC 8689 §3).
    attributes     what few messages have: name (Attribute of spool/envelope.pyi, in lower case) or number, to text.
    """

    format: Literal["angarium-message 1"] = FORMAT
    id: str
    received_utc_ms: int
    octets: int
    reverse_path: str
    envid: str = ""
    ret: Literal["", "full", "hdrs"] = ""
    is_smtputf8: bool = False
    is_8bitmime: bool = False
    is_report: bool = False
    is_binarymime: bool = False
    requires_tls: bool = False
    tls_optional: bool = False
    attributes: dict[str, str] = {}
    helo: str = ""
    client_address: str = ""
    listener: str = ""
    recipients: list[ExportedRecipient]

    @classmethod
    def of(cls, message: StoredMessage) -> ExportedMessage:
        envelope, flags = message.envelope, message.envelope.flags
        return cls(
            id=encode_id(envelope.id),
            received_utc_ms=envelope.received_utc_ms,
            octets=envelope.message_octets,
            reverse_path=_text(envelope.reverse_path),
            envid=_text(envelope.envid),
            ret="full" if Flag.RET_FULL in flags else "hdrs" if Flag.RET_HDRS in flags else "",
            is_smtputf8=Flag.SMTPUTF8 in flags,
            is_8bitmime=Flag.BODY_8BITMIME in flags,
            is_report=Flag.IS_DSN in flags,
            is_binarymime=Flag.BINARYMIME in flags,
            requires_tls=Flag.REQUIRETLS in flags,
            tls_optional=Flag.TLS_OPTIONAL in flags,
            attributes={_key_name(key): _text(text) for key, text in reversed(envelope.attributes)},
            helo=_text(envelope.helo),
            client_address=_text(envelope.client_address),
            listener=_text(envelope.listener),
            recipients=[
                _exported(recipient, state)
                for recipient, state in zip(envelope.recipients, message.recipient_states, strict=True)
            ],
        )

    def envelope(self, message_id: int, octets: bytes) -> Envelope:
        """The envelope under another id, for these octets; without chunks. Raises ValueError."""
        flags = flags_of(octets)
        flags |= Flag.SMTPUTF8 if self.is_smtputf8 else Flag(0)
        flags |= Flag.BODY_8BITMIME if self.is_8bitmime else Flag(0)
        flags |= Flag.IS_DSN if self.is_report else Flag(0)
        flags |= Flag.BINARYMIME if self.is_binarymime else Flag(0)
        flags |= Flag.REQUIRETLS if self.requires_tls else Flag(0)
        flags |= Flag.TLS_OPTIONAL if self.tls_optional else Flag(0)
        flags |= {"": Flag(0), "full": Flag.RET_FULL, "hdrs": Flag.RET_HDRS}[self.ret]
        recipients = []
        for each in self.recipients:
            path = _octets(each.forward_path)
            notify = sum(bit for bit, word in _NOTIFY.items() if word in each.notify)
            recipients.append(Recipient(path, _octets(each.orcpt), notify, path.rfind(b"@") + 1))
        return Envelope(
            id=message_id,
            received_utc_ms=self.received_utc_ms,
            message_octets=len(octets),
            flags=flags,
            reverse_path=_octets(self.reverse_path),
            envid=_octets(self.envid),
            helo=_octets(self.helo),
            client_address=_octets(self.client_address),
            listener=_octets(self.listener),
            recipients=tuple(recipients),
            chunks=(),
            attributes=tuple((_key(name), _octets(text)) for name, text in self.attributes.items()),
        )

    def states(self) -> tuple[RecipientState, ...] | None:
        """None when nothing was tried yet. Raises ValueError."""
        states = tuple(_state(each) for each in self.recipients)
        return None if all(state == RecipientState() for state in states) else states

    def json(self) -> str:
        """One line."""
        return json_line(msgspec.to_builtins(self))


def _key_name(key: int) -> str:
    try:
        return Attribute(key).name.lower()
    except ValueError:
        return str(key)


def _key(name: str) -> int:
    """Raises ValueError."""
    if name.isdecimal() and int(name) <= 65535:
        return int(name)
    try:
        return Attribute[name.upper()]
    except KeyError:
        raise ValueError(f'attributes: "{name}" is neither an attribute nor a number') from None


def flags_of(octets: bytes) -> Flag:
    """What an envelope says about the octets themselves."""
    flags = Flag(0)
    if not octets.isascii():
        flags |= Flag.EIGHT_BIT
    if octets.startswith(b".") or b"\n." in octets:
        flags |= Flag.DOT_LINE
    if not octets.endswith(b"\r\n"):
        flags |= Flag.NO_FINAL_CRLF
    return flags


def write_message(directory: Path, message: StoredMessage, pieces: list[bytes]) -> None:
    """Makes ID.eml, then ID.json, each whole and synced under its name or not there; the caller syncs the directory.
    Files that are there with the same content are left alone, so that an interrupted export can be run again. Raises
    OSError; NameTaken: not replaced.
    """
    name = encode_id(message.envelope.id)
    _write(directory / f"{name}.eml", pieces)
    _write(directory / f"{name}.json", [ExportedMessage.of(message).json().encode(), b"\n"])


def read_directory(directory: Path) -> list[tuple[Path, ExportedMessage]]:
    """Every ID.json with its ID.eml, by name: the path of the .eml. Raises NotExported, OSError."""
    found = []
    for path in sorted(directory.glob("*.json")):
        eml = path.with_suffix(".eml")
        if not eml.is_file():
            raise NotExported(f"{eml}: is not there, {path.name} is")
        found.append((eml, _read(path)))
    return found


def read_octets(eml: Path, *, is_binarymime: bool) -> bytes:
    """The message. Raises NotExported when no mail system may send it (RFC 5321 §2.3.8, but for RFC 3030 §3)."""
    octets = eml.read_bytes()
    if not is_binarymime and (bad := _BAD_LINE_END.search(octets)):
        raise NotExported(f"{eml}: offset {bad.start()}: a bare CR, a bare LF or NUL; lines end with CRLF")
    return octets


# --- from here on private ---


def _read(path: Path) -> ExportedMessage:
    try:
        value = msgspec.convert(json.loads(path.read_text("utf-8")), ExportedMessage)
        decode_id(value.id)
        # What is wrong in it is told before anything is written.
        value.envelope(1, b"").build()
        value.states()
    except (ValueError, OverflowError) as error:
        raise NotExported(f"{path}: {error}") from None
    if not value.recipients:
        raise NotExported(f"{path}: no recipients")
    return value


def _exported(recipient: Recipient, state: RecipientState) -> ExportedRecipient:
    enhanced = ".".join(map(str, state.enhanced)) if any(state.enhanced) else ""
    value = {
        "forward_path": _text(recipient.forward_path),
        "orcpt": _text(recipient.orcpt),
        "notify": [word for bit, word in _NOTIFY.items() if recipient.notify & bit],
        "outcome": state.status.name.lower(),
        "attempts": state.attempts,
        "next_attempt_utc_s": state.next_attempt_utc_s,
        "reply_code": state.reply_code,
        "enhanced_status": enhanced,
        "reply": _text(state.reply_text),
        "remote_host": _text(state.remote_host),
        "flags": [word for bit, word in _STATE_FLAGS.items() if state.flags & bit],
    }
    return msgspec.convert(value, ExportedRecipient)


def _state(recipient: ExportedRecipient) -> RecipientState:
    parts = tuple(int(part) for part in recipient.enhanced_status.split(".") if part)
    if len(parts) not in (0, 3):
        raise ValueError(f"enhanced_status: {recipient.enhanced_status!r} is not three numbers")
    return RecipientState(
        status=Status[recipient.outcome.upper()],
        attempts=recipient.attempts,
        next_attempt_utc_s=recipient.next_attempt_utc_s,
        reply_code=recipient.reply_code,
        enhanced=(parts[0], parts[1], parts[2]) if parts else (0, 0, 0),
        reply_text=_octets(recipient.reply),
        remote_host=_octets(recipient.remote_host),
        flags=sum(bit for bit, word in _STATE_FLAGS.items() if word in recipient.flags),
    )


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _write(path: Path, pieces: list[bytes]) -> None:
    if path.exists():
        if path.read_bytes() != b"".join(pieces):
            raise NameTaken(f"{path} is there already, with other content")
        return
    temporary = path.with_name(f"{path.name}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
