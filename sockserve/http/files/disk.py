"""
Folders: what lies beneath one on the disk, and nothing else.

This room owns the way from a folder down to a file that no link leads out of, and the
reading of that file piece by piece.  It must not know requests.  Everything here may wait
for the disk, so it runs on worker threads.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import ELOOP, EMLINK, ENOTDIR
from threading import Lock
from typing import NamedTuple

from sockserve.http.files.ranges import ByteRange
from sockserve.interfaces import SockserveError

__all__ = [
    "PIECE_BYTES",
    "Entry",
    "FileBody",
    "OutsideRoot",
    "entries",
    "open_beneath",
    "segments_beneath",
]

#: How much is read at once, and so what a slow reader's download holds in memory.  128 KiB:
#: the way to a thread and back, some 50 microseconds, still allows 2 GB/s.
PIECE_BYTES = 128 * 1024

#: Not more than a place to go on from: no permission to read the folder is needed where
#: the system knows such a thing (Linux).
_PASS = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
#: O_NONBLOCK and O_NOCTTY, should what was a file a moment ago be a FIFO or a terminal.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

#: What the systems say of O_NOFOLLOW and a link.
_MAYBE_A_LINK = frozenset({ELOOP, EMLINK, ENOTDIR})


class OutsideRoot(SockserveError, PermissionError):
    """A path that leads out of its folder."""


class Entry(NamedTuple):
    """
    One name in a folder.

    @ivar is_folder: whether it is a folder, or a link to one.
    """

    name: str
    is_folder: bool


def segments_beneath(root: str, path: str) -> list[str]:
    """
    The names to follow from C{root} to C{path}, both absolute and normal.

    @raise OutsideRoot: C{path} is not beneath C{root}.
    """
    if path == root:
        return []
    prefix = root if root.endswith("/") else root + "/"
    if not path.startswith(prefix):
        raise OutsideRoot(f"{path!r} is not in {root!r}")
    return path[len(prefix) :].split("/")


def open_beneath(root: str, segments: Sequence[str]) -> tuple[int, os.stat_result]:
    """
    Open the regular file or the folder that C{segments} lead to, one after the other.

    Links are followed as long as the end is beneath C{root}.  Between looking where a
    link leads and opening, it could be made to lead elsewhere; so what is opened is
    reached from C{root} name by name, none of which may be a link (C{openat} and
    O_NOFOLLOW, which POSIX has; C{/proc/self/fd} and C{openat2}, which would tell the
    same afterwards or in one call, only Linux has).  Only when there is a link, the path
    is resolved, and the way is gone again along the path without links: if one is met
    then, somebody has put it there in between, and there is no file.

    What is no file and no folder is not opened, even without waiting: at a FIFO its
    writer would notice, and at a device anything may happen.

    @param segments: plain names: not empty, no C{.}, no C{..}, no slashes.
    @return: a descriptor, for a folder one that only L{entries} can do something with,
        and its status.
    @raise FileNotFoundError: there is none, or it is neither file nor folder.
    @raise OutsideRoot: a link leads out of C{root}.
    @raise OSError: anything else that C{os.open} raises.
    """
    try:
        return _walk(root, segments)
    except OSError as error:
        if error.errno not in _MAYBE_A_LINK:
            raise
    real_root = os.path.realpath(root, strict=True)
    real = os.path.realpath(os.path.join(real_root, *segments), strict=True)
    return _walk(real_root, segments_beneath(real_root, real))


def _walk(root: str, segments: Sequence[str]) -> tuple[int, os.stat_result]:
    # The root itself may well be a link: it is whoever serves it that says so.
    here = os.open(root, _PASS)
    if not segments:
        return here, os.fstat(here)
    try:
        for word in segments[:-1]:
            there = os.open(word, _PASS | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = there
        name = segments[-1]
        kind = os.stat(name, dir_fd=here, follow_symlinks=False).st_mode
        if stat.S_ISLNK(kind):
            raise OSError(ELOOP, os.strerror(ELOOP), name)
        if stat.S_ISDIR(kind):
            found = os.open(name, _PASS | os.O_NOFOLLOW, dir_fd=here)
        elif stat.S_ISREG(kind):
            found = os.open(name, _READ, dir_fd=here)
        else:
            raise FileNotFoundError(f"{name!r} is neither a file nor a folder")
    finally:
        os.close(here)
    status = os.fstat(found)
    if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
        os.close(found)
        raise FileNotFoundError(f"{name!r} was replaced")
    return found, status


def entries(root: str, segments: Sequence[str], dotfiles: bool) -> list[Entry]:
    """
    What can be opened in the folder that C{segments} lead to, sorted without regard to case.

    Neither links that lead out of C{root} or nowhere, nor FIFOs and the like.

    @param dotfiles: whether names that begin with a dot are among them.
    @raise OSError: as L{open_beneath}; or it is not a folder, or cannot be read.
    """
    real_root = os.path.realpath(root)
    found = []
    passing, _ = open_beneath(root, segments)
    try:
        reading = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=passing)
    finally:
        os.close(passing)
    try:
        with os.scandir(reading) as names:
            for entry in names:
                if not dotfiles and entry.name.startswith("."):
                    continue
                try:
                    if entry.is_symlink():
                        link = os.path.join(real_root, *segments, entry.name)
                        segments_beneath(real_root, os.path.realpath(link, strict=True))
                    is_folder = entry.is_dir()
                    if is_folder or entry.is_file():
                        found.append(Entry(entry.name, is_folder))
                except OSError:
                    pass  # L{open_beneath} would say the same
    finally:
        os.close(reading)
    return sorted(found, key=lambda entry: (entry.name.lower(), entry.name))


class FileBody:
    """
    A file that is being sent: opened, and then read piece by piece, each time on whatever
    thread is free.

    Nobody can interrupt a thread that waits for a disk, but whoever waits for the thread
    may give up.  So C{close}, which does not wait, leaves it to a thread in the middle of
    something to close the file when it is through: a descriptor is neither left open nor
    closed while another may already be in its place.

    @ivar left: how many bytes are still to be read.
    """

    __slots__ = ("_busy", "_descriptor", "_lock", "_plan", "_wanted", "left")

    def __init__(self) -> None:
        self._lock = Lock()
        self._descriptor: int | None = None
        self._busy = False
        self._wanted = True
        self._plan: deque[bytes | ByteRange] = deque()
        self.left = 0

    @property
    def closed(self) -> bool:
        """Whether L{close} has nothing to do any more.  Any thread."""
        return not self._wanted

    def open(self, root: str, segments: Sequence[str]) -> os.stat_result:
        """
        Open what L{open_beneath} opens; a folder only to look at it.

        @raise ValueError: L{close} came before.
        """
        with self._using():
            descriptor, status = open_beneath(root, segments)
            if stat.S_ISDIR(status.st_mode):
                os.close(descriptor)
            else:
                self._descriptor = descriptor
        return status

    def plan(self, parts: Iterable[bytes | ByteRange]) -> None:
        """Set what L{read} gives: bytes as they are, and ranges of the file."""
        self._plan = deque(parts)
        self.left = sum(p.size if isinstance(p, ByteRange) else len(p) for p in self._plan)

    def read(self) -> bytes:
        """
        The next piece, of at most about L{PIECE_BYTES}; the file is closed with the last.

        @return: fewer bytes than are left, down to none, when the file has become shorter;
            what is left cannot be had then.
        @raise ValueError: L{close} came before.
        """
        pieces = []
        room = PIECE_BYTES
        with self._using():
            while self._plan and room > 0:
                part = self._plan.popleft()
                if isinstance(part, ByteRange):
                    assert self._descriptor is not None
                    data = os.pread(self._descriptor, min(part.size, room), part.start)
                    if not data:
                        self._plan.clear()
                    elif len(data) < part.size:
                        self._plan.appendleft(ByteRange(part.start + len(data), part.stop))
                else:
                    data = part
                pieces.append(data)
                room -= len(data)
            if not self._plan:
                self._wanted = False
        piece = b"".join(pieces)
        self.left -= len(piece)
        return piece

    def close(self) -> None:
        """Close the file now, or when the thread that is busy with it is through."""
        with self._lock:
            self._wanted = False
            if self._busy:
                return
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @contextmanager
    def _using(self) -> Iterator[None]:
        with self._lock:
            if not self._wanted:
                raise ValueError("the file was closed")
            self._busy = True
        try:
            yield
        finally:
            with self._lock:
                self._busy = False
                wanted = self._wanted
            if not wanted:
                self.close()
