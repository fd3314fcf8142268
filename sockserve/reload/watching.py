"""
The watch on the files that a server is made of.

This room owns which folders are looked at, and which changes count.  It must not know what is done
about a change.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence

from watchfiles import Change, DefaultFilter, watch

from sockserve.core.messages import one_line
from sockserve.reload.files import changed_at

__all__ = ["Watch"]

#: How long the files have to be at rest until a change is told, and after which time it is told
#: even if they are not, in milliseconds.  An editor that saves several files takes less than the
#: first; the second is what watchfiles has.
_REST_MILLISECONDS = 50
_MOST_MILLISECONDS = 1600


class Watch:
    """The watch on some files, on a thread of its own."""

    def __init__(
        self,
        files: Iterable[str],
        since: float,
        changed: Callable[[Sequence[str]], object],
        failed: Callable[[str], object],
    ) -> None:
        """
        @param files: whole paths.  Other files of Python's in their folders count, too.
        @param since: when they were read, as C{time.time} has it: what is younger has changed.
        @param changed: called with the paths of what has changed. (any thread)
        @param failed: called with the reason why nothing is watched. (any thread)
        """
        self.files = frozenset(files)
        self._since = since
        self._changed = changed
        self._failed = failed
        self._ignores = DefaultFilter()
        self._ended = _Ended(self._look)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        """Tell what has changed since the files were read, and before they were watched."""
        younger = [file for file in sorted(self.files) if changed_at(file) > self._since]
        if younger:
            self._changed(younger)

    def _watch(self) -> None:
        folders = _outermost(os.path.dirname(file) for file in self.files)
        if not folders:
            return
        try:
            for changes in watch(
                *folders,
                watch_filter=self._counts,
                step=_REST_MILLISECONDS,
                debounce=_MOST_MILLISECONDS,
                stop_event=self._ended,
                raise_interrupt=False,
                ignore_permission_denied=True,
            ):
                self._changed(sorted({path for _, path in changes}))
        except (OSError, RuntimeError) as error:  # the system watches no more than so many folders
            self._failed(one_line(error))

    def _counts(self, change: Change, path: str) -> bool:
        """Whether a change leads to anything."""
        return path in self.files or (path.endswith(".py") and self._ignores(change, path))


class _Ended:
    """An event that is asked again and again by a watch, and first when that has begun."""

    def __init__(self, begun: Callable[[], object]) -> None:
        self._begun: Callable[[], object] | None = begun
        self._is_set = False

    def set(self) -> None:
        """End the watch. (any thread)"""
        self._is_set = True

    def is_set(self) -> bool:
        """Whether the watch is to end."""
        if self._begun is not None:
            begun, self._begun = self._begun, None
            begun()
        return self._is_set


def _outermost(folders: Iterable[str]) -> list[str]:
    """Those of some folders that are in none of the others, and are there."""
    found: list[str] = []
    for folder in sorted(set(folders)):
        if not any(folder.startswith(other.rstrip(os.sep) + os.sep) for other in found):
            found.append(folder)
    return [folder for folder in found if os.path.isdir(folder)]
