"""
Names of UNIX sockets: files, or Linux's abstract names, which begin with a NUL.

This room owns how a name is written, whether anybody listens on it, and the lock file beside it.
It must not know ports or requests.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
from contextlib import suppress

from twisted.internet.error import CannotListenError

__all__ = ["NameLock", "is_abstract", "remove_stale", "unix_name"]

#: The longest name: C{sun_path} of the system's C{sockaddr_un}, but for the NUL at an end of it.
_MAX_NAME_BYTES = 107 if sys.platform == "linux" else 103


def unix_name(text: str) -> str:
    """
    The name that a description writes.

    @param text: a path; or an abstract name, with C{@} (as systemd and HAProxy write it) or a
        NUL before it.  A file whose name begins with C{@} is C{./@…}.
    @raise ValueError: it is none.
    """
    name = "\0" + text[1:] if text.startswith("@") else text
    if name in ("", "\0"):
        raise ValueError("it takes a path, or @ and a name")
    if "\0" in name and not is_abstract(name):
        raise ValueError("a path has no NUL within it")
    length = len(os.fsencode(name.removeprefix("\0")))
    if length > _MAX_NAME_BYTES:
        raise ValueError(
            f"AF_UNIX path too long: it has {length} bytes, and {_MAX_NAME_BYTES} are the most"
        )
    return name


def is_abstract(name: str | bytes) -> bool:
    """Whether a name is one of Linux's abstract ones, which are no files."""
    return os.fsencode(name).startswith(b"\0")


def remove_stale(name: str | bytes, kind: socket.SocketKind) -> None:
    """Remove the file of a socket that no process listens on any more."""
    if not is_abstract(name):
        with suppress(OSError):
            if stat.S_ISSOCK(os.stat(name).st_mode) and not _has_listener(name, kind):
                os.unlink(name)


def _has_listener(name: str | bytes, kind: socket.SocketKind) -> bool:
    """Whether a process listens on a socket of that name; yes where that is not sure."""
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        try:
            probe.connect(name)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # its queue is full, or we may not ask
            pass
    return True


class NameLock:
    """
    The lock file of a stream socket's name: C{PATH.lock}, a symbolic link whose target is the
    number of the process that holds it.  (Twisted's form, so that either heeds the other's.)

    It is stale when nobody listens on the name: what the number says now may be another process,
    or in a container this one.  Whoever takes it over looks again who listens after that, and
    whoever listens looks whether it has been taken over meanwhile (L{confirm}), so that of two
    that start at the same time one gives way.
    """

    def __init__(self, name: bytes, pid: int | None = None) -> None:
        """
        @param pid: the number of the process that holds it; None for this one.
        """
        self._name = name
        self._file = name + b".lock"
        self._pid = str(os.getpid() if pid is None else pid)

    def acquire(self) -> None:
        """
        Take the lock, and remove the socket that its last holder may have left.

        @raise CannotListenError: it is held.
        @raise OSError: there can be no such file.
        """
        while True:
            try:
                os.symlink(self._pid, self._file)
            except FileExistsError:
                pass
            else:
                remove_stale(self._name, socket.SOCK_STREAM)
                return
            holder = self._holder()
            if holder is None:  # it has just gone
                continue
            if not holder.isdigit():
                raise self._refusal("it is not a server's lock")
            if _has_listener(self._name, socket.SOCK_STREAM):
                raise self._refusal(f"process {holder} holds it")
            try:
                os.unlink(self._file)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise self._refusal(f"process {holder} has left it: {error.strerror}") from error

    def confirm(self) -> None:
        """
        Make sure that the lock is still held.

        @raise CannotListenError: another process has taken it over.
        """
        holder = self._holder()
        if holder not in (None, self._pid):
            raise self._refusal(f"process {holder} holds it")

    def release(self) -> None:
        """Let go of the lock, if it is still held."""
        with suppress(OSError, CannotListenError):
            if self._holder() == self._pid:
                os.unlink(self._file)

    def _holder(self) -> str | None:
        """The number of the process that holds the lock; None when none does."""
        try:
            return os.fsdecode(os.readlink(self._file))
        except FileNotFoundError:
            return None
        except OSError:
            raise self._refusal("it is not a server's lock") from None

    def _refusal(self, reason: str) -> CannotListenError:
        shown = f"Cannot acquire lock {os.fsdecode(self._file)!r}: {reason}"
        return CannotListenError(None, self._name, shown)
