"""The gateway: which class answers, with what environment, and what a slow backend does."""

import doctest
import importlib
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from sockserve.http import (
    Environment,
    GatewayRequestHandler,
    RemoteProtocolError,
    WebHandler,
    gateway,
)
from sockserve.interfaces import ConfigurationError
from tests.http.blocking import Executor
from tests.http.connections import Connection

Connect = Callable[..., Connection]

#: The example of the page that this is made after, to the letter.
SEED = """GET /kv55/57330430 HTTP/1.1
Host: cache.govi.openov.nl
User-Agent: Mozilla/5.0 (X11; Linux i686; rv:2.0) Firefox/4.0
Accept: text/html,application/xml;q=0.9,*/*;q=0.8
Accept-Language: en-us,en;q=0.5
Accept-Encoding: gzip, deflate
Accept-Charset: ISO-8859-1,utf-8;q=0.7,*;q=0.7
Keep-Alive: 115
DNT: 1
Connection: keep-alive
Cache-Control: max-age=0

"""

SEED_ENVIRONMENT = {
    "accept-language": "en-us,en;q=0.5",
    "accept-encoding": "gzip, deflate",
    "dnt": "1",
    "connection": "keep-alive",
    "keep-alive": "115",
    "accept": "text/html,application/xml;q=0.9,*/*;q=0.8",
    "user-agent": "Mozilla/5.0 (X11; Linux i686; rv:2.0) Firefox/4.0",
    "accept-charset": "ISO-8859-1,utf-8;q=0.7,*;q=0.7",
    "host": "cache.govi.openov.nl",
    "request_method": "GET",
    "http_host": "cache.govi.openov.nl",
    "path_info": "/kv55/57330430",
    "cache-control": "max-age=0",
}


class Page:
    """A class of a URL."""

    def __init__(self, web_handler: WebHandler) -> None:
        self.web_handler = web_handler


class Stop(Page):
    async def do_GET(self, env: Environment) -> None:
        self.web_handler.send_response(f"stop {env['path_info']}")


class Stops(Page):
    async def do_GET(self, env: Environment) -> None:
        self.web_handler.send_response("all", "203 Some", {"Content-Type": "text/plain"})

    async def do_POST(self, env: Environment) -> None:
        body = await self.web_handler.rfile.read()
        self.web_handler.send_response(body, headers={"content-type": "x/y"})


class Slow(Page):
    """Its backend answers when the test says so."""

    def __init__(self, web_handler: WebHandler) -> None:
        super().__init__(web_handler)
        self.call: Deferred[str] = web_handler.request_handler.server.call

    async def do_GET(self, env: Environment) -> None:
        with self.web_handler.phase("GOVI_OUT"):
            answer = await self.web_handler.call_backend(self.call)
        self.web_handler.send_response(answer)


class Blocking(Page):
    def do_GET(self, env: Environment) -> None:
        with self.web_handler.phase("GOVI_OUT"):
            if env.get("query_string") == "late":
                raise TimeoutError("from a socket, say")
        self.web_handler.send_response(b"plain")


class NoMethod:
    """No class of a URL's."""


class Gateway(GatewayRequestHandler):
    urls = {
        "/kv55": Stop,
        "/kv55/all": f"{__name__}:Stops",
        "/slow": Slow,
    }


class Mixed(GatewayRequestHandler):
    urls = {"/": Blocking, "/kv55": Stop}


def get(path: str, method: str = "GET", rest: str = "\r\n") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{rest}".encode()


# The environment


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("kind", [str, bytes])
def test_a_request_is_parsed_without_a_socket(end: str, kind: type) -> None:
    blob = SEED.replace("\n", end)
    given = blob if kind is str else blob.encode()
    env = GatewayRequestHandler(object(), None).parse_request(given)
    assert dict(env.items()) == SEED_ENVIRONMENT
    assert env["Accept-Language"] == env["accept-language"]


def test_the_examples_of_its_docstrings_are_right() -> None:
    result = doctest.testmod(gateway)
    assert result.attempted > 0
    assert not result.failed


def test_a_path_is_decoded_and_its_query_is_by_itself() -> None:
    env = GatewayRequestHandler.parse_request("GET /a%20b%2Fc?d=%20e HTTP/1.0\n\n")
    assert dict(env.items()) == {
        "request_method": "GET",
        "path_info": "/a b/c",
        "query_string": "d=%20e",
    }


def test_a_client_cannot_say_what_only_its_request_line_does() -> None:
    blob = "GET / HTTP/1.1\nHost: a\nPath_Info: /secret\nrequest_method: POST\nHTTP_HOST: b\n\n"
    env = GatewayRequestHandler.parse_request(blob)
    assert env.get_all("path_info") == ["/"]
    assert env.get_all("request_method") == ["GET"]
    assert env.get_all("http_host") == ["a"]


def test_what_follows_the_head_is_not_looked_at() -> None:
    env = GatewayRequestHandler.parse_request(b"POST /a HTTP/1.0\nContent-Length: 4\n\n\0\xff\n\n")
    assert dict(env.items()) == {
        "content-length": "4",
        "request_method": "POST",
        "path_info": "/a",
    }


@pytest.mark.parametrize("blob", ["", "\n", "GET", "GET / HTTP/1.1\nno field\n\n", "\0", "é\n\n"])
def test_what_is_no_request_is_the_peers_fault(blob: str) -> None:
    with pytest.raises(RemoteProtocolError):
        GatewayRequestHandler.parse_request(blob)


# The class of a URL


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/kv55", 200, b"stop /kv55"),
        ("/kv55/57330430", 200, b"stop /kv55/57330430"),
        ("//kv55//1", 200, b"stop //kv55//1"),
        ("/kv55/all/more", 203, b"all"),
        ("/kv55all", 404, None),
        ("/", 404, None),
    ],
)
def test_the_longest_path_that_fits_is_taken(
    connect: Connect, path: str, status: int, body: bytes | None
) -> None:
    client = connect(Gateway)
    client.send(get(path))
    assert client.status() == (status, None)
    assert body is None or client.body == body


def test_a_head_is_answered_without_the_body(connect: Connect) -> None:
    client = connect(Gateway)
    client.send(get("/kv55/all", "HEAD"))
    assert client.status() == (203, None)
    assert b"\r\nContent-Length: 3\r\n" in client.said
    assert client.body == b""


def test_a_method_reads_the_body(connect: Connect) -> None:
    client = connect(Gateway)
    client.send(get("/kv55/all", "POST", "Content-Length: 4\r\n\r\nbody"))
    assert client.body == b"body"
    assert b"\r\ncontent-type: x/y\r\n" in client.said
    assert client.said.lower().count(b"content-type") == 1


@pytest.mark.parametrize("method", ["POST", "DELETE", "BREW"])
def test_a_method_that_the_class_does_not_have_is_answered_with_those_it_has(
    connect: Connect, method: str
) -> None:
    client = connect(Gateway)
    client.send(get("/kv55", method))
    assert client.status()[0] == 405
    assert b"\r\nAllow: GET, HEAD\r\n" in client.said
    assert client.raised == []


@pytest.mark.parametrize(("path", "body"), [("/x", b"plain"), ("/kv55", b"stop /kv55")])
def test_plain_methods_run_on_a_thread_and_others_beside_them(
    connect: Connect, path: str, body: bytes
) -> None:
    executor = Executor(1)
    client = connect(Mixed, executor=executor)
    client.send(get(path))
    for _ in list(executor.jobs):
        executor.step()
    assert client.body == body


@pytest.mark.parametrize("status", ["OK", "", "20", "2000 many", "two hundred"])
def test_a_status_that_is_none_is_refused(connect: Connect, status: str) -> None:
    class Wrong(Page):
        async def do_GET(self, env: Environment) -> None:
            self.web_handler.send_response("", status)

    client = connect(type("Handler", (GatewayRequestHandler,), {"urls": {"/": Wrong}}))
    client.send(get("/"))
    assert client.status()[0] == 500
    assert client.raised == [ValueError]


@pytest.mark.parametrize(
    ("named", "fault"),
    [
        ("nowhere_at_all:Stop", "cannot import 'nowhere_at_all:Stop', the class for '/a': Module"),
        (f"{__name__}:Nothing", f"cannot import '{__name__}:Nothing', the class for '/a': Attrib"),
        ("", "cannot import '', the class for '/a': ValueError"),
        (f"{__name__}:SEED", f"'{__name__}:SEED', for '/a', is not a class with a do_GET"),
        (NoMethod, "for '/a', is not a class with a do_GET"),
    ],
)
def test_a_class_that_cannot_be_had_is_named_before_anything_is_served(
    connect: Connect, named: Any, fault: str
) -> None:
    handler = type("Handler", (GatewayRequestHandler,), {"urls": {"/a": named}})
    with pytest.raises(ConfigurationError) as caught:
        connect(handler)
    assert str(caught.value).startswith("handler Handler: ")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seconds", ["10", 0, -1, True, float("inf"), float("nan")])
def test_a_timeout_that_is_none_is_told_before_anything_is_served(
    connect: Connect, seconds: Any
) -> None:
    handler = type("Handler", (Gateway,), {"backend_timeout": seconds})
    with pytest.raises(ConfigurationError) as caught:
        connect(handler)
    fault = f"backend_timeout: {seconds!r} is not a number of seconds above 0 (None: for ever)"
    assert str(caught.value) == f"handler Handler: {fault}"


@pytest.mark.parametrize("urls", [["/stop"], "/stop", None, {"/stop"}])
def test_urls_that_are_no_mapping_are_told_before_anything_is_served(
    connect: Connect, urls: Any
) -> None:
    handler = type("Handler", (Gateway,), {"urls": urls})
    with pytest.raises(ConfigurationError, match=r"^handler Handler: urls: .* is no mapping, as"):
        connect(handler)


@pytest.mark.parametrize("status", ["slow", "", "50", "504\tTimeout"])
def test_a_status_for_timeouts_that_is_none_is_told_before_anything_is_served(
    connect: Connect, status: str
) -> None:
    handler = type("Handler", (Gateway,), {"timeout_status": status})
    with pytest.raises(ConfigurationError) as caught:
        connect(handler)
    fault = f"timeout_status {status!r}: write a number and words, as in '200 Ok'"
    assert str(caught.value) == f"handler Handler: {fault}"


def test_a_module_that_raises_is_named(
    connect: Connect, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breaks_when_imported.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    handler = type("Handler", (GatewayRequestHandler,), {"urls": {"/": "breaks_when_imported:A"}})
    with pytest.raises(ConfigurationError, match=r"'breaks_when_imported:A'.*ZeroDivisionError"):
        connect(handler)


# What is behind the gateway


@pytest.fixture
def slow(connect: Connect) -> Callable[..., Connection]:
    def slow(**attributes: Any) -> Connection:
        client = connect(type("Handler", (Gateway,), attributes))
        client.server.call = Deferred()  # type: ignore[attr-defined]
        client.send(get("/slow"))
        return client

    return slow


def test_an_answer_in_time_is_the_clients(slow: Callable[..., Connection]) -> None:
    client = slow()
    client.advance(12)
    assert client.said == b""
    client.server.call.callback("answer")  # type: ignore[attr-defined]
    assert client.body == b"answer"
    client.advance(2)
    assert not client.ended


@pytest.mark.parametrize(
    ("attributes", "seconds", "line"),
    [
        ({}, 13, b"HTTP/1.1 504 Gateway Timeout\r\n"),
        ({"backend_timeout": 3}, 3, b"HTTP/1.1 504 Gateway Timeout\r\n"),
        ({"timeout_status": "406 Gateway timeout"}, 13, b"HTTP/1.1 406 Gateway timeout\r\n"),
        ({"timeout_status": "503"}, 13, b"HTTP/1.1 503 Service Unavailable\r\n"),
    ],
)
def test_a_call_that_takes_too_long_is_cancelled_and_told(
    slow: Callable[..., Connection], attributes: dict[str, Any], seconds: int, line: bytes
) -> None:
    client = slow(**attributes)
    client.advance(seconds - 1)
    assert client.said == b""
    client.advance(1)
    assert client.said.startswith(line)
    assert client.server.call.called  # type: ignore[attr-defined]
    assert client.raised == []
    assert not client.ended


def test_without_a_limit_a_call_may_take_its_time(slow: Callable[..., Connection]) -> None:
    client = slow(backend_timeout=None)
    client.advance(100)
    client.server.call.callback("answer")  # type: ignore[attr-defined]
    assert client.body == b"answer"


def test_a_timeout_of_a_plain_method_is_told_likewise(connect: Connect) -> None:
    client = connect(Mixed, executor=Executor(1))
    client.ask(get("/?late"))
    assert client.status()[0] == 504
    assert client.raised == []


def test_a_deadline_of_the_server_is_told_as_of_all_handlers(connect: Connect) -> None:
    client = connect(Gateway, handle=5)
    client.server.call = Deferred()  # type: ignore[attr-defined]
    client.send(get("/slow"))
    client.advance(5)
    assert client.status() == (504, "close")
    assert client.expiries == {"handle": 1}


# Phases


@pytest.mark.parametrize("ends", ["answered", "timed out", "client gone"])
def test_phases_are_told_however_the_request_ends(
    slow: Callable[..., Connection], ends: str
) -> None:
    client = slow()
    if ends == "answered":
        client.server.call.callback("answer")  # type: ignore[attr-defined]
    elif ends == "timed out":
        client.advance(13)
    else:
        client.lose()
    client.turn()
    client.lose()
    client.turn()
    [record] = client.server.records
    assert set(record.phases) == {"GOVI_OUT", "handle"}
    assert record.phases["GOVI_OUT"] >= 0
    assert client.server.statistics.durations["GOVI_OUT"].count == 1
    assert record.outcome == ("lost" if ends == "client gone" else "ok")


def test_phases_of_a_thread_are_told(connect: Connect) -> None:
    client = connect(Mixed, executor=Executor(1))
    client.ask(get("/"))
    assert client.body == b"plain"
    [record] = client.server.records
    assert set(record.phases) == {"GOVI_OUT", "handle"}
