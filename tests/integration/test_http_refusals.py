"""
What HTTP clients are refused: the error reaches them whatever else they send, and what
could be delimited in two ways ends the connection.
"""

import re

import pytest

from sockserve import Deadlines
from sockserve.http import HTTPRequestHandler
from tests.integration.servers import PATIENCE_SECONDS, counts, in_thread, serving, until
from tests.integration.web import HOST, Conversation, chunked, conversing, get, post, said

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


class Site(HTTPRequestHandler):
    """Answers with its path, and reads no body."""

    async def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    do_POST = do_GET


class BlockingSite(HTTPRequestHandler):
    def do_POST(self):
        self.send_response(200)
        self.end_headers()


#: For clients that send much before they read, be they as slow as they may.
PATIENT = Deadlines(linger=PATIENCE_SECONDS)

LONG = "x" * 70_000

REFUSED = {
    400: b"GET / HTTP/1.1\r\n\r\n",
    414: get("/" + LONG),
    417: get("/", "Expect: 200-maybe"),
    431: get("/", "X: " + LONG),
    501: get("/", "Transfer-Encoding: gzip, chunked", method="POST"),
    505: get(version="HTTP/2.0"),
}


@pytest.mark.parametrize("status", REFUSED)
async def test_whatever_else_a_client_sends_it_gets_to_read_the_error(status):
    def client(conversation):
        conversation.send(REFUSED[status] + b"x" * (4 * 2**20))
        answer = conversation.answer()
        assert answer.headers["Connection"] == "close"
        assert answer.headers["Content-Type"].startswith("text/html")
        return answer.status, conversation.rest()

    assert await conversing(Site, client, deadlines=PATIENT) == (status, b"")


@pytest.mark.parametrize("in_chunks", [False, True])
async def test_so_it_does_when_its_body_is_too_large(in_chunks):
    body = b"x" * (4 * 2**20)
    if in_chunks:
        request = get("/", "Transfer-Encoding: chunked", method="POST") + chunked(body)
    else:
        request = post(body)
    async with serving(BlockingSite, deadlines=PATIENT) as server:
        server.max_body_bytes = 1000

        def client():
            with Conversation(server.server_address) as conversation:
                conversation.send(request)
                return conversation.answer("POST").status, conversation.rest()

        assert await in_thread(client) == (413, b"")


LENGTH, CHUNKS = "Content-Length: 3", "Transfer-Encoding: chunked"
ONE_CHUNK = b"3\r\nabc\r\n0\r\n\r\n"


def posted(*fields, body=ONE_CHUNK, version="HTTP/1.1"):
    return get("/", *fields, method="POST", version=version) + body


@pytest.mark.parametrize(
    "request_",
    [
        posted(LENGTH, CHUNKS),
        posted(CHUNKS, LENGTH),
        posted(LENGTH, "Content-Length: 4"),
        posted(LENGTH, LENGTH),
        posted("Content-Length: 3, 3"),
        posted("Content-Length: +3"),
        posted("Content-Length: 0x3"),
        posted("Content-Length: 3_0"),
        posted("Content-Length:"),
        posted("Content-Length: \xb2"),
        posted(CHUNKS, version="HTTP/1.0"),
        posted("Transfer-Encoding: xchunked"),
        posted("Transfer-Encoding: chunked, identity"),
        posted("Transfer-Encoding: chunked, chunked"),
        posted("Transfer-Encoding: \x0bchunked"),
        posted("Transfer-Encoding: 'chunked'"),
        posted("Transfer-Encoding : chunked"),
        posted("Transfer-Encoding:", " chunked"),
        posted("X: y", " Transfer-Encoding: chunked"),
        posted("X: y\nTransfer-Encoding: chunked"),
        posted("X: y\rTransfer-Encoding: chunked"),
        posted("X: \0", CHUNKS),
        posted("Transfer\xadEncoding: chunked"),
        posted("Host: other", LENGTH, body=b"abc"),
        posted(CHUNKS, body=b"0x3\r\nabc\r\n0\r\n\r\n"),
        posted(CHUNKS, body=b"+3\r\nabc\r\n0\r\n\r\n"),
        posted(CHUNKS, body=b" 3\r\nabc\r\n0\r\n\r\n"),
        posted(CHUNKS, body=b"ffffffffffffffff3\r\nabc\r\n0\r\n\r\n"),
        posted(CHUNKS, body=b"3\r\nabcd\r\n0\r\n\r\n"),
        posted(CHUNKS, body=b"3\nabc\n0\n\n"),
        posted(CHUNKS, body=b"3;\nabc\r\n0\r\n\r\n"),
        posted(CHUNKS, body=b"\r\n3\r\nabc\r\n0\r\n\r\n"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /\tHTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\n" + HOST + b"\n",
        b"GET http://a b/ HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
)
@pytest.mark.parametrize("reads", [False, True])
async def test_nothing_is_smuggled(request_, reads):
    """What one could delimit otherwise than another is refused, and nothing after it served."""
    served = []

    class Reading(Site):
        async def do_GET(self):
            served.append(self.path)
            if reads:
                await self.rfile.read()
            await super().do_GET()

        do_POST = do_GET

    data = await said(Reading, request_ + get("/smuggled") * 2)
    assert "/smuggled" not in served
    assert len(re.findall(rb"HTTP/1\.1 [0-9]{3} ", data)) == 1
    status = int(data[9:12])
    # A body's mistakes show when it is read; without that there is an answer before them.
    assert status in (400, 501, 505) or (served == ["/"] and not reads and status == 200)


async def test_a_body_that_ends_too_early_is_the_clients_mistake():
    class Reading(Site):
        async def do_POST(self):
            await self.rfile.read()
            await self.do_GET()

    async with serving(Reading) as server:

        def client():
            with Conversation(server.server_address) as conversation:
                conversation.send(post(b"abc")[:-1])
                conversation.end()
                return conversation.answer("POST").status

        assert await in_thread(client) == 400
        await until(lambda: not server.statistics.active)
        assert counts(server) == {"accepted": 1, "requests": 1}
