"""What a L{RequestParser} makes of a connection's bytes, for the tests of the wire."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from sockserve.http.h1.framing import Event, RemoteProtocolError, State
from sockserve.http.h1.head import HeadParser, RequestHead
from sockserve.http.h1.reader import RequestParser

HOST = b"Host: example.org\r\n"


@dataclass
class Exchange:
    """What one connection's bytes came to."""

    #: Each request that was read whole, with its body.
    requests: list[tuple[RequestHead, bytes]] = field(default_factory=list)
    #: The one that was not: the bytes of its body that came.
    partial: bytes | None = None
    #: What the peer did wrong, if it did.
    error: RemoteProtocolError | None = None

    @property
    def status(self) -> int | None:
        return None if self.error is None else self.error.status

    @property
    def summary(self) -> list[object]:
        """What must not depend on how the bytes were cut."""
        return [
            *(
                (head.raw, head.method, head.target, head.version, head.fields, head.length, body)
                for head, body in self.requests
            ),
            self.partial,
            self.status,
        ]


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """C{data}, cut at some places."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def exchange(
    data: bytes,
    *,
    cuts: Iterable[int] = (),
    lenient: bool = False,
    simple: bool = False,
    heads: HeadParser | None = None,
) -> Exchange:
    """
    Read a connection to its end of file as a server would that answers each request at once,
    and stops where the client would not send another.

    @param heads: the server's, which it has had other connections with; by default, a new one.
    """
    reader, seen = RequestParser(heads or HeadParser(lenient, simple)), Exchange()
    body: list[bytes] = []
    head: RequestHead | None = None

    def take(event: RequestHead | bytes | Event | None) -> bool:
        """Whether there will be more."""
        nonlocal head
        while event is not None:
            if isinstance(event, RequestHead):
                head = event
            elif isinstance(event, bytes):
                assert event, "an event that says nothing"
                body.append(event)
            else:
                assert event is Event.END
            if reader.state is State.COMPLETE:
                assert head is not None
                seen.requests.append((head, b"".join(body)))
                body.clear()
                if not head.keep_alive:
                    return False
                head = None
                reader.next_request()
            event = reader.next_event()
        return True

    try:
        for piece in pieces(data, cuts):
            if not take(reader.receive(piece)):
                return seen
        reader.feed_eof()
        take(reader.next_event())
    except RemoteProtocolError as error:
        seen.error = error
        seen.partial = b"".join(body)
        assert reader.state is State.FAILED
        assert reader.next_event() is None, "nothing follows an error"
    else:
        if reader.state is not State.COMPLETE:
            assert reader.state is State.ENDED
    return seen
