"""Text maps (csrc/recipients/text_map.h says how they are written) and constant databases. Read-only."""

from pathlib import Path
from typing import final

@final
class TextMap:
    @staticmethod
    def read(path: Path, folds_case: bool) -> TextMap:
        """Without the GIL: for a thread. folds_case: keys become lower case as a whole, not only behind the last "@".

        Raises OSError, and ValueError with the line that has a NUL.
        """
    def __len__(self) -> int: ...
    def get(self, key: bytes) -> bytes | None:
        """The value, perhaps empty; None: no such key."""
    def close(self) -> None: ...

@final
class CdbMap:
    def __init__(self, path: Path) -> None:
        """Raises OSError, ValueError."""
    def get(self, key: bytes) -> bytes | None:
        """The first value of the key. Raises OSError, and ValueError when the file is not sound."""
    def close(self) -> None: ...
