"""What hooks are told. Values of one moment: to change them changes nothing, decisions do (decisions.py).

Texts of a peer's (HELO name, paths, identity) hold no control characters; paths have no brackets, and "" as a
reverse-path is the null one.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from angarium.policy.header import Header


class Client(msgspec.Struct, frozen=True):
    """Who is connected.

    address    "192.0.2.1", "2001:db8::1", or "" on a unix socket.
    helo       as said, "" before.
    user       the authenticated identity, "" without one.
    is_secure  under TLS.
    may_relay  anywhere: by its network, its certificate or its identity.
    listener   as configured, "0.0.0.0:25".
    protocol   "SMTP" (also before EHLO), "ESMTP" or "LMTP".
    name, reverse_name  of its host, verified and not, as a listed peer has said them (XCLIENT); else "".
    notes      for hooks: kept until the connection ends, or a peer speaks for somebody else (XCLIENT).
    """

    address: str
    helo: str
    user: str
    is_secure: bool
    may_relay: bool
    listener: str
    protocol: str
    name: str
    reverse_name: str
    notes: dict[str, Any]


class Credentials(msgspec.Struct, frozen=True):
    """What a client says to prove who it is (AUTH), where `auth.credentials` is "hook".

    kind       what there is to be judged: a password (PLAIN, LOGIN), a bearer token (OAUTHBEARER, XOAUTH2), or a
               certificate that has been verified (EXTERNAL).
    identity   as claimed, prepared by SASLprep; of a certificate, what it says; "" when a token came without one.
    password   "" unless kind is "password".    token  likewise.
    address    "192.0.2.1", "2001:db8::1", or "" on a unix socket.
    is_secure  under TLS.
    """

    kind: Literal["password", "token", "certificate"]
    identity: str
    password: str
    token: str
    address: str
    is_secure: bool

    def __repr__(self) -> str:
        """Without secrets: it may come into a log."""
        return f"Credentials({self.kind}, {self.identity!r}, {self.address!r})"


class Mail(msgspec.Struct, frozen=True):
    """MAIL. octets: announced by SIZE, 0 without. notes: kept until the transaction ends."""

    client: Client
    reverse_path: str
    octets: int
    is_smtputf8: bool
    notes: dict[str, Any]

    @property
    def domain(self) -> str:
        """Of the reverse-path, in lower case; "" of the null one."""
        return self.reverse_path.rpartition("@")[2].lower()


class Rcpt(msgspec.Struct, frozen=True):
    """One RCPT. count: recipients accepted before it. notes: those of Mail."""

    client: Client
    reverse_path: str
    forward_path: str
    count: int
    notes: dict[str, Any]

    @property
    def domain(self) -> str:
        """Of the forward-path, in lower case; an address literal with its brackets."""
        return self.forward_path.rpartition("@")[2].lower()

    @property
    def local_part(self) -> str:
        """As written: quoted if it is."""
        return self.forward_path.rpartition("@")[0]


class Recipient(msgspec.Struct, frozen=True):
    """Whom knows_recipient is asked about, where `recipients` of a domain says "hook". Not who asks: answers are kept.

    mailbox     as it stands behind aliases, in its spelling.
    local_part  as it is compared: in lower case (unless case_sensitive), without quotes that it does not need.
    name, tag   of it, by sub_address: "bob" and "+lists"; tag is "" without one.
    domain      in lower case, A-labels.
    """

    mailbox: str
    local_part: str
    name: str
    tag: str
    domain: str


class Message(msgspec.Struct, frozen=True):
    """The end of data, or of a message's first 128 KiB: what is longer is on its way to the disk while it arrives.

    id          of the queue and of the log.
    recipients  accepted so far, as they will be stored.
    header      as the client sent it.
    body        octets behind the header section, at most policy.body_size of them.
    octets      of the message, as far as it is known: all of it when is_whole, else what was there.
    is_whole    nothing of the message is still to come.
    """

    client: Client
    id: str
    reverse_path: str
    recipients: tuple[str, ...]
    header: Header
    body: bytes
    octets: int
    is_whole: bool
    is_smtputf8: bool
    notes: dict[str, Any]


class Outcome(msgspec.Struct, frozen=True):
    """What became of one recipient at one attempt; the fields of the event of the same name in the log.

    site, source  "" when no connection was wanted.    remote  who answered, "" when nobody did.
    code          of its reply, 0 without one.         status  enhanced, "5.1.1"; "" when there is none.
    bounce_class  what the failure means (docs/bounces.md), "" where nothing has failed.
    """

    event: Literal["delivered", "deferred", "failed", "expired", "deleted"]
    id: str
    reverse_path: str
    forward_path: str
    octets: int
    site: str
    source: str
    remote: str
    code: int
    status: str
    reply: str
    attempt: int
    age_s: float
    elapsed_s: float
    bounce_class: str = ""
