"""What a server session tells, as values, for its Python face. The connection reads its fields instead."""

from __future__ import annotations

import msgspec


class Helo(msgspec.Struct, frozen=True):
    """HELO or EHLO, already answered; a transaction that was open is over."""

    name: bytes
    is_ehlo: bool


class Mail(msgspec.Struct, frozen=True):
    """Asks: accept() or refuse(). An empty reverse_path is the null one."""

    reverse_path: bytes
    announced_octets: int = 0
    envid: bytes = b""
    body_8bitmime: bool = False
    smtputf8: bool = False
    requires_tls: bool = False
    ret: str = ""
    body_binarymime: bool = False
    by: str = ""
    hold_for_s: int | None = None
    hold_until_utc_s: int | None = None
    priority: int | None = None
    solicit: bytes = b""


class Auth(msgspec.Struct, frozen=True):
    """AUTH. Asks: challenge(), authenticate() or refuse(). `initial` is decoded; None: no initial response was sent."""

    mechanism: str
    initial: bytes | None = None


class AuthResponse(msgspec.Struct, frozen=True):
    """What the client says to a challenge, decoded. Asks as Auth does."""

    octets: bytes


class Rcpt(msgspec.Struct, frozen=True):
    """Asks: accept() or refuse(). domain_offset is the length of forward_path for a bare <Postmaster>."""

    forward_path: bytes
    domain_offset: int
    orcpt: bytes = b""
    notify: int = 0


class Data(msgspec.Struct, frozen=True):
    """DATA or the first BDAT of a message. Asks: begin_data() or refuse()."""

    is_chunking: bool


class Body(msgspec.Struct, frozen=True):
    """So many octets are stored and more will come: take_body() now or let them grow."""

    octets: int


class Message(msgspec.Struct, frozen=True):
    """End of data, nothing wrong with it. Asks: finish(). `octets` counts what came, not our trace field."""

    octets: int
    has_8bit: bool


class StartTls(msgspec.Struct, frozen=True):
    """Asks: accept() or refuse(). Nothing was behind it."""


class XClient(msgspec.Struct, frozen=True):
    """Asks: reintroduce() or answer(). `argument`: all behind the verb, octets 32 to 126."""

    argument: bytes


class XForward(msgspec.Struct, frozen=True):
    """Asks: answer(). `argument` likewise."""

    argument: bytes


class Etrn(msgspec.Struct, frozen=True):
    """Asks: answer(). `argument` likewise."""

    argument: bytes


class Reset(msgspec.Struct, frozen=True):
    """RSET: the transaction is over."""


class Refused(msgspec.Struct, frozen=True):
    """The session refused something by itself; the reply is said. Transaction or AUTH exchange may be over with it."""

    code: int
    reply: bytes


class Close(msgspec.Struct, frozen=True):
    """Told once: send the output, then close; `lingers`: let the peer read it before the connection goes."""

    lingers: bool


ServerEvent = (
    Helo | Auth | AuthResponse | Mail | Rcpt | Data | Body | Message | StartTls | XClient | XForward | Etrn | Reset
    | Refused | Close
)
