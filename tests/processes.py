"""What the kernel tells of a process."""

from pathlib import Path


def children_of(pid: int | str = "self") -> set[str]:
    """
    The children of every thread.  Those of one that ends become another's, maybe of one that
    has been looked at, so only what two looks in a row find is what there is.
    """
    found, before = _look_for_children(pid), None
    while found != before:
        found, before = _look_for_children(pid), found
    return found


def _look_for_children(pid: int | str) -> set[str]:
    found: set[str] = set()
    for task in Path("/proc", str(pid), "task").glob("*"):
        try:
            found.update((task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            pass  # the thread has ended, before it was opened or since
    return found
