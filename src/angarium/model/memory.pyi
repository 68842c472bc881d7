def share_one_arena() -> None:
    """All threads allocate from one heap. To be called before threads start."""

def return_free_memory() -> None:
    """Gives what is free back to the system."""
