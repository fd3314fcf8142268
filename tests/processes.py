"""What the kernel tells of a process."""

import os


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
    tasks = f"/proc/{pid}/task"
    for task in os.listdir(tasks):
        try:
            with open(f"{tasks}/{task}/children") as children:
                found.update(children.read().split())
        except (FileNotFoundError, ProcessLookupError):
            pass  # the thread has ended, before it was opened or since
    return found
