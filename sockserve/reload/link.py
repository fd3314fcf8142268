"""
The link of a supervisor and the process that serves: messages, some with a socket.

This room owns how they are written, and how a child finds its end.  It must not know what is done
about them.
"""

from __future__ import annotations

import os
import socket
from typing import TypeAlias

import msgspec

__all__ = [
    "VARIABLE",
    "Closed",
    "Failed",
    "Go",
    "Handed",
    "Kept",
    "Link",
    "Loaded",
    "Message",
    "Ready",
    "Stop",
]

#: The variable by which a child is told of what it was L{handed<Handed>}.
VARIABLE = "_SOCKSERVE_RELOAD"

#: As L{sockserve.listeners.kept_sockets.Place}, which is not for those without Twisted.
_Place: TypeAlias = tuple[str, ...]

_READ_BYTES = 2**16
#: More than are ever sent with what is read at once.
_MOST_DESCRIPTORS = 64


class Handed(msgspec.Struct):
    """
    The descriptors that a child is handed when it starts.

    @ivar link: the descriptor of its end of the link.
    @ivar sockets: the places and descriptors of the sockets that are there.
    @ivar names: the names that are there besides.
    @ivar is_first: whether nothing was served before.
    """

    link: int
    sockets: list[tuple[_Place, int]]
    names: list[_Place]
    is_first: bool


class Loaded(msgspec.Struct, tag=True):
    """The child has imported what it is to serve; before it listens it waits for L{Go}."""


class Go(msgspec.Struct, tag=True):
    """The child is to listen; it is not ended any more before it has told how that went."""


class Kept(msgspec.Struct, tag=True):
    """The child has made a listening socket, which comes with this."""

    place: _Place


class Ready(msgspec.Struct, tag=True):
    """
    The child serves.

    @ivar adopted: the places whose sockets it has from before.
    @ivar names: the names that it has besides, from before or not.
    @ivar files: those that it was made of.
    """

    adopted: list[_Place]
    names: list[_Place]
    files: list[str]


class Failed(msgspec.Struct, tag=True):
    """
    The child cannot serve.

    @ivar files: those that it was made of, as far as it has come.
    """

    files: list[str]


class Stop(msgspec.Struct, tag=True):
    """
    Another child serves: this one is to drain.

    @ivar handed_over: the places whose sockets, and names, are the other's now.
    """

    handed_over: list[_Place]


class Closed(msgspec.Struct, tag=True):
    """The child takes no more requests."""


Message: TypeAlias = Closed | Loaded | Go | Kept | Ready | Failed | Stop

_decode = msgspec.json.Decoder(Message).decode


class Link:
    """One end of the link."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._received = b""
        self._descriptors: list[int] = []

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """
        Send a message.  Without anybody at the other end it is lost: that has its own notice.

        @param descriptor: what goes with it.
        """
        data = msgspec.json.encode(message) + b"\n"
        try:
            sent = 0
            if descriptor is not None:
                sent = socket.send_fds(self.socket, [data], [descriptor])
            self.socket.sendall(data[sent:])
        except OSError:
            pass

    def receive(self) -> list[tuple[Message, int | None]] | None:
        """
        Wait for messages.

        @return: each that has come whole, with the descriptor that goes with it; None at the end.
        """
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self.socket, _READ_BYTES, _MOST_DESCRIPTORS, flags
            )
        except OSError:
            return None
        if not data:
            return None
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._descriptors += descriptors
        *lines, self._received = (self._received + data).split(b"\n")
        return [self._whole(line) for line in lines]

    def end(self) -> None:
        """Have L{receive} find the end, after what has come. (any thread)"""
        try:
            self.socket.shutdown(socket.SHUT_RD)
        except OSError:  # it has ended
            pass

    def _whole(self, line: bytes) -> tuple[Message, int | None]:
        message = _decode(line)
        return message, self._descriptors.pop(0) if isinstance(message, Kept) else None
