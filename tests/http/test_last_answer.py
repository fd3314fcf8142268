"""The last answers of guarded handlers, on socketpairs: what is changed, and what is left alone."""

import io
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from sockserve.core.deadlines import Deadlines
from sockserve.core.drain_notice import DrainNotice
from sockserve.http.guarded import make_and_run_guarded

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
CLOSE = b"Connection: close\r\n"


class Handler(BaseHTTPRequestHandler):
    """
    Sends its pieces.

    @cvar before: called before the last of them.
    """

    protocol_version = "HTTP/1.1"
    pieces = (HEAD + b"\r\nok",)

    def before(self):
        """Nothing."""

    def do_GET(self):
        *most, last = self.pieces
        for piece in most:
            self.wfile.write(piece)
        self.before()
        assert self.wfile.write(last) == len(last)

    do_CONNECT = do_HEAD = do_GET

    def log_message(self, format, *arguments):
        self.server.append(format % arguments)


def handler(**attributes):
    return type("Derived", (Handler,), attributes)


@contextmanager
def serving(make, request=GET, *, quiet=30.0, given=True, reaches=True, log=None):
    """
    Serve a client that has sent C{request}.

    @param reaches: whether the notice has a descriptor, as for children.
    """
    notice = DrainNotice(Deadlines(quiet=quiet))
    client, served = socket.socketpair()
    client.settimeout(10)

    def serve():
        with served, notice.for_this_thread():
            make_and_run_guarded(make, served, ("192.0.2.1", 1), [] if log is None else log)

    with client:
        client.sendall(request)
        if reaches:
            notice.reach_children()
        if given:
            notice.give()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield client, notice
        finally:
            client.close()
            thread.join()
            notice.close()


def said(make, request=GET, **options):
    """All that a client is answered that has sent C{request}, and waits for the end."""
    with serving(make, request, **options) as (client, _):
        return read_all(client)


def read_all(client):
    parts = []
    while part := client.recv(2**16):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("reaches", [True, False])
def test_it_says_so(reaches):
    assert said(Handler, reaches=reaches) == HEAD + CLOSE + b"\r\nok"
    assert said(Handler, GET * 2, reaches=reaches) == HEAD + b"\r\nok" + HEAD + CLOSE + b"\r\nok"


@pytest.mark.parametrize(
    ("pieces", "answer"),
    [
        ([HEAD, b"\r\n", b"ok"], HEAD + CLOSE + b"\r\nok"),
        ([HEAD + b"\r", b"\nok"], None),
        ([HEAD + b"\r\n", b"ok"], HEAD + CLOSE + b"\r\nok"),
        ([HEAD[:5], HEAD[5:20], HEAD[20:] + b"\r\nok"], HEAD + CLOSE + b"\r\nok"),
        ([b"HTTP/1.1 103 X\r\n\r\n", HEAD + b"\r\nok"], None),
        ([HEAD + b"Connection: Keep-Alive\r\n\r\nok"], HEAD + CLOSE + b"\r\nok"),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], b"HTTP/1.1 204 No Content\r\n" + CLOSE + b"\r\n"),
        ([b"what is this\r\n\r\n"], b"what is this\r\n\r\n"),
    ],
)
def test_however_its_head_is_written(pieces, answer):
    """In the middle of the empty line it is too late; then the next answer is the last."""
    if pieces[0].startswith(b"HTTP/1.1 103"):
        answer = pieces[0] + HEAD + CLOSE + b"\r\nok"
    elif answer is None:
        answer = b"".join(pieces)
    assert said(handler(pieces=pieces), quiet=0.01) == answer


def test_one_that_says_so_itself_or_must_not_go_on_is_left_as_it_is():
    def ends(self):
        self.close_connection = True
        Handler.do_GET(self)

    assert said(handler(do_GET=ends)) == HEAD + b"\r\nok"
    assert said(handler(protocol_version="HTTP/1.0")) == HEAD + b"\r\nok"
    closes = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert said(Handler, closes) == HEAD + b"\r\nok"


def test_what_follows_a_switch_of_protocols_is_no_http():
    def switches(self):
        Handler.do_GET(self)
        self.wfile.write(self.rfile.readline())
        self.close_connection = True

    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    connect = b"HTTP/1.1 200 OK\r\n\r\n"
    for request, answer in [(GET, switch), (GET.replace(b"GET /", b"CONNECT a:1"), connect)]:
        make = handler(pieces=[answer], do_GET=switches, do_CONNECT=switches)
        with serving(make, request) as (client, _):
            assert client.recv(len(answer), socket.MSG_WAITALL) == answer
            client.sendall(b"line\n")
            assert read_all(client) == b"line\n"


def test_a_loop_of_the_programs_own_finds_no_more():
    class Stubborn(Handler):
        def handle(self):
            for _ in range(3):
                self.close_connection = False
                self.handle_one_request()

    assert said(Stubborn) == HEAD + CLOSE + b"\r\nok"


def test_what_comes_behind_it_does_not_reset_the_connection():
    """It comes when its head has been written, and before the connection is closed."""
    clients = []
    pieces = [HEAD + b"\r\n", b"ok"]
    make = handler(pieces=pieces, before=lambda self: clients[0].sendall(GET * 100))
    with serving(make, b"") as (client, _):
        clients.append(client)
        client.sendall(GET)
        assert read_all(client) == HEAD + CLOSE + b"\r\nok"
        client.shutdown(socket.SHUT_WR)  # which it waits for


def test_who_has_been_quiet_is_let_go():
    """0.05 s (quiet)."""
    with serving(Handler, b"", given=False, quiet=0.05) as (client, notice):
        client.sendall(GET)
        assert client.recv(100) == HEAD + b"\r\nok"
        notice.give()
        assert client.recv(100) == b""


def test_who_asks_within_that_is_answered():
    with serving(Handler, given=False) as (client, notice):
        assert client.recv(100) == HEAD + b"\r\nok"
        notice.give()
        client.sendall(GET[:10])
        client.sendall(GET[10:])
        assert read_all(client) == HEAD + CLOSE + b"\r\nok"


@pytest.mark.parametrize("given", [False, True])
def test_a_timeout_of_the_handlers_own_applies(given):
    """0.05 s."""
    log = []
    said(handler(timeout=0.05), b"" if given else GET, given=False, log=log)
    assert log == ["Request timed out: TimeoutError('timed out')"]


def test_without_a_descriptor_the_client_is_waited_for():
    with serving(Handler, given=False, reaches=False) as (client, notice):
        assert client.recv(100) == HEAD + b"\r\nok"
        notice.give()
        client.sendall(GET)
        assert read_all(client) == HEAD + CLOSE + b"\r\nok"


@pytest.mark.parametrize(
    ("name", "answer"),
    [("rfile", HEAD + CLOSE + b"\r\nok"), ("connection", HEAD + b"\r\nok")],
)
def test_files_of_the_programs_own_are_not_waited_for(name, answer):
    """They may have what the socket has not.  (And of no socket nothing is known.)"""

    class Owns(Handler):
        def handle(self):
            setattr(self, name, io.BytesIO(GET))
            super().handle()

    with serving(Owns, b"" if name == "rfile" else GET) as (client, _):
        assert client.recv(len(answer), socket.MSG_WAITALL) == answer


def test_a_client_that_ends_its_side_has_its_answer():
    with serving(Handler, b"", given=False) as (client, _):
        client.sendall(GET)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == HEAD + b"\r\nok"
