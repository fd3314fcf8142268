"""
The explanation of an unchanged program's servers: a line for each as it begins to serve, and in
the end for those that never did.

This room owns the words.  It must not know how they are said, nor decide what they tell of
(L{sockserve.dropin.serving_way}).
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from socket import SOCK_STREAM
from typing import Any
from weakref import ReferenceType, ref

from typing_extensions import override

from sockserve.core.handler_kinds import unwrap
from sockserve.dropin.server_object import ServerObject
from sockserve.dropin.serving_way import ServingWay, WayKind, serving_way
from sockserve.dropin.settings import DEFAULT_MAX_THREADS
from sockserve.dropin.witness import Witness, call_witness

__all__ = ["Explanation", "explain", "words"]


def explain(tell: Callable[[str], object]) -> None:
    """
    Explain the servers of this program from now on.

    @param tell: called with each line.
    """
    explanation = Explanation(tell)
    call_witness(explanation)
    atexit.register(explanation.end)


class Explanation(Witness):
    """
    The explanation of all servers of a process.

    @param tell: called with each line.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._process = os.getpid()
        #: What was said of each server that there is, empty if nothing, by its id: not all have a
        #: hash.
        self._said: dict[int, tuple[ReferenceType[ServerObject], str]] = {}

    @override
    def server_made(self, server: ServerObject) -> None:
        self._note(server, "")

    @override
    def serving_began(self, server: ServerObject, is_loop: bool) -> None:
        line = f"{_name(server)}: {words(server, serving_way(server, is_loop))}"
        known = self._said.get(id(server))
        if known is None or known[1] != line:
            self._note(server, line)
            self._tell(line)

    def _note(self, server: ServerObject, line: str) -> None:
        """Note what was said of a server, as long as it is there."""
        key = id(server)
        self._said[key] = ref(server, lambda _: self._said.pop(key, None)), line

    def end(self) -> None:
        """Tell of the servers that are still there, and have run none of the loops."""
        if os.getpid() != self._process:
            return
        for reference, line in list(self._said.values()):
            server = reference()
            if server is not None and not line:
                why = "neither serve_forever nor handle_request was called"
                self._tell(f"{_name(server)}: by itself: {why}")


def words(server: ServerObject, way: ServingWay) -> str:
    """The words for the way in which a server's requests are served."""
    why = f": {way.why}" if way.why else ""
    is_stream = getattr(server, "socket_type", SOCK_STREAM) == SOCK_STREAM
    each = "connection" if is_stream else "datagram"
    if way.kind is WayKind.THREADS:
        threads = f"threads, {getattr(server, 'max_threads', DEFAULT_MAX_THREADS)} at most"
        if way.is_parked:
            return f"{threads}, each for a request; HTTP connections are parked in between{why}"
        return f"{threads}, each for a {each}{why}"
    if way.kind is WayKind.SERIAL:
        if way.is_parked:
            return f"serial, request by request; HTTP connections are parked in between{why}"
        return f"serial, {each} by {each}{why}"
    if way.kind is WayKind.FORKED:
        return f"forked, a child for each {each}"
    return f"{way.kind.value}{why}"


def _name(server: ServerObject) -> str:
    """A server, its address and its handler."""
    address: Any = getattr(server, "server_address", None)
    if isinstance(address, tuple) and len(address) > 1:
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        address = f"{host}:{address[1]}"
    handler = unwrap(getattr(server, "RequestHandlerClass", None))
    return f"{_dotted(type(server))} on {address}, with {_dotted(handler)}"


def _dotted(value: object) -> str:
    name = getattr(value, "__qualname__", None)
    return repr(value) if name is None else f"{getattr(value, '__module__', '')}.{name}"
