"""Whoever looks on at a dialogue."""

from typing import Protocol, final

class Observer(Protocol):
    """What a witness tells. None of it may raise for long: what it raises is dropped."""

    def command(self, line: bytes) -> None:
        """A command line, without CRLF; of AUTH with its initial response."""

    def response(self, length: int) -> None:
        """A line of an AUTH exchange, whose octets nobody is told."""

    def noise(self, octets: bytes, length: int) -> None:
        """Octets that are no line of SMTP, or too long a one: the first of them, and how many there are."""

    def message(self, octets: bytes, length: int) -> None:
        """Message data; the octets only when they are wanted."""

    def reply(self, octets: bytes) -> None:
        """What we say: whole lines, or parts of one."""

@final
class Witness:
    """Set on a connection by Client.watch()."""

    observer: Observer
    def __init__(self, observer: Observer, wants_message_octets: bool) -> None: ...
