"""The one tree of exceptions. What a peer answers is a value (Reply, Trouble), not an exception."""

from __future__ import annotations


class AngariumError(Exception):
    """Root of everything raised on purpose."""


class ProtocolError(AngariumError):
    """Something is wrong with the dialogue."""


class LocalProtocolError(ProtocolError):
    """We misused a session object: a bug of ours."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol. `reply` is what to answer it, where there is an answer."""

    def __init__(self, text: str, reply: bytes = b"") -> None:
        super().__init__(text)
        self.reply = reply


class SpoolError(AngariumError):
    """The spool cannot do what it must."""


class SpoolFull(SpoolError):
    """No space: 452 4.3.1, by itself over when space returns."""


class SpoolCorrupt(SpoolError):
    """Octets on disk are not what was written."""


class SpoolBusy(SpoolError):
    """Another process owns the spool or the shard."""


class SpoolUnfinished(SpoolError):
    """A spool that a repair was filling when it was interrupted."""


class SpoolVersion(SpoolError):
    """Written by another version of the format."""


class ResolverError(AngariumError):
    """DNS could not answer; see resolver/ for the kinds of no."""


class ConfigError(AngariumError):
    """The configuration is refused; the text starts with the key's path, `listener[0].address: ...`."""


class TlsMaterialError(AngariumError):
    """A certificate or key cannot be used. `key` is the option at fault, such as "certificates[0].cert"."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason
