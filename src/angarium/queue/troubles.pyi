class Troubles:
    def __len__(self) -> int: ...
    def prune(self) -> bool:
        """Forgets some that no recipient has; True when there are more to look at."""
