"""The stand-ins for C{handle} and C{parse_request} against the standard library's own."""

import functools
import gc
import http.client
import re
import weakref
from http import HTTPStatus
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sockserve.http.spool import Spool, stock_file
from sockserve.http.stock import make_stock_handler


class Connection:
    """As much of a socket as a handler needs, and of its request's head."""

    def __init__(self, rfile, keep_alive=True):
        self.rfile = rfile
        self.head = SimpleNamespace(keep_alive=keep_alive)
        self.sent = b""

    def makefile(self, mode, buffering):
        return self.rfile

    def sendall(self, data):
        self.sent += bytes(data)


#: What of a handler is not compared.  (The server decides about the connection, see below.)
UNTOLD = ("rfile", "wfile", "connection", "request", "server", "close_connection")


class Handler(BaseHTTPRequestHandler):
    """Tells what it has parsed, and what is left to read."""

    protocol_version = "HTTP/1.1"

    def tell(self):
        self.server.append(
            {name: value for name, value in vars(self).items() if name not in UNTOLD}
            | {
                "headers": vars(self.headers)
                | {"policy": None, "defects": repr(self.headers.defects)},
                "class": type(self.headers),
                "body": self.rfile.read(),
            }
        )
        self.close_connection = True

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.tell
        raise AttributeError(name)

    def log_message(self, *arguments):
        """Quiet."""


class OldHandler(Handler):
    protocol_version = "HTTP/1.0"


class OwnLoop(Handler):
    """As C{wsgiref}'s, it calls C{parse_request} in a loop of its own."""

    def handle(self):
        super().handle()


def told(handler, make, rfile):
    """What a handler tells, and what it sends."""
    connection = Connection(rfile)
    seen = []
    make(handler, connection, ("192.0.2.1", 1), seen)
    return seen, connection.sent


def by_itself(handler, connection, address, server):
    handler(connection, address, server)


def buffered(raw, body):
    if not body:
        return stock_file(raw)
    spool = Spool()
    spool.write(raw)
    spool.write(body)
    return spool.open_for_stock(raw)


VALUES = st.one_of(
    st.sampled_from(
        [
            "close",
            "Keep-Alive",
            " keep-alive",
            "keep-alive, TE",
            "multipart/form-data; boundary=x",
            "100-continue",
            "text/html; charset=utf-8",
            "",
            " ",
            "a\tb ",
            "\t x: y",
            "é ÿ",
            "\x85x",
        ]
    ),
    st.text(st.characters(min_codepoint=9, max_codepoint=255), max_size=12),
)
NAMES = st.one_of(
    st.sampled_from(
        ["Connection", "connection", "Host", "Content-Type", "Expect", "X-Y", "Content-Length"]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=5),
)
LINES = st.one_of(
    st.sampled_from(
        [
            "GET / HTTP/1.1",
            "GET //x HTTP/1.1",
            "POST /x?y HTTP/1.0",
            "SPAM  /x  HTTP/1.1",
            "GET /\xa0x HTTP/1.1",
            "GET / HTTP/1.2",
            "GET / HTTP/2.0",
            "GET /x",
            "GET * HTTP/1.1",
        ]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=12),
)


@given(
    LINES,
    st.lists(st.tuples(NAMES, VALUES), max_size=4),
    st.sampled_from(["\r\n", "\n"]),
    st.sampled_from([b"", b"body", b"GET / HTTP/1.1\r\n\r\n"]),
    st.sampled_from([Handler, OldHandler, OwnLoop]),
)
@example("GET / HTTP/1.1", [("Connection", "close")], "\r\n", b"", Handler)
@example("GET / HTTP/1.0", [("connection", "Keep-Alive")], "\r\n", b"x", OldHandler)
@example("GET / HTTP/1.1", [("A", "1"), ("a", "2"), ("B", " ")], "\r\n", b"", Handler)
@example("GET / HTTP/1.1", [("Connection", "x"), ("Connection", "close")], "\r\n", b"", Handler)
@example("POST / HTTP/1.1", [("Content-Type", "multipart/form-data")], "\r\n", b"x", Handler)
@example("POST / HTTP/1.1", [("Expect", "100-continue")], "\r\n", b"x", Handler)
@example("GET / HTTP/1.1", [("A", "x\ry: z")], "\r\n", b"", Handler)
def test_any_head_is_to_a_handler_what_it_would_be(line, fields, end, body, handler):
    head = "".join(f"{each}{end}" for each in [line, *(f"{n}:{v}" for n, v in fields), ""])
    raw = head.encode("latin-1")
    theirs = told(handler, by_itself, BytesIO(raw + body))
    ours = told(handler, make_stock_handler, buffered(raw, body))
    assert ours == theirs


@pytest.mark.parametrize("head", [b"Connection: close, x", b"Connection: x", b"Expect: x", b""])
@pytest.mark.parametrize(
    ("handler", "keep_alive", "closes"),
    [(Handler, True, False), (Handler, False, True), (OldHandler, True, True)],
)
def test_the_server_decides_whether_the_connection_goes_on(head, handler, keep_alive, closes):
    """Whatever C{http.server} makes of the fields."""
    decided = []

    class Decides(handler):
        def tell(self):
            decided.append(self.close_connection)
            self.close_connection = True

    raw = b"GET / HTTP/1.1\r\n%b\r\n\r\n" % head if head else b"GET / HTTP/1.1\r\n\r\n"
    make_stock_handler(Decides, Connection(buffered(raw, b""), keep_alive), None, [])
    assert decided == [closes]


def test_a_connection_of_an_overrides_own_is_served_too():
    """One that does not tell what the server has read; C{http.server} decides then."""
    wrapped = Connection(buffered(b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n", b""))
    del wrapped.head
    seen = []
    make_stock_handler(Handler, wrapped, None, seen)
    assert [each["path"] for each in seen] == ["/x"]


@pytest.mark.parametrize("handler", [Handler, OwnLoop])
def test_a_usual_head_is_not_parsed_again(handler, monkeypatch):
    """Else nothing here would test the stand-in."""
    monkeypatch.setattr(http.client, "parse_headers", None)
    raw = b"GET /x HTTP/1.1\r\nHost: h\r\nUser-Agent: a\r\n\r\n"
    seen, _ = told(handler, make_stock_handler, buffered(raw, b"body"))
    assert seen[0]["path"] == "/x"
    assert seen[0]["body"] == b"body"
    assert seen[0]["headers"]["_headers"] == [("Host", "h"), ("User-Agent", "a")]


class Plain(BaseHTTPRequestHandler):
    """Has only what a class defines, and keeps what it logs."""

    protocol_version = "HTTP/1.1"
    do_NONE = None

    def do_GET(self):
        self.wfile.write(self.path.encode() + b"\n")

    def do_LATE(self):
        raise TimeoutError("too late")

    def do_RAISE(self):
        raise LookupError("culprit")

    def do_ERROR(self):
        self.send_error(404)

    def log_message(self, format, *arguments):
        self.server.append(format % arguments)


GET = b"GET /1 HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize("body", [b"", b"GET /2 HTTP/1.1\r\n\r\n", b"a line\nanother"])
@pytest.mark.parametrize("method", ["GET", "LATE", "RAISE", "ERROR", "NONE", "THERE-IS-NONE"])
def test_a_request_has_the_end_that_it_would_have(method, body):
    """The first, and what its handler takes for the next."""
    raw = f"{method} /1 HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    ends = []
    for make, rfile in (
        (by_itself, BytesIO(raw + body)),
        (make_stock_handler, buffered(raw, body)),
    ):
        connection, logged, raised = Connection(rfile), [], None
        try:
            make(Plain, connection, None, logged)
        except Exception as error:
            raised = repr(error)
        ends.append((connection.sent, logged, raised))
    (sent, *theirs), (our_sent, *ours) = ends
    dates = re.compile(rb"Date: [^\r]*")
    assert dates.sub(b"", our_sent) == dates.sub(b"", sent)
    assert ours == theirs


@pytest.mark.parametrize("name", ["handle_one_request", "parse_request"])
def test_a_method_that_a_handler_has_set_for_itself(name):
    calls = []

    class Sets(Handler):
        def setup(self):
            super().setup()
            original = getattr(self, name)

            def noting():
                calls.append(name)
                return original()

            setattr(self, name, noting)

    seen, _ = told(Sets, make_stock_handler, buffered(GET, b""))
    assert [each["path"] for each in seen] == ["/1"]
    assert calls == [name]


@pytest.mark.parametrize("name", ["handle", "parse_request"])
def test_a_method_that_a_handler_has_kept_and_calls_twice(name):
    ends = []

    class Twice(Plain):
        def setup(self):
            super().setup()
            kept = getattr(self, name)

            def twice():
                kept()
                return kept()

            setattr(self, name, twice)

    for make, rfile in (
        (by_itself, BytesIO(GET + GET.replace(b"1", b"2", 1))),
        (make_stock_handler, buffered(GET, GET.replace(b"1", b"2", 1))),
    ):
        connection = Connection(rfile)
        make(Twice, connection, None, [])
        ends.append(re.sub(rb"Date: [^\r]*", b"", connection.sent))
    assert ends[0] == ends[1]


def test_a_wrapper_that_passes_on_all_that_is_asked_of_it_is_called():
    """As those of tracers do."""
    calls = []

    class Wrapper:
        def __init__(self, method):
            self.method = method

        def __call__(self):
            calls.append(self.method.__name__)
            return self.method()

        def __getattr__(self, name):
            return getattr(self.method, name)

    class Traced(Handler):
        def setup(self):
            super().setup()
            self.handle_one_request = Wrapper(self.handle_one_request)
            self.parse_request = Wrapper(self.parse_request)

    told(Traced, make_stock_handler, buffered(GET, b""))
    assert calls == ["handle_one_request", "parse_request"]


def test_a_file_that_passes_all_on_is_read_as_the_handler_reads_it():
    lines = []

    class Noting:
        def __init__(self, file):
            self.file = file

        def readline(self, size):
            lines.append(self.file.readline(size))
            return lines[-1]

        def __getattr__(self, name):
            return getattr(self.file, name)

    class Wraps(Handler):
        def setup(self):
            super().setup()
            self.rfile = Noting(self.rfile)

    seen, _ = told(Wraps, make_stock_handler, buffered(GET, b""))
    assert [each["path"] for each in seen] == ["/1"]
    assert lines == [b"GET /1 HTTP/1.1\r\n", b"\r\n"]


class OwnPartial(functools.partial):
    """A partial that says more."""


@pytest.mark.parametrize(
    "make",
    [
        OwnPartial(Handler),
        functools.partial(functools.update_wrapper(functools.partial(Handler), Handler)),
        lambda *arguments: Handler(*arguments),
    ],
    ids=["a partial of its own", "a partial of a wrapper", "a function"],
)
def test_whatever_makes_a_handler_may_make_it(make):
    seen, _ = told(make, make_stock_handler, buffered(GET, b""))
    assert [each["path"] for each in seen] == ["/1"]


def test_a_method_that_is_none_is_told_by_a_status_of_the_standard_librarys():
    statuses = []

    class Asks(Plain):
        def send_error(self, code, message=None, explain=None):
            statuses.append(code)
            super().send_error(code, message, explain)

    raw = b"BREW / HTTP/1.1\r\n\r\n"
    make_stock_handler(Asks, Connection(buffered(raw, b"")), None, [])
    assert [type(each) for each in statuses] == [HTTPStatus]


@pytest.mark.parametrize("name", ["handle", "handle_one_request", "parse_request"])
def test_a_method_that_a_program_has_put_in_the_standard_librarys_place(name, monkeypatch):
    original, calls = getattr(BaseHTTPRequestHandler, name), []

    def noting(self):
        calls.append(name)
        return original(self)

    monkeypatch.setattr(BaseHTTPRequestHandler, name, noting)
    seen, _ = told(Handler, make_stock_handler, buffered(GET, b""))
    assert [each["path"] for each in seen] == ["/1"]
    assert set(calls) == {name}


def test_handlers_get_headers_of_their_own():
    headers = []

    class Changes(Handler):
        def tell(self):
            headers.append(self.headers)
            self.headers["X"] = "mine"
            self.close_connection = True

    for _ in range(2):
        told(Changes, make_stock_handler, buffered(b"GET / HTTP/1.1\r\nA: b\r\n\r\n", b""))
    assert [each.items() for each in headers] == [[("A", "b"), ("X", "mine")]] * 2


def test_a_message_class_of_the_handlers_own_is_filled_by_the_stdlibs_parser():
    class Mine(HTTPMessage):
        pass

    class Special(Handler):
        MessageClass = Mine

    seen, _ = told(Special, make_stock_handler, buffered(b"GET / HTTP/1.1\r\nA: b\r\n\r\n", b""))
    assert seen[0]["class"] is Mine


@pytest.mark.parametrize("wraps", [False, True])
def test_a_handler_may_read_through_a_file_of_its_own(wraps):
    class Wrapping(Handler):
        def setup(self):
            super().setup()
            if wraps:
                self.rfile = BytesIO(self.rfile.read().replace(b"A: b", b"C: d"))

    raw = b"GET / HTTP/1.1\r\nA: b\r\n\r\n"
    seen, _ = told(Wrapping, make_stock_handler, buffered(raw, b""))
    assert seen[0]["headers"]["_headers"] == [("C", "d") if wraps else ("A", "b")]


class Made(type):
    """Makes its instances in a way of its own."""

    def __call__(cls, *arguments):
        made = super().__call__(*arguments)
        arguments[2].append("by its metaclass")
        return made


class OddlyMade(Handler, metaclass=Made):
    pass


class New(Handler):
    def __new__(cls, request, client_address, server):
        server.append("by its __new__")
        return super().__new__(cls)


@pytest.mark.parametrize(
    ("handler", "expected"), [(OddlyMade, "by its metaclass"), (New, "by its __new__")]
)
def test_a_handler_that_is_made_in_a_way_of_its_own_is_made_so(handler, expected):
    seen, _ = told(handler, make_stock_handler, buffered(b"GET / HTTP/1.1\r\n\r\n", b""))
    assert expected in seen


def test_a_partial_has_its_arguments():
    class Takes(Handler):
        def __init__(self, first, *arguments, second):
            self.taken = (first, second)
            super().__init__(*arguments)

    make = functools.partial(Takes, 1, second=2)
    seen, _ = told(make, make_stock_handler, buffered(b"GET / HTTP/1.1\r\n\r\n", b""))
    assert seen[0]["taken"] == (1, 2)


@pytest.mark.parametrize("raises", [False, True])
def test_a_handler_is_gone_when_it_is_done(raises):
    """Without the garbage collector's help."""
    made = []

    class Watched(Handler):
        def setup(self):
            made.append(weakref.ref(self))
            if raises:
                raise OSError
            super().setup()

    gc.disable()
    try:
        told(Watched, make_stock_handler, buffered(b"GET / HTTP/1.1\r\n\r\n", b""))
    except OSError:
        assert raises
    finally:
        gc.enable()
    assert made[0]() is None
