"""
Random handlers and random clients, under the standard library's servers and under the drop-in
ones: the same calls in the same order on the same threads, the same bytes to the client.

A conversation is a list of phases, each with a part for the client and one for the handler,
which wait for each other; so nothing here depends on who is faster.

There is no difference to be excused: a stream's handler has its connection's own socket, and a
datagram's its datagram.  (With handlers of C{http.server}'s there is:
C{test_http_server_differential.py}.)

C{FUZZ_EXAMPLES=5000 pytest ...} tries that many conversations of each kind, other ones each
time.
"""

import contextlib
import os
import select
import socket
import socketserver
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.threads import deferToThread

import sockserve.socketserver
from tests.recording import (
    PATIENCE_SECONDS,
    RAISED,
    Recorded,
    Words,
    connect,
    recording,
    shown,
    tries,
)

pytestmark = pytest.mark.usefixtures("no_leaks")

#: How long a handler waits in vain.
VAIN_SECONDS = 0.01


# The grammar


lines = st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"-") + b"\n")
pieces = st.binary(min_size=1, max_size=30)
large = st.sampled_from([100_000, 300_000]).map(lambda size: b"x" * size)
answers = pieces | large

phases = st.one_of(
    st.tuples(st.just("line"), lines, st.integers(0, 30)),
    st.tuples(st.just("bytes"), pieces, st.integers(0, 30)),
    st.tuples(st.just("answer"), answers),
    st.tuples(st.just("write"), pieces),
    st.tuples(st.just("flush")),
    st.tuples(st.just("mark")),
    st.tuples(st.just("makefile"), st.sampled_from(["rb", "wb", "rwb"])),
    st.tuples(st.just("dup")),
    st.tuples(st.just("timeout")),
)

#: What the client does in the end, at which the handler looks.
farewells = st.one_of(
    st.just(("stay",)),
    st.just(("half-close",)),
    st.just(("leave",)),
    st.just(("reset",)),
    st.tuples(st.just("unread"), pieces | st.just(b"x" * 50_000)),
)

LEAVING = ("leave", "reset")

#: What the handler does at last.
endings = st.sampled_from(
    [
        "return",
        "raise ZeroDivisionError",
        "raise ConnectionResetError",
        "raise OSError",
        "raise SystemExit",
        "close",
        "shutdown write",
        "shutdown read",
        "shutdown both",
        "detach",
        "leave a timeout",
        "close rfile",
        "close wfile",
        "write again",
        "look",
    ]
)

#: Where else something is raised.
raising = st.sampled_from(
    [
        {"constructor": "ZeroDivisionError"},
        {"setup": "ZeroDivisionError"},
        {"setup": "SystemExit"},
        {"after setup": "OSError"},
        {"finish": "ZeroDivisionError"},
        {"after finish": "ConnectionResetError"},
    ]
)
server_raising = st.sampled_from(
    [
        {"process_request": "ZeroDivisionError"},
        {"process_request": "SystemExit"},
        {"finish_request": "ZeroDivisionError"},
        {"handle_error": "ZeroDivisionError"},
        {"shutdown_request": "OSError"},
        {"close_request": "OSError"},
        {"verify_request": "ZeroDivisionError"},
    ]
)
#: Mostly nothing.
rarely = lambda strategy: st.one_of(st.just({}), st.just({}), strategy)  # noqa: E731

conversations = st.fixed_dictionaries(
    {
        "phases": st.lists(phases, max_size=5),
        "farewell": farewells,
        "ending": endings,
        "raises": rarely(raising),
        "server_raises": rarely(server_raising),
        "verdict": st.sampled_from([True] * 9 + [False]),
        "keeps": st.sampled_from([False] * 9 + [True]),
        "overrides": st.sampled_from(["", "", "finish_request", "process_request_thread"]),
        "attributes": st.fixed_dictionaries(
            {},
            optional={
                "rbufsize": st.sampled_from([0, 1, 4096]),
                "wbufsize": st.sampled_from([-1, 1, 8192]),
                "timeout": st.just(PATIENCE_SECONDS),
                "disable_nagle_algorithm": st.just(True),
            },
        ),
        "bare": st.booleans(),
    }
)


def is_calm(talk):
    """
    Whether the handler gets through, and reads all that it is to read.

    Else it depends on who is faster whether the server's close finds something unread, and so
    whether the client's kernel hears of the end by a FIN or by a RST, which also throws away
    what is on its way.
    """
    quiet = not talk["raises"] and not talk["server_raises"] and talk["verdict"]
    reads_on = ("timeout",) not in talk["phases"]
    return quiet and reads_on and talk["farewell"][0] in ("stay", "half-close")


# The handler


class Failing:
    """Fails where it is asked to, before or after what it does there."""

    talk: dict

    def __init__(self, request, client_address, server):
        self.note = server.record.note
        self.note("constructor")
        self.fail("constructor")
        super().__init__(request, client_address, server)

    def fail(self, where):
        raises = self.talk["raises"]
        if where in raises:
            raise RAISED[raises[where]](where)

    def setup(self):
        self.note("setup")
        self.fail("setup")
        super().setup()
        self.fail("after setup")

    def finish(self):
        self.note("finish")
        self.fail("finish")
        super().finish()
        self.fail("after finish")


class Conversing(Failing):
    """Does its part of a conversation."""

    to_client: Words
    from_client: Words

    def setup(self):
        self.note(self.request.gettimeout())
        super().setup()

    def handle(self):
        self.note("handle")
        for name, *given_ in self.talk["phases"]:
            self.attempt(name, *given_)
        self.attempt(*self.talk["farewell"])
        ending = self.talk["ending"]
        if ending.startswith("raise "):
            raise RAISED[ending.partition(" ")[2]]
        self.attempt(ending)

    def attempt(self, name, *given_):
        """Do something; note what it gives, or raises."""
        try:
            result = getattr(self, "do_" + name.replace(" ", "_").replace("-", "_"))(*given_)
        except Exception as error:
            result = f"{type(error).__name__} {getattr(error, 'errno', None)}"
        self.note(f"{name}: {shown(result)}")

    def do_line(self, data, _):
        return self.rfile.readline()

    def do_bytes(self, data, _):
        read = b""
        # Without a buffer it gives what there is.
        while len(read) < len(data) and (part := self.rfile.read(len(data) - len(read))):
            read += part
        return read

    def do_answer(self, data):
        if not is_calm(self.talk):
            data = data[:1000]
        self.wfile.write(data)
        self.wfile.flush()

    def do_write(self, data):
        return self.wfile.write(data)

    def do_flush(self):
        self.wfile.flush()

    def do_mark(self):
        self.to_client.say()

    def do_makefile(self, mode):
        self.file = self.request.makefile(mode)
        if mode != "rb":
            self.file.write(b"by another file")
            self.file.flush()

    def do_dup(self):
        self.copy = self.request.dup()
        self.copy.sendall(b"by a copy")

    def do_timeout(self):
        before = self.request.gettimeout()
        self.request.settimeout(VAIN_SECONDS)
        try:
            return self.rfile.readline()
        finally:
            self.request.settimeout(before)
            self.to_client.say()

    def do_stay(self):
        pass

    def do_half_close(self):
        return self.rfile.read()

    def do_leave(self):
        self.to_client.say()
        self.from_client.wait()
        return self.rfile.read()

    def do_reset(self):
        self.to_client.say()
        self.from_client.wait()
        poll = select.poll()
        poll.register(self.request, 0)
        hung_up = poll.poll(PATIENCE_SECONDS * 1000)
        self.note(f"hung up: {hung_up[0][1]}")
        return self.rfile.read()

    def do_unread(self, data):
        self.to_client.say()
        self.from_client.wait()
        return self.request.recv(len(data), socket.MSG_PEEK | socket.MSG_WAITALL)

    def do_return(self):
        pass

    def do_close(self):
        self.request.close()

    def do_shutdown_write(self):
        self.request.shutdown(socket.SHUT_WR)

    def do_shutdown_read(self):
        self.request.shutdown(socket.SHUT_RD)

    def do_shutdown_both(self):
        self.request.shutdown(socket.SHUT_RDWR)

    def do_detach(self):
        os.close(self.request.detach())

    def do_leave_a_timeout(self):
        self.request.settimeout(VAIN_SECONDS)

    def do_close_rfile(self):
        self.rfile.close()

    def do_close_wfile(self):
        self.wfile.close()

    def do_write_again(self):
        self.wfile.write(b"first")
        self.request.close()
        self.wfile.write(b"second")

    def do_look(self):
        """What is true of a connection that has just been accepted."""
        request = self.request
        return (
            type(request).__name__,
            request.family.name,
            request.type.name,
            request.getblocking(),
            request.get_inheritable(),
            type(self.client_address).__name__,
            self.client_address[:1],
            request.getsockname() == self.server.server_address,
        )


class Streaming(Conversing, socketserver.StreamRequestHandler):
    """Has both files."""


class Bare(Conversing, socketserver.BaseRequestHandler):
    """Has nothing but a socket, in the place of both files."""

    @property
    def rfile(self):
        return self

    wfile = rfile

    def readline(self):
        line = b""
        while not line.endswith(b"\n") and (byte := self.request.recv(1)):
            line += byte
        return line

    def read(self, size=None):
        data = b""
        while (size is None or len(data) < size) and (
            part := self.request.recv(65536 if size is None else size - len(data))
        ):
            data += part
        return data

    def write(self, data):
        self.request.sendall(data)

    def flush(self):
        pass

    def close(self):
        self.request.close()


# The client


class Client:
    """
    Does the other part.

    What the handler sends is read meanwhile, unless the client is to close: then nothing is,
    so that it is the same each time what is lost.
    """

    def __init__(self, address, talk, to_handler, from_handler):
        self.sock = connect(address)
        self.talk = talk
        self.to_handler = to_handler
        self.from_handler = from_handler
        self.received = b""
        self.end = "it closes"

    def run(self):
        """What is received, and how it ends."""
        leaves = self.talk["farewell"][0] in LEAVING
        reader = threading.Thread(target=self.read)
        with self.sock:
            if not leaves:
                reader.start()
            for name, *given_ in [*self.talk["phases"], self.talk["farewell"]]:
                getattr(self, "do_" + name.replace("-", "_"))(*given_)
            if not leaves:
                reader.join()
        self.to_handler.say()
        if self.end in ("end of file", "reset") and not is_calm(self.talk):
            self.end = "one or the other"
        return shown(self.received), self.end

    def read(self):
        try:
            while part := self.sock.recv(65536):
                self.received += part
            self.end = "end of file"
        except ConnectionResetError:
            self.end = "reset"
        except TimeoutError:
            self.end = "never"

    def send(self, data):
        with contextlib.suppress(ConnectionError):  # it has been sent away before
            self.sock.sendall(data)

    def do_line(self, data, cut):
        self.send(data[:cut])
        self.send(data[cut:])

    do_bytes = do_line

    def do_mark(self):
        self.from_handler.wait(self.sock)

    do_timeout = do_mark

    def nothing(self, *given_):
        pass

    do_answer = do_write = do_flush = do_makefile = do_dup = do_stay = nothing

    def do_half_close(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def do_unread(self, data):
        self.from_handler.wait(self.sock)  # nothing of it gets into a buffer of a file's
        self.send(data)
        self.to_handler.say()

    def do_leave(self):
        self.from_handler.wait(self.sock)

    def do_reset(self):
        self.from_handler.wait(self.sock)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# Running


def serve_and_talk(module, kind, talk, folder):
    """What is received, how it ends, and what ran."""
    with contextlib.ExitStack() as stack:
        to_client, from_client = Words(), Words()
        stack.callback(to_client.close)
        stack.callback(from_client.close)
        attributes = {**talk["attributes"], "talk": talk}
        attributes |= {"to_client": to_client, "from_client": from_client}
        raises = talk["server_raises"]
        if "Forking" in kind and "close_request" in raises:
            raises = {}  # the parent ends the connection then, while the child goes on
        methods = {"raises": raises, "verdict": talk["verdict"]}
        if talk["overrides"]:
            methods[talk["overrides"]] = noted(talk["overrides"])
        base = getattr(module, kind)
        address = ("127.0.0.1", 0)
        if "Unix" in kind:
            attributes["disable_nagle_algorithm"] = False  # there is none to be disabled
            address = str(folder / "socket")
            stack.callback(os.unlink, address)
        handler = type("Handler", (Bare if talk["bare"] else Streaming,), attributes)
        server = type("Server", (Recorded, base), methods)(address, handler)
        if talk["keeps"] and "Forking" not in kind:
            server.keeps = keeping(stack)
        with recording(server) as record:
            stack.callback(record.close)
            client = Client(server.server_address, talk, from_client, to_client)
            heard = client.run()
            record.begun.wait()
        return heard, record.lines()


def noted(name):
    def method(self, request, client_address):
        self.noted(name)
        return getattr(super(type(self), self), name)(request, client_address)

    return method


def keeping(stack):
    """Have a connection live on after it was served."""

    def keep(request):
        def live_on():
            with request, contextlib.suppress(OSError):
                request.sendall(b"later")

        thread = threading.Thread(target=live_on)
        thread.start()
        stack.callback(thread.join)

    return keep


EXAMPLES = {
    "ThreadingTCPServer": 250,
    "TCPServer": 60,
    "ThreadingUnixStreamServer": 100,
    "ForkingTCPServer": 40,
}


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # an override may forget to close
@pytest.mark.parametrize("kind", EXAMPLES)
async def test_streams(kind, tmp_path):
    @tries(EXAMPLES[kind])
    @given(conversations)
    def check(talk):
        expected = serve_and_talk(socketserver, kind, talk, tmp_path)
        assert serve_and_talk(sockserve.socketserver, kind, talk, tmp_path) == expected

    await deferToThread(check)


# Datagrams

datagram_steps = st.one_of(
    st.tuples(st.just("read"), st.integers(-1, 40)),
    st.tuples(st.just("readline")),
    st.tuples(st.just("write"), pieces),
    st.tuples(st.just("sendto"), pieces),
    st.tuples(st.just("look")),
    st.tuples(st.just("raise"), st.sampled_from([*RAISED])),
)

datagrams = st.fixed_dictionaries(
    {
        "data": st.binary(max_size=60) | st.just(b"x" * 8192) | st.just(b"x" * 9000),
        "steps": st.lists(datagram_steps, max_size=4),
        "raises": rarely(raising),
        "server_raises": rarely(st.just({"process_request": "ZeroDivisionError"})),
        "verdict": st.sampled_from([True] * 9 + [False]),
    }
)


class Answering(Failing, socketserver.DatagramRequestHandler):
    """Does what is asked of it with a datagram, then the next thing with the next one."""

    def __init__(self, request, client_address, server):
        self.talk = server.talk
        super().__init__(request, client_address, server)

    def handle(self):
        for name, *given_ in self.talk["steps"]:
            self.note(f"{name}: {shown(getattr(self, 'do_' + name)(*given_))}")

    def do_read(self, size):
        return self.rfile.read(size)

    def do_readline(self):
        return self.rfile.readline()

    def do_write(self, data):
        return self.wfile.write(data)

    def do_sendto(self, data):
        return self.socket.sendto(data, self.client_address)

    def do_look(self):
        return (
            [type(each).__name__ for each in self.request],
            len(self.packet),
            self.socket is self.server.socket,
            self.client_address == self.server.client,
        )

    def do_raise(self, name):
        raise RAISED[name](name)


def serve_packets(module, kind, packets):
    """What is received for each, and what ran."""
    with contextlib.ExitStack() as stack:
        done = Words()
        stack.callback(done.close)

        class Server(Recorded, getattr(module, kind)):
            def close_request(self, request):
                super().close_request(request)
                done.say()

        server = Server(("127.0.0.1", 0), Answering)
        client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        client.bind(("127.0.0.1", 0))
        server.client = client.getsockname()
        received = []
        with recording(server) as record:
            stack.callback(record.close)
            for packet in packets:
                server.talk = packet
                server.raises, server.verdict = packet["server_raises"], packet["verdict"]
                client.sendto(packet["data"], server.server_address)
                done.wait()
                with contextlib.suppress(BlockingIOError):
                    while True:
                        received.append(client.recv(2**16, socket.MSG_DONTWAIT))
                if "SystemExit" in str(packet):
                    break  # it ends the thread, which may be that of serve_forever, after all that
        return received, record.lines()


@pytest.mark.parametrize("kind", ["UDPServer", "ThreadingUDPServer"])
async def test_datagrams(kind):
    @tries(100)
    @given(st.lists(datagrams, max_size=3))
    def check(packets):
        expected = serve_packets(socketserver, kind, packets)
        assert serve_packets(sockserve.socketserver, kind, packets) == expected

    await deferToThread(check)
