"""
The disk: files and folders beneath one folder, the root, and no others.

This room owns the way from the root down to a file, which no link can lead out of it, and the
reading of that file piece by piece.  It must not know requests.

Everything here may wait for the disk. (worker thread, but where a method says otherwise)
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import ELOOP, EMLINK, ENOTDIR
from itertools import chain, count
from threading import Lock
from typing import NamedTuple, TypeAlias

from sockserve.http.files.ranges import ByteRange
from sockserve.interfaces import SockserveError

__all__ = [
    "PIECE_BYTES",
    "Entry",
    "FileBody",
    "OutsideRoot",
    "entries",
    "identities",
    "identity",
    "open_beneath",
    "segments_beneath",
]

#: How many bytes are read at once, and so how many a slow client's download keeps in memory.
#: 128 KiB: the way to a thread and back, some 50 microseconds, still allows 2 GB/s.
PIECE_BYTES = 128 * 1024

#: The flags to open a folder with that is only a step on the way.  Where the system can open it
#: for no more than that (Linux), no permission to read it is needed.
_PASS = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
#: The flags to read with.  O_NONBLOCK and O_NOCTTY, should what was a file a moment ago be a
#: FIFO or a terminal.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

#: The errors that systems give for O_NOFOLLOW and a link.
_MAYBE_A_LINK = frozenset({ELOOP, EMLINK, ENOTDIR})

#: What a file has for itself: device and inode.
Identity: TypeAlias = tuple[int, int]


class OutsideRoot(SockserveError, PermissionError):
    """The error for a path that leads out of the root."""


class Entry(NamedTuple):
    """
    An entry of a folder.

    @ivar name: its name.
    @ivar is_folder: whether it is a folder, or a link to one.
    @ivar size: in bytes.
    @ivar modified: when it was last modified, in seconds since 1970.
    """

    name: str
    is_folder: bool
    size: int = 0
    modified: float = 0.0


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

    Links are followed if the end is beneath C{root}.  A link could be changed between the
    look at it and the opening.  So the file is reached from C{root} name by name, none of
    which may be a link (C{openat} and O_NOFOLLOW, which POSIX has; C{/proc/self/fd} and
    C{openat2}, which would tell the same afterwards or in one call, only Linux has).  Only
    if there is a link, the path is resolved, and the walk repeated along the resolved path:
    a link met then has just been put there, and there is no file.

    Anything else is not opened, even without waiting: the writer of a FIFO would notice,
    and a device may do anything.

    @param root: the folder that nothing is opened outside of.
    @param segments: plain names: not empty, no C{.}, no C{..}, no slashes.
    @return: a descriptor and its status; the descriptor of a folder is good for
        L{entries} only.
    @raise FileNotFoundError: there is nothing, or it is neither file nor folder.
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
    # The root itself may be a link: the server's owner has chosen it.
    here = os.open(root, _PASS)
    if not segments:
        return here, os.fstat(here)
    try:
        for segment in segments[:-1]:
            there = os.open(segment, _PASS | os.O_NOFOLLOW, dir_fd=here)
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


def identities(paths: Iterable[str]) -> set[Identity]:
    """
    The identities of files, by whatever name they are come upon; and of those of their logs that
    were rotated, which C{twistd} calls C{NAME.1}, C{NAME.2} and so on.

    @param paths: the files; C{FOLDER/*.SUFFIX} is all those there whose names end so, by now.
    """
    found = set()
    for path in chain.from_iterable(map(_meant_by, paths)):
        for number in count():
            try:
                found.add(identity(os.stat(f"{path}.{number}" if number else path)))
            except OSError:
                if number:
                    break
    return found


def _meant_by(path: str) -> list[str]:
    folder, name = os.path.split(path)
    if not name.startswith("*."):
        return [path]
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [os.path.join(folder, each) for each in names if each.endswith(name[1:])]


def identity(status: os.stat_result) -> Identity:
    """What a file is known by, whatever its name."""
    return status.st_dev, status.st_ino


def entries(
    root: str, segments: Sequence[str], dotfiles: bool, withheld: Sequence[str] = ()
) -> list[Entry]:
    """
    The files and folders in the folder that C{segments} lead to, in no order.  Links that lead out
    of C{root} or nowhere, FIFOs and the like are left out.

    @param root: as L{open_beneath}'s, as are C{segments}.
    @param dotfiles: whether to include names that begin with a dot.
    @param withheld: names of files that are left out.
    @raise OSError: as L{open_beneath}; or it is not a folder, or cannot be read.
    """
    real_root = os.path.realpath(root)
    left_out = identities(withheld)
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
                    status = entry.stat()
                    is_folder = stat.S_ISDIR(status.st_mode)
                    if identity(status) in left_out:
                        continue
                    if is_folder or stat.S_ISREG(status.st_mode):
                        size, modified = status.st_size, status.st_mtime
                        found.append(Entry(entry.name, is_folder, size, modified))
                except OSError:
                    pass  # L{open_beneath} would say the same
    finally:
        os.close(reading)
    return found


class FileBody:
    """
    A file that is being sent: opened, and then read piece by piece, each time on any thread
    that is free.

    A thread that waits for a disk cannot be interrupted, but its request can end.  So
    C{close} does not wait: a thread in the middle of a call closes the file itself at the
    end of that.  Thus a descriptor is neither left open nor closed while another file may
    already have its number.

    @ivar left: how many bytes are to be read.
    """

    __slots__ = ("_busy", "_descriptor", "_lock", "_parts", "_wanted", "_withheld", "left")

    def __init__(self, withheld: Sequence[str] = ()) -> None:
        """
        @param withheld: names of files that are not opened.
        """
        self._lock = Lock()
        self._withheld = withheld
        self._descriptor: int | None = None
        #: Whether a thread is in the middle of a call.
        self._busy = False
        #: Whether neither L{close} was called nor the last piece read.
        self._wanted = True
        #: What L{read} gives: bytes as they are, and ranges of the file.
        self._parts: deque[bytes | ByteRange] = deque()
        self.left = 0

    @property
    def closed(self) -> bool:
        """Whether the file is closed, or about to be by a thread. (any thread)"""
        return not self._wanted

    def open(self, root: str, segments: Sequence[str]) -> os.stat_result:
        """
        Open the file; a folder is closed again at once.

        @param root: as L{open_beneath}'s, as are C{segments}.
        @return: the status of the file or folder.
        @raise ValueError: L{close} was called before.
        @raise OSError: as L{open_beneath}.
        """
        with self._using():
            descriptor, status = open_beneath(root, segments)
            if stat.S_ISDIR(status.st_mode):
                os.close(descriptor)
            elif self._withheld and identity(status) in identities(self._withheld):
                os.close(descriptor)
                raise FileNotFoundError(f"{segments[-1]!r} is not served")
            else:
                self._descriptor = descriptor
        return status

    def set_parts(self, parts: Iterable[bytes | ByteRange]) -> None:
        """Set what L{read} gives: bytes as they are, and ranges of the file."""
        self._parts = deque(parts)
        self.left = sum(p.size if isinstance(p, ByteRange) else len(p) for p in self._parts)

    def peek(self) -> bytes:
        """
        Read the first piece of the file, whatever L{read} gives.

        @raise ValueError: L{close} was called before.
        @raise OSError: the disk fails.
        """
        with self._using():
            assert self._descriptor is not None
            return os.pread(self._descriptor, PIECE_BYTES, 0)

    def read(self) -> bytes:
        """
        Read the next piece; the file is closed after the last.

        @return: about L{PIECE_BYTES} at most.  When the file has become shorter, all that
            there is; C{left} then stays above 0.
        @raise ValueError: L{close} was called before.
        @raise OSError: the disk fails.
        """
        pieces = []
        room = PIECE_BYTES
        with self._using():
            while self._parts and room > 0:
                part = self._parts.popleft()
                if isinstance(part, ByteRange):
                    assert self._descriptor is not None
                    data = os.pread(self._descriptor, min(part.size, room), part.start)
                    if not data:
                        self._parts.clear()
                    elif len(data) < part.size:
                        self._parts.appendleft(ByteRange(part.start + len(data), part.stop))
                else:
                    data = part
                pieces.append(data)
                room -= len(data)
            if not self._parts:
                self._wanted = False
        piece = b"".join(pieces)
        self.left -= len(piece)
        return piece

    def close(self) -> None:
        """Close the file now, or have the thread that is busy with it do so. (any thread)"""
        with self._lock:
            self._wanted = False
            if self._busy:
                return
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Mark the file as busy; close it at the end if that is wanted by then."""
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
