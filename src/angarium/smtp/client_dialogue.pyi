"""What both halves of a client session share."""

from collections.abc import Sequence

from angarium.model.errors import RemoteProtocolError
from angarium.smtp.client_session import Event

class BrokenDialogue(RemoteProtocolError):
    """The peer broke the protocol; `events_before` is what receive() had to tell before that."""

    events_before: Sequence[Event]

class ClientDialogue:
    """The fields of one dialogue, to be read. Only its subclass ClientSession is ever made."""

    hostname: bytes
    peer_name: bytes
    extensions: int
    size_limit: int
    by_minimum_s: int
    mail_limit: int
    recipient_limit: int
    domain_limit: int
    mechanisms: bytes
    is_authenticated: bool
    is_lmtp: bool
    wants_tls: bool
    is_tls: bool
