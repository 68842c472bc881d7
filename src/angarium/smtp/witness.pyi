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

    def message(self, length: int) -> None:
        """So many octets of message data."""

    def data(self, octets: bytes) -> None:
        """Message data, when they are wanted; of what comes at once no more than is wanted of a message."""

    def reply(self, octets: bytes) -> None:
        """What we say: whole lines, or parts of one."""

@final
class Witness:
    """Set on a connection by its watch(). data_octets: wanted of each message; 0: none."""

    observer: Observer
    def __init__(self, observer: Observer, data_octets: int = 0) -> None: ...
