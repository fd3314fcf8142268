"""What the differential fuzzes share: records of what ran where, and servers that make them."""

import contextlib
import os
import select
import socket
import sys
import threading
import weakref
import zlib
from collections.abc import Callable

from hypothesis import HealthCheck, settings

from tests.patience import PATIENCE_SECONDS

#: What is longer is recorded by its checksum.
SHOWN_BYTES = 60

#: An exception that a test asks a method to raise.
RAISED = {
    each.__name__: each for each in (ZeroDivisionError, ConnectionResetError, SystemExit, OSError)
}


def tries(count):
    """How many conversations are tried: always the same ones, unless more are asked for."""
    asked = int(os.environ.get("FUZZ_EXAMPLES", "0"))
    return settings(
        max_examples=asked or count,
        derandomize=not asked,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


class Words:
    """Words from one side of a test to the other, by way of a pipe: children use it, too."""

    def __init__(self):
        self._reader, self._writer = os.pipe()

    def say(self, word=b"."):
        os.write(self._writer, word)

    def wait(self, sock=None):
        """Wait for a word; empty if C{sock}'s peer ends its side before."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        if sock is not None:
            poll.register(sock, select.POLLRDHUP)
        ready = [descriptor for descriptor, _ in poll.poll(PATIENCE_SECONDS * 1000)]
        assert ready, "the other side says nothing"
        return os.read(self._reader, 1) if self._reader in ready else b""

    def all(self):
        """All that has been said."""
        os.set_blocking(self._reader, False)
        said = []
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._reader, 2**16):
                said.append(part)
        return b"".join(said)

    def close(self):
        os.close(self._reader)
        os.close(self._writer)


class Record:
    """What ran, in order: on the serving thread, on another one, in a child."""

    def __init__(self):
        self._words = Words()
        #: Tells that the server has a request.
        self.begun = Words()
        self._process = os.getpid()
        self.loop = None

    def note(self, what):
        where = "worker"
        if os.getpid() != self._process:
            where = "child"
        elif threading.current_thread() is self.loop:
            where = "loop"
        self._words.say(f"{where}: {what}\n".encode())

    def lines(self):
        """What was noted; what a child did comes last, as it runs beside its parent."""
        lines = self._words.all().decode().splitlines()
        return sorted(lines, key=lambda line: line.startswith("child"))

    def close(self):
        self._words.close()
        self.begun.close()


def shown(data):
    """Bytes, or what else a call has given, for a record."""
    if isinstance(data, bytes) and len(data) > SHOWN_BYTES:
        return f"{len(data)} bytes {zlib.crc32(data):x}"
    return repr(data)


class Recorded:
    """
    A server that notes which of its methods are called, where.

    @ivar raises: what a method raises when it is called, by its name.
    @ivar keeps: takes a connection instead of having it shut down.
    """

    record: Record
    raises: dict[str, str] = {}
    verdict = True
    keeps: Callable[[socket.socket], object] | None = None

    def noted(self, name, detail=""):
        self.record.note(f"{name} {detail}".rstrip())
        if name in self.raises:
            raise RAISED[self.raises[name]](name)

    def verify_request(self, request, client_address):
        self.record.begun.say()
        if isinstance(request, socket.socket) and request.family == socket.AF_INET:
            # It is on under ours.  Without, what a close throws away depends on acknowledgements.
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.noted("verify_request")
        return self.verdict

    def process_request(self, request, client_address):
        self.noted("process_request")
        super().process_request(request, client_address)

    def handle_error(self, request, client_address):
        self.noted("handle_error", sys.exc_info()[0].__name__)

    def shutdown_request(self, request):
        self.noted("shutdown_request")
        if self.keeps:
            self.keeps(request)
        else:
            super().shutdown_request(request)

    def close_request(self, request):
        self.noted("close_request")
        super().close_request(request)


@contextlib.contextmanager
def recording(server):
    """Serve on a thread; gives the record, to which is added how the thread ended."""
    record = server.record = Record()

    def serve():
        try:
            server.serve_forever(0.002)
        except BaseException as error:
            record.note(f"serve_forever raised {type(error).__name__}")

    def excepthook(args):
        record.note(f"excepthook {args.exc_type.__name__}")

    usual, threading.excepthook = threading.excepthook, excepthook
    record.loop = threading.Thread(target=serve)
    record.loop.start()
    try:
        yield record
    finally:
        try:
            if record.loop.is_alive():
                server.shutdown()
            record.loop.join()
            server.server_close()  # waits for all that is being served
        finally:
            threading.excepthook = usual


#: Open clients: a child is to have no hold on them.
_clients: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _close_clients():
    for client in _clients:
        client.close()


os.register_at_fork(after_in_child=_close_clients)


def connect(address):
    """A client, which only this process has."""
    kind = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    client = socket.socket(kind)
    _clients.add(client)
    client.settimeout(PATIENCE_SECONDS)
    client.connect(address)
    return client
