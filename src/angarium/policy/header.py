"""The header section of a message that is coming in: what hooks see of it, and changes that leave every other octet as
it was.

A section ends at the empty line, or before the first line that can be no field (as with Postfix and Sendmail); an mbox
line, "From ...", in front is nobody's field and stays. Lines end with CRLF: the data machine has seen to it.
"""

from __future__ import annotations

import email.header
import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal

import msgspec

from angarium.smtp.limits import TEXT_LINE_OCTETS

_LINE_OCTETS: Final = 78  # RFC 5322 §2.1.1: should
_LINE_LIMIT: Final = TEXT_LINE_OCTETS - 2  # and must
VALUE_OCTETS: Final = 16 << 10
CHANGES_MAXIMUM: Final = 100
FIELDS_MAXIMUM: Final = 10_000  # looked at: five milliseconds; of a section with more the end is never seen

# A name that begins with a letter or digit can be neither a dot that DATA must stuff nor a folded line.
_NAME: Final = re.compile(r"[A-Za-z0-9][!-9;-~]{0,199}", re.ASCII)
_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)\r\n")
_MBOX_LINE: Final = re.compile(rb">?From [^\r\n]*\r\n")
_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_FOLD_HERE: Final = re.compile(r"(?=(?<![ \t])[ \t]+[^ \t])")


class Field(msgspec.Struct, frozen=True):
    """name  as written.    raw  all octets behind the colon, folds included, without the last CRLF."""

    name: str
    raw: bytes

    @property
    def value(self) -> str:
        """Unfolded (RFC 5322 §2.2.3), without white space around it; octets that are no UTF-8 become U+FFFD."""
        return self.raw.replace(b"\r\n", b"").strip().decode("utf-8", "replace")

    @property
    def text(self) -> str:
        """The value with its encoded-words decoded (RFC 2047); of what cannot be decoded, the value."""
        try:
            return str(email.header.make_header(email.header.decode_header(self.value)))
        except (ValueError, LookupError, UnicodeError):
            return self.value


class Header:
    """Fields in the order in which they stand, names compared in any case. Parsed when it is first looked at.

    is_whole  False: the section goes on behind what is visible.
    """

    def __init__(self, octets: bytes, is_whole: bool = True) -> None:
        self.octets = octets
        self.is_whole = is_whole
        self._fields: list[Field] | None = None

    @property
    def fields(self) -> list[Field]:
        if self._fields is None:
            self._fields = [
                Field(found[1].decode("ascii"), found[2]) for found in _fields_in(self.octets) if found.re is _FIELD
            ]
        return self._fields

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __contains__(self, name: str) -> bool:
        return any(self._named(name))

    def get(self, name: str, default: str | None = None) -> str | None:
        """The value of the first field of that name."""
        return next((field.value for field in self._named(name)), default)

    def get_all(self, name: str) -> list[Field]:
        return list(self._named(name))

    def _named(self, name: str) -> Iterator[Field]:
        lower = name.lower()
        return (field for field in self.fields if field.name.lower() == lower)


class AddField(msgspec.Struct, frozen=True):
    """One more field. at  "top": above everything, our Received too, as trace fields stand; "end": last of the section.

    value  any length up to 16 KiB; folded at its spaces, encoded by RFC 2047 when it is not ASCII and the message is
           not SMTPUTF8. No control characters but TAB.
    """

    name: str
    value: str
    at: Literal["top", "end"] = "top"

    def __post_init__(self) -> None:
        if self.at not in ("top", "end"):
            raise ValueError(f'at {self.at!r}: "top" or "end"')
        field_octets(self.name, self.value, False)


class ReplaceField(msgspec.Struct, frozen=True):
    """The first field of that name gets this value, the others go; when there is none it is added at the end.

    index  only this one of them: 0 the first, -1 the last; when it is not there nothing happens.
    """

    name: str
    value: str
    index: int | None = None

    def __post_init__(self) -> None:
        field_octets(self.name, self.value, False)


class RemoveField(msgspec.Struct, frozen=True):
    """No field of that name. index  only this one of them: 0 the first, -1 the last."""

    name: str
    index: int | None = None

    def __post_init__(self) -> None:
        _check_name(self.name)


class HeaderIncomplete(Exception):
    """A change needs the end of a section that is not visible."""


def header_end(octets: bytes) -> tuple[int, bool]:
    """Where the section ends, its last CRLF included; and whether that was seen."""
    end = count = 0
    for found in _fields_in(octets):
        end = found.end()
        count += 1
    if count == FIELDS_MAXIMUM:
        return end, False
    rest = octets[end : end + 2]
    # A line that has not ended yet may become a field; one that has, and is none, ends the section.
    return end, rest == b"\r\n" or octets.find(b"\r\n", end) != -1


def changed(own: bytes, octets: bytes, changes: Iterable[FieldChange], is_smtputf8: bool) -> bytes:
    """Our own fields and the header section `octets` behind them, with the changes made in order.

    own  stays as it is; only what goes to the top stands before it.
    Raises ValueError: a value that cannot be written.
    """
    items: list[tuple[str, bytes]] = [
        (found[1].decode("ascii").lower() if found.re is _FIELD else "", found[0]) for found in _fields_in(octets)
    ]
    top: list[bytes] = []
    for change in changes:
        name = change.name.lower()
        places = [at for at, (each, _) in enumerate(items) if each == name]
        if isinstance(change, AddField):
            octets = field_octets(change.name, change.value, is_smtputf8)
            if change.at == "top":
                top.insert(0, octets)
            else:
                items.append((name, octets))
            continue
        chosen = places if change.index is None else _at(places, change.index)
        if isinstance(change, ReplaceField):
            new = (name, field_octets(change.name, change.value, is_smtputf8))
            if chosen:
                items[chosen[0]] = new
                chosen = chosen[1:]
            elif change.index is None:
                items.append(new)
        for at in reversed(chosen):
            del items[at]
    return b"".join((*top, own, *(each for _, each in items)))


def needs_whole_header(changes: Iterable[FieldChange]) -> bool:
    return any(not isinstance(change, AddField) or change.at == "end" for change in changes)


def field_octets(name: str, value: str, is_smtputf8: bool) -> bytes:
    """A field, folded, with its CRLF. Raises ValueError."""
    _check_name(name)
    if not isinstance(value, str):
        raise ValueError(f"{name}: value {value!r} is not a string")
    if found := _CONTROL.search(value):
        raise ValueError(f"{name}: control character {found[0]!r} in the value")
    value = value.strip(" \t")
    if len(value.encode()) > VALUE_OCTETS:
        raise ValueError(f"{name}: value of over {VALUE_OCTETS} octets")
    if not value.isascii() and not is_smtputf8:
        value = email.header.Header(value, "utf-8", header_name=name).encode(linesep="\r\n")
        return f"{name}: {value}\r\n".encode("ascii")
    return b"\r\n".join(_folded(f"{name}: {value}")) + b"\r\n"


def _folded(line: str) -> Iterator[bytes]:
    """Broken in front of white space, which stays, so that unfolding gives the value back (RFC 5322 §2.2.3)."""
    row = b""
    for index, piece in enumerate(_FOLD_HERE.split(line)):
        octets = piece.encode()
        # Not behind the name: a line that holds it alone is legal, and some readers stumble over it.
        if index > 1 and len(row) + len(octets) > _LINE_OCTETS:
            yield row
            row = b""
        row += octets
        if len(row) > _LINE_LIMIT:
            raise ValueError(f"{line.partition(':')[0]}: {len(row)} octets and no space to fold at (RFC 5322 §2.1.1)")
    yield row


def _fields_in(octets: bytes) -> Iterator[re.Match[bytes]]:
    found = _MBOX_LINE.match(octets) or _FIELD.match(octets)
    for _ in range(FIELDS_MAXIMUM):
        if found is None:
            return
        yield found
        found = _FIELD.match(octets, found.end())


def _at(places: list[int], index: int) -> list[int]:
    return [places[index]] if -len(places) <= index < len(places) else []


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no field name: a letter or digit, then printable ASCII but colons, at most 200")


FieldChange = AddField | ReplaceField | RemoveField
