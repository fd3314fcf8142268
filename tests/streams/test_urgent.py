"""Urgent data of a coroutine handler: its place in the stream, on its way in and out."""

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from sockserve import StreamRequestHandler
from sockserve.interfaces import Outcome
from sockserve.streams.reader import HIGH_WATER_BYTES
from sockserve.streams.urgent import READ_AHEAD_BYTES, UrgentChannel
from tests.streams.owner import CLIENT, SERVER, Owner

MakeOwner = Callable[..., Owner]


@pytest.fixture
def owner(owner: MakeOwner) -> Iterator[MakeOwner]:
    """The same, whose connections are aborted in the end: most handlers here wait on."""
    made: list[Owner] = []

    def make(*arguments: Any, **options: Any) -> Owner:
        made.append(owner(*arguments, **options))
        return made[-1]

    yield make
    for owned in made:
        owned.channel.abort()
        owned.turn()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection over loopback; the first is the server's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    for sock in (client, server):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server, client


class Waits(StreamRequestHandler):
    """Notes what is urgent, and how much was there to read before it; reads nothing."""

    def setup(self) -> None:
        super().setup()
        self.server.handler = self
        self.urgent: list[tuple[bytes, int]] = []
        self.go = Deferred[None]()

    async def handle(self) -> None:
        await self.go

    def urgent_received(self, data: bytes) -> None:
        self.urgent.append((data, self.rfile.received))


class Reads(Waits):
    """Notes all that it reads and what is urgent, in order."""

    async def handle(self) -> None:
        while data := await self.rfile.read(10):
            self.urgent.append((data, self.rfile.received))


class Interrupted(Exception):
    """What an urgent byte is to this handler."""


class Command(Waits):
    """Is interrupted by what its method raises, and then reads a line."""

    async def handle(self) -> None:
        try:
            await self.go
        except Interrupted:
            self.wfile.write(b"interrupted\n")
        self.wfile.write(await self.rfile.readline())

    def urgent_received(self, data: bytes) -> None:
        raise Interrupted


def made(owner: MakeOwner, handler: Any, **options: Any) -> Owner:
    """A TCP connection to a handler, which does not run yet."""
    owned = owner(
        handler, lambda owner: UrgentChannel(owner, (CLIENT, SERVER)), sockets=tcp_pair, **options
    )
    assert owned.client is not None
    return owned


def served(owner: MakeOwner, handler: Any, **options: Any) -> tuple[Owner, Any, Any]:
    """A connection, its handler, which runs, and the client's end."""
    owned = made(owner, handler, **options)
    owned.channel.start()
    factory: Any = owned.factory
    return owned, factory.handler, owned.client


def urge(client: Any, data: bytes) -> None:
    client.send(data, socket.MSG_OOB)


def read(handler: Any, call: Any) -> bytes:
    """What a read gives that need not wait."""
    try:
        call.send(None)
    except StopIteration as end:
        return bytes(end.value)
    raise AssertionError("it waits")


def test_an_urgent_byte_comes_at_its_place(owner: MakeOwner) -> None:
    owned, handler, client = served(owner, Waits)
    rfile = handler.rfile
    assert not rfile.at_mark()
    client.send(b"before")
    urge(client, b"!")
    client.send(b"after")
    owned.turn()
    assert handler.urgent == [(b"!", 6)]
    assert not rfile.at_mark()
    assert read(handler, rfile.read(100)) == b"before"
    assert rfile.at_mark()
    assert read(handler, rfile.read(100)) == b"after"
    assert not rfile.at_mark()


def test_each_read_but_read_itself_passes_the_mark(owner: MakeOwner) -> None:
    owned, handler, client = served(owner, Waits)
    client.send(b"one ")
    urge(client, b"!")
    client.send(b"line\nrest")
    client.shutdown(socket.SHUT_WR)
    owned.turn()
    assert read(handler, handler.rfile.readline()) == b"one line\n"
    assert not handler.rfile.at_mark()
    assert read(handler, handler.rfile.read()) == b"rest"


def test_what_came_before_can_be_skipped(owner: MakeOwner) -> None:
    owned, handler, client = served(owner, Waits)
    assert handler.rfile.skip_to_mark() == 0
    client.send(b"before")
    urge(client, b"!")
    client.send(b"after\n")
    owned.turn()
    assert handler.rfile.skip_to_mark() == 6
    assert handler.rfile.at_mark()
    assert read(handler, handler.rfile.readline()) == b"after\n"
    assert handler.rfile.skip_to_mark() == 0


@pytest.mark.parametrize("name", ["readline", "readuntil", "__anext__"])
def test_a_read_that_waits_goes_on_after_what_is_skipped(owner: MakeOwner, name: str) -> None:
    class Skips(Waits):
        async def handle(self) -> None:
            self.wfile.write(await getattr(self.rfile, name)())

        def urgent_received(self, data: bytes) -> None:
            self.rfile.skip_to_mark()

    owned, _, client = served(owner, Skips)
    client.send(b"half a long comm")
    owned.turn()
    urge(client, b"!")
    owned.turn()
    client.send(b"next\nmore\n")
    assert owned.sent() == b"next\n"


def test_one_that_comes_between_two_looks_is_none_of_the_data(owner: MakeOwner) -> None:
    """It is the first byte of what the reactor finds to read, not the last of it."""
    owned, handler, client = served(owner, Reads)
    for number in range(20):
        urge(client, b"!")
        client.send(b"%02d" % number)
        owned.turn()
    expected = [
        item
        for number in range(20)
        for item in [(b"!", 2 * number), (b"%02d" % number, 2 * number + 2)]
    ]
    assert handler.urgent == expected


def test_of_several_in_a_row_the_last_has_the_mark(owner: MakeOwner) -> None:
    """As the kernel keeps one: those before it are read as what is around them."""
    owned, handler, client = served(owner, Waits)
    client.send(b"a")
    for byte in (b"1", b"2", b"3"):
        urge(client, byte)
    client.send(b"z")
    owned.turn()
    assert handler.urgent == [(b"3", 3)]
    assert read(handler, handler.rfile.read(10)) == b"a12"
    assert handler.rfile.at_mark()
    assert read(handler, handler.rfile.read(10)) == b"z"


def test_one_at_the_very_end_comes_before_it(owner: MakeOwner) -> None:
    owned, handler, client = served(owner, Reads)
    client.send(b"last")
    urge(client, b"!")
    client.close()
    owned.turn()
    assert [data for data, _ in handler.urgent] == [b"last", b"!"]
    assert owned.outcomes[0][1] is Outcome.OK
    assert owned.is_finished


def test_one_that_came_before_the_handler_waits_for_it(owner: MakeOwner) -> None:
    owned = made(owner, Reads)
    client = owned.client
    assert client is not None
    client.send(b"early")
    urge(client, b"!")
    client.send(b"late")
    owned.turn()
    owned.channel.start()
    owned.turn()
    factory: Any = owned.factory
    assert [data for data, _ in factory.handler.urgent] == [b"early", b"!", b"late"]


def test_what_the_method_raises_is_raised_where_the_handler_waits(owner: MakeOwner) -> None:
    owned, _, client = served(owner, Command)
    urge(client, b"!")
    client.send(b"next\n")
    assert owned.sent() == b"interrupted\nnext\n"
    assert [outcome for _, outcome in owned.outcomes] == [Outcome.OK]


def test_what_nobody_catches_ends_the_handler(owner: MakeOwner) -> None:
    class Fails(Waits):
        def urgent_received(self, data: bytes) -> None:
            raise Interrupted

    owned, _, client = served(owner, Fails)
    urge(client, b"!")
    owned.turn()
    assert [type(error) for error in owned.factory.raised] == [Interrupted]
    assert [outcome for _, outcome in owned.outcomes] == [Outcome.ERROR]


def test_what_the_method_raises_after_its_handler_has_finished_is_logged(owner: MakeOwner) -> None:
    class Ends(Waits):
        def urgent_received(self, data: bytes) -> None:
            self.go.callback(None)
            raise Interrupted

    owned, _, client = served(owner, Ends)
    with capturedLogs() as events:
        urge(client, b"!")
        owned.turn()
    assert [event["log_failure"].type for event in events if "log_failure" in event] == [
        Interrupted
    ]
    assert [outcome for _, outcome in owned.outcomes] == [Outcome.OK]


def test_one_after_the_handler_has_finished_is_dropped(owner: MakeOwner) -> None:
    owned, handler, client = served(owner, Waits)
    handler.wfile.write(b"x" * 10_000_000)  # it ends later
    handler.go.callback(None)
    client.send(b"data")
    urge(client, b"!")
    owned.turn()
    assert handler.urgent == []


def test_one_behind_a_full_buffer_is_read_ahead_to(owner: MakeOwner) -> None:
    owned, handler, client = served(owner, Waits)
    client.setblocking(False)
    size = client.send(b"x" * (HIGH_WATER_BYTES * 2))
    owned.turn()
    owned.turn()
    assert HIGH_WATER_BYTES < handler.rfile.received <= size
    size += client.send(b"y" * HIGH_WATER_BYTES)
    urge(client, b"!")
    client.send(b"z" * 1000)
    owned.turn()
    assert handler.urgent == [(b"!", size)]
    assert handler.rfile.received == size  # and no further
    handler.go.callback(None)


def test_not_more_than_so_much_is_read_ahead(owner: MakeOwner) -> None:
    """Each urgent byte has more read; 10 MB of them would be no bound."""
    owned, handler, client = served(owner, Waits)
    client.setblocking(False)
    sent = 0
    for _ in range(2000):
        try:
            sent += client.send(b"x" * 10_000)
            urge(client, b"!")
        except BlockingIOError:
            pass
        owned.turn()
    assert handler.rfile.received > READ_AHEAD_BYTES
    assert handler.rfile.received < READ_AHEAD_BYTES + 2 * HIGH_WATER_BYTES
    count = len(handler.urgent)
    # Read down, it goes on.
    while handler.rfile.buffered_bytes:
        read(handler, handler.rfile.read(HIGH_WATER_BYTES))
        owned.turn()
    assert handler.rfile.received + len(handler.urgent) >= sent
    assert len(handler.urgent) > count


# Output


def received(client: socket.socket) -> list[bytes]:
    """What a client reads until it would wait, cut where the mark is; the urgent byte inline."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    client.setblocking(False)
    pieces = []
    while True:
        try:
            piece = client.recv(1 << 20)
        except BlockingIOError:
            return pieces
        if not piece:
            return pieces
        pieces.append(piece)


def test_an_urgent_byte_leaves_at_its_place(owner: MakeOwner) -> None:
    owned, handler, client = served(owner, Waits)
    handler.wfile.write(b"before")
    assert handler.wfile.write_urgent(b"!") == 1
    handler.wfile.write(b"after")
    owned.turn()
    assert received(client) == [b"before", b"!after"]
    assert handler.wfile.sent == 12


def test_one_that_waits_in_the_queue_keeps_its_place(owner: MakeOwner) -> None:
    owned, handler, client = served(owner, Waits)
    big = bytes(range(256)) * 40_000
    handler.wfile.write(big)
    handler.wfile.write_urgent(b"!")
    handler.wfile.write(b"after")
    assert handler.wfile.queued_bytes > 6
    client.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    client.setblocking(False)
    before = b""
    behind = None
    while behind is None or len(before) + len(behind) < len(big) + 6:
        owned.turn()
        try:
            is_at_mark = len(before) == len(big)
            piece = client.recv(1 << 20)
        except BlockingIOError:
            continue
        if is_at_mark or behind is not None:
            behind = (behind or b"") + piece
        else:
            before += piece
    assert before == big  # no read crosses a mark
    assert behind == b"!after"
    assert handler.wfile.is_empty()


@pytest.mark.parametrize("count", [1, 3])
def test_what_waits_behind_a_full_kernel_is_sent_when_there_is_room(
    owner: MakeOwner, count: int
) -> None:
    owned, handler, client = served(owner, Waits)
    wfile = handler.wfile
    while not wfile.queued_bytes:
        wfile.write(b"x" * 65536)
        owned.turn()
    total = wfile.sent + wfile.queued_bytes
    for _ in range(count):
        wfile.write_urgent(b"!")
        wfile.write(b"y")
    got = b""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    while len(got) < total + 2 * count:
        got += b"".join(received(client))
        owned.turn()
    assert got == b"x" * total + b"!y" * count
    assert wfile.is_empty()


def test_it_counts_as_output_that_waits(owner: MakeOwner) -> None:
    owned, handler, _ = served(owner, Waits)
    wfile = handler.wfile
    wfile.write(b"x" * 10_000_000)
    owned.turn()
    queued = wfile.queued_bytes
    assert queued > HIGH_WATER_BYTES
    wfile.write_urgent(b"!")
    assert wfile.queued_bytes == queued + 1
    with pytest.raises(AssertionError, match="it waits"):
        read(handler, wfile.drain())


@pytest.mark.parametrize("data", [b"", b"12"])
def test_it_is_one_byte(owner: MakeOwner, data: bytes) -> None:
    _, handler, _ = served(owner, Waits)
    with pytest.raises(ValueError, match="one byte"):
        handler.wfile.write_urgent(data)


def test_after_the_end_of_the_output_there_is_none(owner: MakeOwner) -> None:
    _, handler, _ = served(owner, Waits)
    handler.wfile.close()
    with pytest.raises(ValueError, match="closed stream"):
        handler.wfile.write_urgent(b"!")


def test_to_a_client_that_is_gone_it_goes_nowhere(owner: MakeOwner) -> None:
    _, handler, client = served(owner, Waits)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    handler.wfile.write_urgent(b"!")
    assert handler.wfile.is_broken()
    assert handler.wfile.queued_bytes == 0


def test_over_a_unix_socket_there_is_none(owner: MakeOwner) -> None:
    owned = owner(Waits, lambda owner: UrgentChannel(owner, (CLIENT, SERVER)))
    owned.channel.start()
    with pytest.raises(RuntimeError, match="plain TCP"):
        owned.factory.handler.wfile.write_urgent(b"!")
