"""HTTP handlers without a connection: the head that a handler makes, and questions to its class."""

import json
import re
from http import HTTPStatus
from types import SimpleNamespace

import pytest
from twisted.logger import capturedLogs, formatEvent

from sockserve import ConfigurationError
from sockserve.http import HTTPRequestHandler
from sockserve.http.h1.framing import LocalProtocolError
from sockserve.http.h1.head import HeaderSection, RequestHead, parse_head

DATE = re.compile(r"Date: (.*)\r\n")


class Response:
    """What a handler makes its response of: it keeps the heads, and the body."""

    def __init__(self, request):
        self.request = request
        self.close = False
        self.begun = False
        self.started = False
        self.version = (1, 1)
        self.heads = []
        self.informational = []
        self.resets = 0
        self.body = b""
        self.flushes = 0

    def start(self, status, head, length, coding):
        self.started = True
        self.heads.append((status, head, length, coding))

    def send_informational(self, head):
        self.informational.append(head)

    def reset(self):
        self.resets += 1

    def write(self, data):
        self.body += data

    def flush(self):
        self.flushes += 1


def make(handler=HTTPRequestHandler, line=b"GET /a HTTP/1.1", fields=b"Host: localhost\r\n"):
    """A handler of one request, and the response it makes."""
    raw = line + b"\r\n" + (b"" if line.count(b" ") == 1 else fields + b"\r\n")
    response = Response(parse_head(raw, True))
    request = SimpleNamespace(
        head=response.request, response=response, wfile=response, rfile=object()
    )
    made = handler(request, ("192.0.2.7", 5300), None)
    made.setup()
    return made, response


# The request


@pytest.mark.parametrize(
    ("line", "command", "path", "version"),
    [
        (b"GET /a?b HTTP/1.1", "GET", "/a?b", "HTTP/1.1"),
        (b"get / HTTP/1.0", "get", "/", "HTTP/1.0"),
        (b"GET /", "GET", "/", "HTTP/0.9"),
        (b"GET //host/a HTTP/1.1", "GET", "/host/a", "HTTP/1.1"),
        (b"GET ////host HTTP/1.1", "GET", "/host", "HTTP/1.1"),
    ],
)
def test_setup_makes_the_attributes_of_the_request(line, command, path, version):
    handler, _ = make(line=line)
    assert (handler.command, handler.path, handler.request_version) == (command, path, version)
    assert handler.requestline == line.decode()


def test_headers_are_looked_up_without_regard_to_case():
    handler, _ = make(fields=b"Host: localhost\r\nX-A: one\r\nx-a: two\r\n")
    assert handler.headers["HOST"] == "localhost"
    assert handler.headers.get_all("X-a") == ["one", "two"]


def test_an_old_protocol_version_ends_the_connection():
    class Old(HTTPRequestHandler):
        protocol_version = "HTTP/1.0"

    _, response = make(Old)
    assert response.close
    assert response.version == (1, 0)


@pytest.mark.parametrize("close", [True, False])
def test_close_connection_is_the_responses(close):
    handler, response = make()
    handler.close_connection = close
    assert response.close is close
    assert handler.close_connection is close


def test_handle_calls_the_method_of_the_request():
    class Handler(HTTPRequestHandler):
        def do_GET(self):
            return "got"

    assert make(Handler)[0].handle() == "got"


def test_handle_answers_a_method_there_is_none_for():
    handler, response = make(line=b"BREW / HTTP/1.1")
    assert handler.handle() is None
    status, head, length, _ = response.heads[0]
    assert status == 501
    assert head.startswith("HTTP/1.1 501 Unsupported method ('BREW')\r\n")
    assert length == len(response.body)


# The head


def test_a_head_has_its_status_line_server_and_date_first():
    handler, response = make()
    handler.send_response(HTTPStatus.OK)
    handler.send_header("X-Count", 3)
    handler.end_headers()
    ((status, head, length, coding),) = response.heads
    assert (status, length, coding) == (200, None, None)
    assert head.startswith("HTTP/1.1 200 OK\r\nServer: sockserve/")
    assert DATE.search(head)[1] == handler.date_time_string()
    assert head.endswith("X-Count: 3\r\n")


def test_the_framing_fields_are_told_beside_the_head():
    handler, response = make()
    handler.send_response(200)
    handler.send_header("content-LENGTH", "5")
    handler.send_header("Content-Length", 5)  # once more, and sent once
    handler.end_headers()
    assert response.heads[0][2:] == (5, None)
    assert response.heads[0][1].lower().count("content-length: 5\r\n") == 1
    handler, response = make()
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "gzip, chunked")
    handler.end_headers()
    assert response.heads[0][2:] == (None, "gzip, chunked")
    assert "Transfer-Encoding: gzip, chunked\r\n" in response.heads[0][1]


@pytest.mark.parametrize(
    ("value", "close", "sent"),
    [
        ("close", True, None),
        ("Close, X-Own", True, "X-Own"),
        ("keep-alive", False, None),
        ("Upgrade", False, "Upgrade"),
    ],
)
def test_the_server_keeps_the_connection_and_not_the_handler(value, close, sent):
    handler, response = make()
    handler.send_response(200)
    handler.send_header("Connection", value)
    handler.end_headers()
    head = response.heads[0][1]
    assert response.close is close
    assert ("Connection:" in head) is (sent is not None)
    assert sent is None or f"Connection: {sent}\r\n" in head


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X A", "1"),
        ("X:", "1"),
        ("", "1"),
        ("X-Ä", "1"),
        ("X", "a\r\nSet-Cookie: b"),
        ("X", "a\nb"),
        ("X", "a\0b"),
        ("X", "\N{EURO SIGN}"),
        ("Content-Length", "five"),
        ("Content-Length", "-5"),
        ("Content-Length", "\N{ARABIC-INDIC DIGIT FIVE}"),
    ],
)
def test_a_field_that_cannot_be_sent_is_refused(name, value):
    handler, _ = make()
    handler.send_response(200)
    with pytest.raises(ValueError, match="header field"):
        handler.send_header(name, value)


@pytest.mark.parametrize(
    "fields",
    [
        [("Content-Length", 5), ("Transfer-Encoding", "chunked")],
        [("transfer-encoding", "gzip"), ("X", "y"), ("CONTENT-LENGTH", "5")],
        [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "gzip, Chunked")],
    ],
)
def test_what_tells_two_ends_of_a_body_is_refused(fields):
    """And a head that is begun anew has none of it."""
    handler, _ = make()
    for _ in range(2):
        handler.send_response(200)
        for field in fields[:-1]:
            handler.send_header(*field)
        with pytest.raises(ValueError, match=r"(?i)Transfer-Encoding"):
            handler.send_header(*fields[-1])


def test_a_second_length_that_differs_is_refused():
    handler, _ = make()
    handler.send_response(200)
    handler.send_header("Content-Length", 5)
    with pytest.raises(ValueError, match="6, after 5"):
        handler.send_header("Content-Length", 6)


@pytest.mark.parametrize(
    ("code", "message"), [(99, "Low"), (1000, "High"), (200, "a\r\nb"), (200, "\N{EURO SIGN}")]
)
def test_a_status_line_that_cannot_be_sent_is_refused(code, message):
    with pytest.raises(ValueError, match=r"status|reason phrase"):
        make()[0].send_response(code, message)


def test_a_status_without_a_phrase_of_its_own_is_sent():
    handler, response = make()
    handler.send_response_only(299)
    handler.end_headers()
    assert response.heads[0][1] == "HTTP/1.1 299 \r\n"


def test_a_head_that_was_begun_again_is_only_the_second():
    handler, response = make()
    handler.send_response(200)
    handler.send_header("Content-Length", 5)
    handler.send_response(404)
    handler.end_headers()
    ((status, head, length, _),) = response.heads
    assert (status, length) == (404, None)
    assert "200" not in head.partition("\r\n")[0]


def test_an_interim_response_leaves_the_final_one_to_be_made():
    handler, response = make()
    handler.send_response_only(103)
    handler.send_header("Link", "</a>")
    handler.end_headers()
    assert response.informational == ["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n"]
    assert response.heads == []
    handler.send_response(200)
    handler.end_headers()
    assert response.heads[0][0] == 200


def test_a_head_that_was_not_begun_cannot_be_ended():
    with pytest.raises(LocalProtocolError, match="begins with send_response"):
        make()[0].end_headers()


def test_flush_headers_sends_only_a_complete_head():
    handler, response = make()
    handler.send_response(200)
    handler.flush_headers()
    assert response.flushes == 0
    handler.end_headers()
    handler.flush_headers()
    assert response.flushes == 1


# Errors


def test_an_error_page_says_what_is_wrong_and_escapes_it():
    handler, response = make()
    handler.send_error(404, "No <b>such</b> page", "Look & see")
    status, head, length, _ = response.heads[0]
    assert status == 404
    assert "No <b>such</b> page" in head  # as it is, in the status line
    assert b"No &lt;b&gt;such&lt;/b&gt; page" in response.body
    assert b"Look &amp; see" in response.body
    assert length == len(response.body)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"HEAD / HTTP/1.1", 404),
        (b"GET / HTTP/1.1", 204),
        (b"GET / HTTP/1.1", 205),
        (b"GET / HTTP/1.1", 304),
    ],
)
def test_an_error_page_is_left_out_where_none_may_be(line, code):
    handler, response = make(line=line)
    handler.send_error(code)
    assert response.heads[0][0] == code
    assert response.body == b""


@pytest.mark.parametrize("begun", [True, False])
def test_an_error_takes_the_place_of_what_has_not_left(begun):
    handler, response = make()
    response.begun = begun
    handler.send_error(500)
    assert response.resets == (0 if begun else 1)


def test_an_error_is_json_for_whom_wants_that():
    fields = b"Host: localhost\r\nAccept: text/html;q=0.5\r\nAccept: application/json\r\n"
    handler, response = make(fields=fields)
    handler.send_error(404, "No <such> page", "Look & see")
    _, head, length, _ = response.heads[0]
    assert "\r\nContent-Type: application/problem+json\r\n" in head
    assert "\r\nVary: Accept\r\n" in head
    assert length == len(response.body)
    assert json.loads(response.body) == {
        "type": "about:blank",
        "title": "No <such> page",
        "status": 404,
        "detail": "Look & see",
    }


# Methods


def allowed(head):
    return re.findall(r"\r\nAllow: (.*)\r\n", head)


class Reads(HTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_PUT(self):
        self.send_error(405)


class ReadsOnly(Reads):
    do_HEAD = None
    do_OPTIONS = None


def answer(cls, line):
    handler, response = make(cls, line)
    assert handler.handle() is None
    return response.heads[0][:2]


def test_head_is_answered_as_get():
    status, head = answer(Reads, b"HEAD / HTTP/1.1")
    assert (status, allowed(head)) == (200, [])


@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS"])
def test_a_class_may_say_that_it_does_not(method):
    status, head = answer(ReadsOnly, method + b" / HTTP/1.1")
    assert (status, allowed(head)) == (405, ["GET, PUT"])


@pytest.mark.parametrize("target", [b"/", b"*"])
def test_options_are_the_methods_there_are(target):
    status, head = answer(Reads, b"OPTIONS %b HTTP/1.1" % target)
    assert (status, allowed(head)) == (204, ["GET, HEAD, OPTIONS, PUT"])


def test_a_method_there_is_not_is_answered_with_those_there_are():
    assert allowed(answer(Reads, b"BREW / HTTP/1.1")[1]) == ["GET, HEAD, OPTIONS, PUT"]
    assert allowed(answer(HTTPRequestHandler, b"HEAD / HTTP/1.1")[1]) == ["OPTIONS"]


def test_a_method_that_is_refused_is_not_allowed():
    status, head = answer(Reads, b"PUT / HTTP/1.1")
    assert (status, allowed(head)) == (405, ["GET, HEAD, OPTIONS"])


def test_methods_that_a_class_makes_up_answer_all_by_themselves():
    class Any(HTTPRequestHandler):
        def __getattr__(self, name):
            if not name.startswith("do_"):
                raise AttributeError(name)
            return lambda: name

    for method in ("GET", "HEAD", "OPTIONS", "BREW"):
        assert make(Any, f"{method} / HTTP/1.1".encode())[0].handle() == f"do_{method}"


# The log


@pytest.mark.parametrize("logs_requests", [True, False])
def test_an_error_has_a_line_where_requests_have_none(logs_requests):
    handler, _ = make()
    handler.server = SimpleNamespace(logs_requests=logs_requests)
    with capturedLogs() as logged:
        handler.send_error(404, "No such\x1b page")
        handler.log_error("the disk is full")
    lines = [formatEvent(event) for event in logged]
    error = r"192.0.2.7: GET /a: 404 No such\x1b page"
    assert lines == [error] * (not logs_requests) + ["192.0.2.7: the disk is full"]


def test_a_log_of_the_handlers_own_hears_of_each_error():
    class Tells(HTTPRequestHandler):
        def log_message(self, format, *arguments):
            told.append(format % arguments)

    told = []
    handler, _ = make(Tells)
    handler.server = SimpleNamespace(logs_requests=True)
    handler.send_error(404)
    assert told == ["GET /a: 404 Not Found"]


# Dates and names


def test_a_class_without_a_version_sends_no_server_field():
    class Secret(HTTPRequestHandler):
        server_version = ""
        sys_version = "Python/3"

    handler, response = make(Secret)
    handler.send_response(200)
    handler.end_headers()
    assert re.fullmatch(r"HTTP/1.1 200 OK\r\nDate: .*\r\n", response.heads[0][1])


def test_a_date_is_written_as_http_writes_it():
    assert make()[0].date_time_string(784111777) == "Sun, 06 Nov 1994 08:49:37 GMT"


def test_the_server_field_has_a_second_word_if_there_is_one():
    class Named(HTTPRequestHandler):
        server_version = "Own/1"
        sys_version = "Python/3"

    assert make(Named)[0].version_string() == "Own/1 Python/3"


# The class


def head(method):
    return RequestHead(method, "/", (1, 1), b"", HeaderSection())


class Mixed(HTTPRequestHandler):
    async def do_GET(self):
        """Runs on the reactor."""

    def do_POST(self):
        """Runs on a thread."""


def test_a_class_tells_which_of_its_methods_block():
    assert Mixed.may_block()
    assert [Mixed.blocks(head(method)) for method in ("GET", "POST")] == [False, True]
    assert not Mixed.blocks(head("PUT"))  # a 501
    assert not Mixed.blocks(head("HEAD"))
    assert not HTTPRequestHandler.may_block()


def test_head_runs_where_get_does():
    class Page(HTTPRequestHandler):
        def do_GET(self):
            """Runs on a thread."""

    class Both(Page):
        async def do_HEAD(self):
            """Runs on the reactor."""

    class NoHead(Page):
        do_HEAD = None

    for cls, blocks in ((Page, True), (Both, False), (NoHead, False)):
        assert cls.may_block()
        assert cls.blocks(head("HEAD")) is blocks


def test_a_coroutine_handle_runs_all_methods_on_the_reactor():
    class Own(HTTPRequestHandler):
        async def handle(self):
            """Reads the method by itself."""

        def do_GET(self):
            """Called by it."""

    assert not Own.blocks(head("GET"))
    assert not Own.may_block()


def test_a_method_made_when_it_is_asked_for_is_looked_at_without_a_request():
    class Proxy(HTTPRequestHandler):
        def __getattr__(self, name):
            if name == "do_GET":
                return lambda: None
            raise AttributeError(name)

    class Needy(HTTPRequestHandler):
        def __getattr__(self, name):
            return self.__dict__["request"]  # there is none

    assert Proxy.may_block()
    assert Proxy.blocks(head("GET"))
    assert not Proxy.blocks(head("PUT"))
    assert Needy.blocks(head("GET"))


def test_methods_that_cannot_be_served_are_a_mistake():
    class Yields(HTTPRequestHandler):
        async def do_GET(self):
            yield b"body"

    class NoMethod(HTTPRequestHandler):
        do_GET = "text"

    class TwoPlaces(HTTPRequestHandler):
        async def setup(self):
            """Runs on the reactor."""

        def do_GET(self):
            """Runs on a thread."""

    for handler, message in (
        (Yields, "do_GET is no method"),
        (NoMethod, "do_GET is no method"),
        (TwoPlaces, "setup is async def but do_GET is not"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            handler.may_block()


def test_a_handler_that_gets_a_connection_says_that_it_needs_a_request():
    """As when a plain function makes it, of which nobody can tell that it answers HTTP."""
    with pytest.raises(TypeError, match="Mixed: what made it does not show that it answers HTTP"):
        Mixed(SimpleNamespace(), ("127.0.0.1", 1), None).setup()
