"""The socket of C{http.server}'s handlers: what they may do with it, and how they leave it."""

import io
import os
import select
import shutil
import socket

import pytest

from tests.integration.http_clients import client, get, whole
from tests.integration.http_handlers import ONE_OF_EACH, Stock
from tests.integration.servers import (
    counts,
    description,
    in_thread,
    serving,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

# Its socket is one


def names(handler):
    peer, own = handler.connection.getpeername(), handler.connection.getsockname()
    assert peer == handler.client_address == handler.request.getpeername()
    return repr((peer, own))


def selects(handler):
    return select.select([], [handler.connection], [], 0)[1] == [handler.connection]


def controls(handler):
    import fcntl

    return not fcntl.fcntl(handler.connection, fcntl.F_GETFL) & os.O_NONBLOCK


def has_options(handler):
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    handler.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return handler.connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def times_out(handler):
    handler.connection.settimeout(0.01)
    try:
        handler.connection.recv(1)
    except TimeoutError:
        handler.connection.settimeout(None)
        return True


@pytest.mark.parametrize("kind", ONE_OF_EACH)
@pytest.mark.parametrize("look", [names, selects, controls, has_options, times_out])
async def test_the_connection_is_a_real_socket(look, kind, tmp_path):
    class Handler(Stock):
        def do_GET(self):
            assert isinstance(self.connection, socket.socket)
            assert os.fstat(self.connection.fileno())
            self.answer(str(look(self)).encode())

    async with serving(Handler, description(kind, tmp_path)) as server:

        def talk():
            with client(server.server_address, kind) as one:
                answers = [one.ask(get()).body for _ in range(2)]
                return answers, one.socket.getsockname()

        answers, own = await in_thread(talk)
    expected = repr((own, server.server_address)) if look is names else None
    for answer in answers:
        assert answer.decode() == expected if expected else answer in (b"True", b"1")


# Ways to send.  `handler.size` is what the client is told to expect.


def by_write(handler, body):
    handler.wfile.write(body)


def by_sendall(handler, body):
    handler.connection.sendall(body)


def by_send(handler, body):
    view = memoryview(body)
    while view:
        view = view[handler.connection.send(view) :]


def by_a_file(handler, body):
    with handler.connection.makefile("wb") as wfile:
        wfile.write(body)


def by_descriptor(handler, body):
    view = memoryview(body)
    while view:
        view = view[os.write(handler.connection.fileno(), view) :]


def by_sendfile(handler, body):
    import tempfile

    with tempfile.TemporaryFile() as file:
        file.write(body)
        file.seek(0)
        assert handler.connection.sendfile(file) == len(body)


def by_copyfileobj(handler, body):
    shutil.copyfileobj(io.BytesIO(body), handler.wfile)


def by_text(handler, body):
    text = io.TextIOWrapper(handler.wfile, "latin-1", newline="")
    text.write(body.decode("latin-1"))
    text.detach()


def by_sendmsg(handler, body):
    view = memoryview(body)
    while view:
        view = view[handler.connection.sendmsg([view]) :]


WAYS = [
    by_write,
    by_sendall,
    by_send,
    by_a_file,
    by_descriptor,
    by_sendfile,
    by_copyfileobj,
    by_text,
    by_sendmsg,
]


@pytest.mark.parametrize("wbufsize", [0, 4096])
@pytest.mark.parametrize("kind", ONE_OF_EACH)
@pytest.mark.parametrize("send", WAYS)
async def test_ways_to_send(send, kind, wbufsize, tmp_path):
    body = bytes(range(256)) * 4096  # 1 MiB: more than buffers take at once

    class Handler(Stock):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.flush()
            send(self, body)

    Handler.wbufsize = wbufsize
    async with serving(Handler, description(kind, tmp_path)) as server:

        def talk():
            with client(server.server_address, kind) as one:
                return [one.ask(get()).body == body for _ in range(2)]

        assert await in_thread(talk) == [True, True]


# How a handler leaves its connection


def closes(handler):
    handler.connection.close()


def shuts(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


def shuts_output(handler):
    handler.connection.shutdown(socket.SHUT_WR)
    handler.close_connection = True


def detaches(handler):
    os.close(handler.connection.detach())


def raises(handler):
    raise ZeroDivisionError("on purpose")


def exits(handler):
    raise SystemExit


@pytest.mark.parametrize("kind", ONE_OF_EACH)
@pytest.mark.parametrize("leave", [closes, shuts, shuts_output, detaches, raises, exits])
async def test_a_handler_ends_the_connection(leave, kind, tmp_path, errors):
    class Handler(Stock):
        def do_GET(self):
            self.answer(b"answer")
            leave(self)

    async with serving(Handler, description(kind, tmp_path)) as server:
        answer = await in_thread(whole, server.server_address, get() + get(), kind)
        assert answer.count(b"HTTP/1.1") == 1
        assert answer.endswith(b"\r\n\r\nanswer")
        await until(lambda: not server.statistics.active)
        assert server.statistics.errors == (leave is raises)
    if leave is raises:
        (error,) = errors
        assert "ZeroDivisionError: on purpose" in error
        errors.clear()


async def test_a_handler_that_raises_before_it_has_answered(errors):
    class Handler(Stock):
        def do_GET(self):
            raises(self)

    async with serving(Handler) as server:
        # As the stdlib: no answer at all.
        assert await in_thread(whole, server.server_address, get()) == b""
        assert counts(server)["errors"] == 1
    errors.clear()
