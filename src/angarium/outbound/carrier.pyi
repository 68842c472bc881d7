"""What an outbound connection has in hand (Cython callers only)."""

from angarium.queue.ready import ReadyQueue

class Carrier:
    """A base of Connection: the dialogue with one peer and the transactions of it."""

    ready: ReadyQueue
    remote: str
    taken_count: int
    finished_count: int
