"""Errors over HTTP: whoever answers, the server or the handler, they have the form of its class."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler

import pytest
from twisted.internet.defer import Deferred

from sockserve import Deadlines
from sockserve.http import FileRequestHandler, HTTPRequestHandler
from tests.integration.web import conversing, get

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def untold_exits(monkeypatch):
    """Threads end by C{SystemExit} without a word, under pytest too."""
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)


FORM = {
    "error_message_format": "<own>%(code)d %(message)s: %(explain)s</own>",
    "error_content_type": "text/x-own",
    "server_version": "Own/1",
    "sys_version": "",
    "protocol_version": "HTTP/1.1",
}


async def never(self):
    await Deferred()


async def read(self):
    await self.rfile.read()


async def fail(self):
    raise KeyError("on purpose")


def wait(self):
    self.server.is_answered.wait(10)


def fail_here(self):
    raise KeyError("on purpose")


def leave(self):
    sys.exit(0)


Coroutine = type(
    "Coroutine",
    (HTTPRequestHandler,),
    {**FORM, "do_GET": never, "do_POST": read, "do_FAIL": fail},
)
Blocking = type(
    "Blocking",
    (HTTPRequestHandler,),
    {**FORM, "do_GET": wait, "do_POST": lambda self: self.rfile.read(), "do_FAIL": fail_here},
)
Stock = type(
    "Stock",
    (BaseHTTPRequestHandler,),
    {
        **FORM,
        "do_GET": wait,
        "do_POST": lambda self: self.rfile.read(),
        "do_FAIL": leave,
        "log_message": lambda self, *words: None,
    },
)
#: It reads its connection by itself.
Guarded = type("Guarded", (Stock,), {"rbufsize": 0})
Files = type("Files", (FileRequestHandler,), {**FORM, "do_FAIL": fail})

JSON = "Accept: application/json"
LONG = "x" * 70_000

#: By status: what a client sends to be answered with it.  (One line each that has no field.)
BROKEN = {
    400: lambda *fields: get("/", "Content-Length: x", *fields, method="POST"),
    414: lambda *fields: get("/" + LONG, *fields),
    431: lambda *fields: get("/", *fields, "X: " + LONG),
    501: lambda *fields: get("/", "Transfer-Encoding: gzip, chunked", *fields, method="POST"),
    505: lambda *fields: get("/", *fields, version="HTTP/2.0"),
}
SLOW = {
    408: lambda *fields: get("/", "Content-Length: 9", *fields, method="POST"),
    504: lambda *fields: get("/", *fields),
}
LARGE = {413: lambda *fields: get("/", "Content-Length: 2000000000", *fields, method="POST")}
FAILED = {500: lambda *fields: get("/", *fields, method="FAIL")}

#: The deadline that each of the slow is about.
DEADLINES = {408: Deadlines(body=0.2), 504: Deadlines(handle=0.2)}

CASES = [
    *((Coroutine, request, status) for request in (BROKEN, SLOW, FAILED) for status in request),
    *(
        (handler, request, status)
        for handler in (Blocking, Stock)
        for request in (BROKEN, SLOW, LARGE, FAILED)
        for status in request
    ),
    *((Files, request, status) for request in (BROKEN, FAILED) for status in request),
]


def has_own_form(answer, status):
    said = (answer.status, answer.headers["Content-Type"], answer.headers["Server"].strip())
    assert said == (status, "text/x-own", "Own/1")
    assert answer.body.startswith(b"<own>%d " % status)
    assert answer.body.endswith(b"</own>")


async def answered(handler, requests, status, *fields):
    """The server's answer to a client that waits for it."""
    is_answered = threading.Event()

    def prepare(cls, server):
        server.is_answered = is_answered

    cls = type(handler.__name__, (handler,), {"prepare_server": classmethod(prepare)})

    def client(conversation):
        try:
            return conversation.ask(requests[status](*fields))
        finally:
            is_answered.set()

    return await conversing(cls, client, deadlines=DEADLINES.get(status, Deadlines()))


def each(cases):
    ids = [f"{handler.__name__}-{status}" for handler, _, status in cases]
    return pytest.mark.parametrize(("handler", "requests", "status"), cases, ids=ids)


@each([*CASES, (Guarded, BROKEN, 400), (Guarded, BROKEN, 501), (Guarded, FAILED, 500)])
async def test_every_error_has_the_form_of_its_class(handler, requests, status, untold_exits):
    has_own_form(await answered(handler, requests, status), status)


@each([case for case in CASES if case[2] != 414])  # the fields have not come by then
async def test_every_error_is_json_for_whom_wants_that(handler, requests, status, untold_exits):
    answer = await answered(handler, requests, status, JSON)
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    problem = json.loads(answer.body)
    assert set(problem) == {"type", "title", "status", "detail"}
    assert problem["status"] == status
