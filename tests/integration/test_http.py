"""Coroutine HTTP handlers over real connections: what a handler sees and what a client gets."""

from http.server import BaseHTTPRequestHandler

import pytest
from twisted.internet.task import deferLater

from sockserve.http import HTTPRequestHandler
from tests.integration.servers import counts, in_thread, serving, until
from tests.integration.web import (
    HOST,
    Conversation,
    answers_in,
    chunked,
    conversing,
    get,
    post,
    said,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


class Hello(HTTPRequestHandler):
    async def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(b"Hello, world!")


class Echo(HTTPRequestHandler):
    """Sends back a request's body."""

    async def do_POST(self):
        body = await self.rfile.read()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)


class Path(HTTPRequestHandler):
    """Names the path, after a wait when that asks for one."""

    async def do_GET(self):
        if self.path.startswith("/wait"):
            await deferLater(self.server.reactor, 0.001)
        self.send_response(200)
        self.send_header("Content-Length", len(self.path))
        self.end_headers()
        self.wfile.write(self.path.encode())


def handling(function, method="GET", **members):
    """A handler with one method."""
    return type("Site", (HTTPRequestHandler,), {f"do_{method}": function, **members})


# Requests


async def test_each_request_has_an_instance_of_its_own():
    made = []

    class Counter(Hello):
        async def do_GET(self):
            assert not hasattr(self, "mark")
            self.mark = True
            made.append(self)
            await super().do_GET()

    answers = answers_in(await said(Counter, get() * 3), "GET", "GET", "GET")
    assert [answer.body for answer in answers] == [b"Hello, world!"] * 3
    assert len({id(handler) for handler in made}) == 3


async def test_a_handler_knows_its_request():
    seen = {}

    async def do_GET(self):
        names = ["command", "path", "requestline", "request_version", "close_connection"]
        seen.update({name: getattr(self, name) for name in names})
        seen["headers"] = self.headers["X-Test"], self.headers.get_all("x-twice")
        seen["server"] = self.server
        seen["peer"] = self.client_address[0], self.address_string()
        seen["connection"] = self.connection is self.request
        await Hello.do_GET(self)

    async with serving(handling(do_GET)) as server:

        def client():
            with Conversation(server.server_address) as conversation:
                fields = ["x-tEST: caf\xe9", "X-Twice: 1", "X-Twice: 2"]
                return conversation.ask(get("/a%20b?c=d", *fields))

        assert (await in_thread(client)).status == 200
        assert seen == {
            "command": "GET",
            "path": "/a%20b?c=d",
            "requestline": "GET /a%20b?c=d HTTP/1.1",
            "request_version": "HTTP/1.1",
            "close_connection": False,
            "headers": ("caf\xe9", ["1", "2"]),
            "server": server,
            "peer": ("127.0.0.1", "127.0.0.1"),
            "connection": True,
        }


def test_it_has_what_the_stdlibs_class_has():
    """Names that users of the stdlib's class call, read or override."""
    # What reads a request from a socket, which is the server's part here.
    loop = {"handle_one_request", "parse_request", "handle_expect_100"}
    # Only the stdlib's own classes and lists use these.
    internal = {"monthname", "weekdayname", "timeout", "rbufsize", "wbufsize"}
    internal |= {"disable_nagle_algorithm"}
    public = {name for name in dir(BaseHTTPRequestHandler) if not name.startswith("_")}
    assert public - loop - internal <= set(dir(HTTPRequestHandler))
    assert "%(code)d" in HTTPRequestHandler.error_message_format  # a page of its own
    for name in ("error_content_type", "responses", "MessageClass"):
        ours, theirs = (getattr(cls, name) for cls in (HTTPRequestHandler, BaseHTTPRequestHandler))
        assert ours == theirs


@pytest.mark.parametrize("method", ["GET", "BREW", "M-SEARCH"])
async def test_a_method_there_is_not_is_not_implemented(method):
    (answer,) = answers_in(await said(Echo, get(method=method)), method)
    assert answer.status == 501
    assert f"Unsupported method ({method!r})".encode() in answer.body


class Page(HTTPRequestHandler):
    async def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"page")


class BlockingPage(HTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"page")


@pytest.mark.parametrize("handler", [Page, BlockingPage])
async def test_head_is_the_head_of_get(handler):
    head, after = answers_in(await said(handler, get(method="HEAD") + get()), "HEAD", "GET")
    assert (head.status, head.headers["Content-Length"], head.body) == (200, "4", b"")
    assert after.body == b"page"


@pytest.mark.parametrize("handler", [Page, BlockingPage])
async def test_options_are_the_methods_there_are(handler):
    sent = get("*", method="OPTIONS") + get(method="PUT")
    options, put = answers_in(await said(handler, sent), "OPTIONS", "PUT")
    assert (options.status, put.status) == (204, 501)
    assert options.headers["Allow"] == put.headers["Allow"] == "GET, HEAD, OPTIONS"


async def test_methods_by_getattr():
    class Any(HTTPRequestHandler):
        def __getattr__(self, name):
            if not name.startswith("do_"):
                raise AttributeError(name)

            async def do():
                self.send_response(200)
                self.end_headers()
                self.wfile.write(name.encode())

            return do

    (answer,) = answers_in(await said(Any, get(method="PURGE")), "PURGE")
    assert (answer.status, answer.body) == (200, b"do_PURGE")


async def test_pipelined_requests_are_answered_in_order():
    paths = [f"/wait/{n}" if n % 3 else f"/{n}" for n in range(200)]
    data = await said(Path, b"".join(get(path) for path in paths))
    answers = answers_in(data, *["GET"] * len(paths))
    assert [answer.body.decode() for answer in answers] == paths


async def test_a_slow_handler_answers_a_client_that_has_ended_its_side():
    async with serving(Path) as server:

        def client():
            with Conversation(server.server_address) as conversation:
                conversation.send(get("/wait"))
                conversation.end()
                return conversation.answer().body, conversation.rest()

        assert await in_thread(client) == (b"/wait", b"")
        await until(lambda: not server.statistics.active)
        assert counts(server) == {"accepted": 1, "requests": 1}


# Bodies of requests


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (post(b"abc"), b"abc"),
        (post(b""), b""),
        (get(method="POST"), b""),
        (get("/", "Transfer-Encoding: chunked", method="POST") + chunked(b"ab", b"c" * 300), None),
        (
            get("/", "transfer-encoding: Chunked", method="POST")
            + b"3;ext=1\r\nabc\r\n0\r\nTrailer: x\r\n\r\n",
            b"abc",
        ),
    ],
)
async def test_a_body_is_read_to_its_end_and_no_further(request_, body):
    body = b"ab" + b"c" * 300 if body is None else body
    answers = answers_in(await said(Echo, request_ + post(b"next")), "POST", "POST")
    assert [answer.body for answer in answers] == [body, b"next"]


async def test_ways_to_read_a_body():
    async def do_POST(self):
        parts = [await self.rfile.readexactly(2), await self.rfile.readline()]
        parts += [line async for line in self.rfile]
        parts += [await self.rfile.read(10)]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(repr(parts).encode())

    (answer,) = answers_in(await said(handling(do_POST, "POST"), post(b"ab1\n22\n333")), "POST")
    assert answer.body == repr([b"ab", b"1\n", b"22\n", b"333", b""]).encode()


async def test_an_expectation_is_met_when_the_body_is_first_read():
    began = []

    async def do_POST(self):
        await deferLater(self.server.reactor, 0)
        began.append(self.path)
        if self.path != "/no":
            await Echo.do_POST(self)
        else:
            self.send_error(403)

    def client(conversation):
        expecting = get("/", "Expect: 100-continue", "Content-Length: 3", method="POST")
        conversation.send(expecting)
        interim = conversation.read(25)
        assert began == ["/"]
        assert conversation.ask(b"abc", "POST").body == b"abc"
        # One that is refused is not asked for its body, and the connection ends: nobody can
        # tell whether that follows.
        conversation.send(expecting.replace(b" / ", b" /no "))
        refused = conversation.answer("POST")
        return interim, refused.status, refused.headers["Connection"], conversation.rest()

    assert await conversing(handling(do_POST, "POST"), client) == (
        b"HTTP/1.1 100 Continue\r\n\r\n",
        403,
        "close",
        b"",
    )


async def test_an_expectation_of_a_body_that_came_anyway():
    """RFC 9110 section 10.1.1: the answer may be omitted; what counts is that nothing waits."""
    data = await said(Echo, post(b"abc", "Expect: 100-continue"))
    answers = answers_in(data.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"), "POST")
    assert answers[0].body == b"abc"


# Framing of responses


def responding(status=200, body=(b"abc",), fields=(), wait=False, flush=False):
    async def do(self):
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()
        for piece in body:
            self.wfile.write(piece)
            if wait:
                await deferLater(self.server.reactor, 0)
            if flush:
                self.wfile.flush()

    return type("Site", (HTTPRequestHandler,), {"do_GET": do, "do_HEAD": do})


COUNTED = ("3", None)
CHUNKED = (None, "chunked")


@pytest.mark.parametrize(
    ("options", "framing", "body"),
    [
        ({}, COUNTED, b"abc"),
        ({"body": (b"a", b"b", b"c")}, COUNTED, b"abc"),
        ({"body": ()}, ("0", None), b""),
        ({"wait": True}, CHUNKED, b"abc"),
        ({"flush": True}, CHUNKED, b"abc"),
        ({"body": (b"x" * 100_000,)}, CHUNKED, b"x" * 100_000),
        ({"fields": [("Content-Length", 3)]}, COUNTED, b"abc"),
        ({"fields": [("Content-Length", "3")], "wait": True}, COUNTED, b"abc"),
        ({"body": (b"", b"abc", b""), "wait": True}, CHUNKED, b"abc"),
        ({"body": (bytearray(b"ab"), memoryview(b"c"))}, COUNTED, b"abc"),
        ({"status": 204}, (None, None), b""),
        ({"status": 304}, (None, None), b""),
        ({"status": 304, "fields": [("Content-Length", 3)]}, COUNTED, b""),
        ({"status": 404, "body": ()}, ("0", None), b""),
    ],
)
async def test_a_response_is_framed_by_what_is_known_of_it(options, framing, body):
    first, second = answers_in(await said(responding(**options), get() * 2), "GET", "GET")
    assert first.status == options.get("status", 200)
    assert (first.headers["Content-Length"], first.headers["Transfer-Encoding"]) == framing
    assert first.body == body == second.body


@pytest.mark.parametrize("options", [{}, {"wait": True}, {"fields": [("Content-Length", 3)]}])
async def test_head_gets_no_body(options):
    data = await said(responding(**options), get(method="HEAD") + get())
    head, after = answers_in(data, "HEAD", "GET")
    assert head.headers["Content-Length"] in ("3", None)
    assert after.body == b"abc"


@pytest.mark.parametrize("wait", [False, True])
async def test_old_clients(wait):
    """HTTP/1.0 knows no chunks, and closes unless both sides say otherwise."""
    handler = responding(wait=wait)
    old = get(version="HTTP/1.0")
    (answer,) = answers_in(await said(handler, old + get()), "GET")
    assert answer.body == b"abc"
    assert answer.headers["Transfer-Encoding"] is None
    assert answer.headers["Connection"] == "close"
    kept = get("/", "Connection: Keep-Alive", version="HTTP/1.0")
    data = await said(handler, kept * 2)
    if wait:  # its end is the connection's
        (answer,) = answers_in(data, "GET")
        assert answer.headers["Connection"] == "close"
    else:
        answers = answers_in(data, "GET", "GET")
        assert [answer.headers["Connection"] for answer in answers] == ["keep-alive"] * 2
        assert answer.body == b"abc"
    assert (await said(handler, b"GET /\r\n")).startswith(b"HTTP/1.1 400 ")
    handler.default_request_version = "HTTP/0.9"  # it is asked for
    assert await said(handler, b"GET /\r\n") == b"abc"


@pytest.mark.parametrize(
    "ask_for", [{"fields": [("Connection", "close")]}, {}], ids=["field", "request"]
)
async def test_either_side_may_close(ask_for):
    asked = get("/", *([] if ask_for else ["Connection: close"]))
    (answer,) = answers_in(await said(responding(**ask_for), asked + get()), "GET")
    assert answer.headers.get_all("Connection") == ["close"]


async def test_a_handler_closes_the_connection():
    async def do_GET(self):
        self.close_connection = True
        await Hello.do_GET(self)

    (answer,) = answers_in(await said(handling(do_GET), get() * 2), "GET")
    assert answer.headers["Connection"] == "close"
    old = handling(Hello.do_GET, protocol_version="HTTP/1.0")
    (answer,) = answers_in(await said(old, get() * 2), "GET")
    assert answer.body == b"Hello, world!"


async def test_a_handler_may_make_its_chunks_itself():
    """As those of C{http.server} do; that it did so to its end only the connection's end tells."""
    fields = [("Transfer-Encoding", "chunked")]
    handler = responding(body=[chunked(b"ab", b"c")], fields=fields)
    (answer,) = answers_in(await said(handler, get() * 2), "GET")
    assert (answer.body, answer.headers["Connection"]) == (b"abc", "close")


async def test_interim_responses():
    async def do_GET(self):
        self.send_response_only(103)
        self.send_header("Link", "</style.css>; rel=preload")
        self.end_headers()
        await Hello.do_GET(self)

    data = await said(handling(do_GET), get())
    assert data.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
    assert data.endswith(b"Hello, world!")
    assert b"103" not in await said(handling(do_GET), get(version="HTTP/1.0"))


async def test_responses_are_counted_by_class():
    async def do_GET(self):
        self.send_error(int(self.path[1:]))

    async with serving(handling(do_GET)) as server:

        def client():
            with Conversation(server.server_address) as conversation:
                for status in (404, 404, 500, 301, 200):
                    assert conversation.ask(get(f"/{status}")).status == status
                conversation.send(b"\x00\r\n\r\n" + HOST)
                return conversation.answer().status

        assert await in_thread(client) == 400
        assert server.statistics.snapshot()["responses"] == {
            "2xx": 1,
            "3xx": 1,
            "4xx": 3,
            "5xx": 1,
        }
