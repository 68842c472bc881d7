"""What all parts of a server session share."""

from angarium.smtp.server_settings import ServerSettings

class ServerDialogue:
    """The fields of one dialogue, to be read. Only its subclass ServerSession is ever made."""

    state: int
    after: int
    asked: int
    verb: int
    is_ehlo: bool
    is_tls: bool
    is_chunking: bool
    has_spoken: bool
    lingers: bool
    recipient_count: int
    refused_recipient_count: int
    error_count: int
    denied_count: int
    put_off_count: int
    mechanisms: bytes | None
    auth_needs_tls: bool
    extensions: bytes | None
    takes_xclient: bool
    takes_xforward: bool
    takes_etrn: bool
    is_stranger: bool
    is_trusted: bool
    argument: bytes | None
    identity: bytes | None
    mechanism: str | None
    response: bytes | None
    helo: bytes | None
    refusal: bytes | None
    future_release: bytes | None
    mail_reply: bytes | None
    solicit: bytes | None
    def __init__(self, settings: ServerSettings) -> None: ...
