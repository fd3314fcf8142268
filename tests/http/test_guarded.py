"""Guarded handlers on socketpairs: what is looked at, and what is left alone."""

import functools
import gc
import http.server
import io
import os
import re
import socket
import socketserver
import sys
import weakref

import pytest
from twisted.logger import capturedLogs, formatEvent

from sockserve.http.guarded import make_and_run_guarded

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
DOUBTFUL = b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer()

    def answer(self, *fields):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format, *arguments):
        self.server.append(format % arguments)


def said(make, request, log=None, run=make_and_run_guarded):
    """What a client is answered that has sent C{request}, and ended its side."""
    client, served = socket.socketpair()
    with client, served:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        try:
            run(make, served, ("192.0.2.1", 1), [] if log is None else log)
        finally:
            assert type(served) is socket.socket
            served.close()
        parts = []
        while part := client.recv(2**16):
            parts.append(part)
        return b"".join(parts)


def statuses(answer):
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", answer)]


def test_a_refusal_is_logged_as_the_handlers_own_are():
    log = []
    assert statuses(said(Handler, DOUBTFUL + GET, log)) == [400]
    assert log == [
        "code 400, message a target is ASCII; other characters are percent-encoded",
        '"GET /é HTTP/1.1" 400 -',
    ]


def test_a_head_that_is_cut_short_is_refused():
    assert statuses(said(Handler, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Le")) == [400]
    assert statuses(said(Handler, b"GET / HTTP/1.1\r\n")) == [400]
    assert said(Handler, b"GET /\r\n").endswith(b"ok")  # of HTTP/0.9, which has no more


@pytest.mark.parametrize("last", [GET, b""])
def test_an_answer_whose_head_has_no_end_is_told_of(last):
    class Forgets(Handler):
        def do_GET(self):
            self.send_response(200)

    with capturedLogs() as logged:
        said(Forgets, GET + last)
    assert [formatEvent(event).partition(": ")[2] for event in logged] == [
        "GET /: no response was sent: end_headers was not called"
    ]


def test_a_loop_that_never_ends_finds_no_more_after_a_refusal():
    class Stubborn(Handler):
        def handle(self):
            self.raw_requestline = b"-"
            while self.raw_requestline:
                self.handle_one_request()

    for request in (DOUBTFUL, DOUBTFUL.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")):
        assert statuses(said(Stubborn, GET + request + GET)) == [200, 400]


def test_what_comes_before_a_request_is_the_handlers():
    """Such as a header of a proxy's, and what C{parse_request} reads behind the head."""

    class BehindProxy(Handler):
        def parse_request(self):
            assert self.raw_requestline == b"PROXY\xff\r\n"
            assert self.rfile.readline() == b"\xff\n"
            self.raw_requestline = self.rfile.readline(65537)
            parsed = super().parse_request()
            assert self.rfile.readline() == b"Be : hind\r\n"
            return parsed

    before, behind = b"PROXY\xff\r\n\xff\n", b"Be : hind\r\n"
    assert statuses(said(BehindProxy, before + GET + behind)) == [200]
    assert statuses(said(BehindProxy, before + DOUBTFUL + behind)) == [400]


@pytest.mark.parametrize("line", [None, b"OPTIONS rtsp://a/\xe9 RTSP/1.0\r\n", DOUBTFUL])
@pytest.mark.parametrize("reads", [False, True])
def test_a_parser_of_the_programs_own_reads_what_it_likes(line, reads):
    """Of another protocol, or none of the head."""

    class Parses(Handler):
        def parse_request(self):
            self.raw_requestline = line
            self.requestline, self.command = "", "GET"
            self.request_version, self.close_connection = "HTTP/1.1", True
            while reads and line != DOUBTFUL and self.rfile.readline().strip():
                pass
            return True

        def do_GET(self):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n")
            raise SystemExit

    def run(*arguments):
        with pytest.raises(SystemExit):
            make_and_run_guarded(*arguments)

    assert statuses(said(Parses, DOUBTFUL, run=run)) == [200]


@pytest.mark.parametrize("space", [b"\x85", b"\xa0", b"\x1c"])
def test_white_space_that_only_http_server_knows_leaves_a_doubt(space):
    for line in (b"GET / %bHTTP/1.1", b"GET /%bHTTP/1.1", b"GET / HTTP/1.1%b", b"GET %b/ HTTP/1.1"):
        assert 400 in statuses(said(Handler, line % space + b"\r\nHost: a\r\n\r\n" + GET)), line


def test_files_of_the_programs_own_are_left_alone():
    class File:
        __slots__ = ("close", "closed", "flush", "read", "readline", "write")

        def __init__(self, file):
            self.closed = False
            for name in ("close", "flush", "read", "readline", "write"):
                setattr(self, name, getattr(file, name))

    class OwnFiles(Handler):
        def setup(self):
            super().setup()
            self.rfile, self.wfile = File(self.rfile), File(self.wfile)

        def do_GET(self):
            self.answer(("Transfer-Encoding", "chunked"))
            raise SystemExit

    def run(*arguments):
        with pytest.raises(SystemExit):
            make_and_run_guarded(*arguments)

    assert statuses(said(OwnFiles, DOUBTFUL, run=run)) == [200]


def test_a_request_that_is_no_connection_is_left_alone():
    class InMemory(Handler):
        def setup(self):
            self.rfile, self.wfile = self.request

    files = io.BytesIO(DOUBTFUL), io.BytesIO()
    InMemory.finish = lambda self: None
    make_and_run_guarded(InMemory, files, "nobody", [])
    assert statuses(files[1].getvalue()) == [200]


def factory(*arguments):
    return Handler(*arguments)


class Meta(type):
    def __call__(cls, *arguments):
        return super().__call__(*arguments)


class OfMeta(Handler, metaclass=Meta):
    pass


@pytest.mark.parametrize("make", [Handler, functools.partial(Handler), factory, OfMeta])
def test_however_it_is_made(make):
    assert statuses(said(make, GET + DOUBTFUL + GET)) == [200, 400]


@pytest.mark.parametrize("fails", [False, True])
def test_the_socket_is_what_it_was(fails):
    """Once a file is made of it, at the latest when the handler is gone."""
    seen = []

    class Looks(socketserver.StreamRequestHandler):
        def setup(self):
            assert isinstance(self.request, socket.socket)
            if fails:
                raise ZeroDivisionError
            super().setup()

        def handle(self):
            seen.append(type(self.request))

    if fails:
        with pytest.raises(ZeroDivisionError):
            said(lambda *arguments: Looks(*arguments), b"")
    else:
        said(lambda *arguments: Looks(*arguments), b"")
    assert seen == [socket.socket] * (not fails)


def test_nothing_keeps_the_handler():
    made = []

    class Watched(Handler):
        def do_GET(self):
            made.append(weakref.ref(self))
            self.answer(*([("Transfer-Encoding", "chunked")] if len(made) == 3 else []))

    gc.collect()
    gc.disable()
    try:
        said(Watched, GET * 2)
        said(lambda *arguments: Watched(*arguments), GET)
        assert [each() for each in made] == [None, None, None]
    finally:
        gc.enable()


# Answers


def test_an_answer_is_seen_behind_interim_ones_and_in_pieces():
    class Answers(Handler):
        def do_GET(self):
            for piece in self.pieces:
                self.wfile.write(piece)

    Answers.pieces = [b"HTTP/1.1 103 Early Hints\r\n", b"\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"body"]
    assert said(Answers, GET) == b"".join(Answers.pieces)
    mistaken = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"
    Answers.pieces = [b"HTTP/1.1 103 Early Hints\r\n", b"\r\n", mistaken, b"body"]
    with capturedLogs() as logged:
        assert statuses(said(Answers, GET * 2)) == [103, 500]
    assert "Content-Length" in formatEvent(logged[0])
    Answers.pieces = [mistaken[:20], mistaken[20:], b"body"]
    assert said(Answers, GET * 2) == mistaken[:20]  # too late to say more
    Answers.pieces = [b"what is this\r\n\r\n", mistaken]
    assert said(Answers, GET) == b"".join(Answers.pieces)


def test_a_method_that_was_kept_writes_on():
    class Keeps(Handler):
        def do_GET(self):
            write = self.wfile.write
            self.answer()
            assert write(memoryview(b"more")) == 4
            with pytest.raises(TypeError, match="a bytes-like object is required, not 'str'"):
                write("text")

    assert said(Keeps, GET).endswith(b"okmore")


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("wbufsize", [0, -1])
def test_an_exit_is_answered_for(error, wbufsize):
    def leaving(before):
        class Leaves(Handler):
            def do_GET(self):
                before(self)
                raise error

            do_HEAD = do_GET

        Leaves.wbufsize = wbufsize
        return Leaves

    answers = []

    def run(*arguments):
        with pytest.raises(error):
            make_and_run_guarded(*arguments)

    for before in (lambda self: None, lambda self: self.send_response(200), Handler.answer):
        answers.append(said(leaving(before), GET * 2, run=run))
    assert [statuses(answer) for answer in answers] == [[500], [500], [200]]
    head = said(
        leaving(lambda self: self.send_response_only(100) or self.end_headers()),
        GET.replace(b"GET", b"HEAD"),
        run=run,
    )
    assert statuses(head) == [100, 500]
    assert head.endswith(b"\r\n\r\n")


def test_an_error_is_the_servers_to_handle():
    class Fails(Handler):
        def do_GET(self):
            raise ZeroDivisionError

    def run(*arguments):
        with pytest.raises(ZeroDivisionError):
            make_and_run_guarded(*arguments)

    assert said(Fails, GET, run=run) == b""


def test_who_leaves_before_a_request_is_here_has_none_to_answer():
    class Leaves(Handler):
        def handle(self):
            super().handle()
            raise KeyboardInterrupt

    def run(*arguments):
        with pytest.raises(KeyboardInterrupt):
            make_and_run_guarded(*arguments)

    assert said(Leaves, b"", run=run) == b""
    assert statuses(said(Leaves, GET, run=run)) == [200]


def test_a_child_of_the_handlers_answers_nothing():
    class Forks(Handler):
        def do_GET(self):
            child = os.fork()
            if not child:
                sys.exit()
            os.waitpid(child, 0)
            self.answer()

    def run(*arguments):
        process = os.getpid()
        try:
            make_and_run_guarded(*arguments)
        finally:
            if os.getpid() != process:
                os._exit(0)

    assert statuses(said(Forks, GET, run=run)) == [200]
