"""
Random handlers of C{http.server}'s and random clients, under the standard library's
C{ThreadingHTTPServer} and under the drop-in one: the same bytes to the client, and the same
calls in the same order.

The client and the handler wait for each other, so nothing here depends on who is faster: the
next request is sent when the handler is done with the one before, or several are sent at once
if none of them ends the connection.

What is excused is in the table of the how-to, and is left out of the grammar: requests that
are malformed or ambiguous, handlers that leave some of a body unread or expect more than there
is, C{Expect}, and those that go on although the client has asked for an end.

C{FUZZ_EXAMPLES=5000 pytest ...} tries that many conversations of each kind, other ones each
time.
"""

import contextlib
import http.server
import re
import socket
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.threads import deferToThread

import sockserve.http.server
from tests.recording import RAISED, Words, connect, recording, shown, tries

pytestmark = pytest.mark.usefixtures("no_leaks")

# The grammar

words = st.text("abcXYZ019-_", min_size=1, max_size=12)
values = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f")).map(
    lambda value: "".join(each for each in value if not 0x7F <= ord(each) < 0xA0)
)
fields = st.lists(
    st.tuples(
        words.map("X-{}".format) | st.sampled_from(["Cookie", "accept", "User-Agent"]), values
    ),
    max_size=4,
)
targets = st.sampled_from(
    ["/", "/a/b?c=d&e", "/%20%2e", "//host/path", "http://example.test/x", "*", "/" + "x" * 3000]
)
bodies = st.binary(max_size=200) | st.sampled_from([b"x" * 70_000, b"line\n" * 3000])

#: How a body is read: so much at a time, or line by line.
readings = st.sampled_from(["all", "pieces", "read1", "readinto", "lines"])

chunks = st.binary(max_size=100) | st.sampled_from([b"y" * 9000, b"z" * 200_000])

#: An answer after which the connection goes on.
answers = st.one_of(
    st.tuples(st.just("answer"), st.sampled_from([200, 204, 404, 599]), st.lists(chunks)),
    st.tuples(st.just("answer in chunks"), st.just(200), st.lists(chunks)),
)

#: What a handler says besides.
given_fields = st.one_of(
    st.tuples(words, values),
    st.tuples(st.just("Connection"), st.sampled_from(["close", "keep-alive"])),
)

#: What else a handler does.
tricks = st.one_of(
    answers,
    answers,
    st.tuples(st.just("send_error"), st.sampled_from([400, 404, 304, 500, 799])),
    st.tuples(st.just("send_error"), st.just(404), st.just("<why>"), st.just("so")),
    st.tuples(st.just("head"), st.lists(given_fields, max_size=2)),
    st.tuples(st.just("write"), chunks),
    st.tuples(st.just("flush")),
    st.tuples(st.just("send"), chunks),
    st.tuples(st.just("makefile")),
    st.tuples(st.just("dup")),
    st.tuples(st.just("close_connection")),
    st.tuples(st.just("raise"), st.sampled_from([*RAISED, "TimeoutError"])),
    st.tuples(st.just("shutdown write")),
    st.tuples(st.just("close wfile")),
    st.tuples(st.just("close")),
    st.tuples(st.just("look")),
    st.tuples(st.just("names")),
    st.tuples(st.just("log")),
)

connections = st.sampled_from([None, None, "close", "keep-alive", "Keep-Alive", "te"])


def requests(actions, versions, connections):
    return st.fixed_dictionaries(
        {
            "method": st.sampled_from(["GET", "HEAD", "POST", "PUT", "BREW"]),
            "target": targets,
            "version": versions,
            "fields": fields,
            "connection": connections,
            "body": st.none() | bodies,
            "to the end": st.booleans(),
            "reading": readings,
            "actions": st.lists(actions, max_size=4),
            "cuts": st.lists(st.integers(0, 300), max_size=3),
        }
    )


calm_requests = requests(answers, st.just("HTTP/1.1"), st.none())
any_requests = requests(
    tricks, st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", None]), connections
)

conversations = st.fixed_dictionaries(
    {
        "together": st.lists(calm_requests, max_size=3),
        "one by one": st.lists(any_requests, min_size=1, max_size=3),
        "attributes": st.fixed_dictionaries(
            {"protocol_version": st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.0"])},
            optional={
                "default_request_version": st.just("HTTP/1.0"),
                "server_version": st.just("Fuzz/1"),
                "error_message_format": st.just("%(code)d %(message)s %(explain)s"),
                "error_content_type": st.just("text/plain"),
                "wbufsize": st.sampled_from([-1, 1, 4096]),
                "rbufsize": st.just(4096),
                "disable_nagle_algorithm": st.just(True),
                "timeout": st.just(20),
            },
        ),
        "has BREW": st.booleans(),
        "verdict": st.sampled_from([True] * 9 + [False]),
    }
)


def ends_with_connection(request):
    """Whether the client ends its side, by which alone the end of the body can be told."""
    connection = (request["connection"] or "").lower()
    last = {"HTTP/1.1": connection == "close", "HTTP/1.0": connection != "keep-alive"}
    return (
        request["to the end"]
        and request["method"] not in ("GET", "HEAD")
        and request["body"] is not None
        and last.get(request["version"], False)
    )


def raw(request):
    """A request as it is sent."""
    if request["version"] is None:
        return f"GET {request['target']}\r\n\r\n".encode("latin-1")
    lines = [f"{request['method']} {request['target']} {request['version']}", "Host: test"]
    lines += [f"{name}: {value}" for name, value in request["fields"]]
    if request["connection"]:
        lines.append(f"Connection: {request['connection']}")
    if request["body"] is not None and not ends_with_connection(request):
        lines.append(f"Content-Length: {len(request['body'])}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (request["body"] or b"")


# The handler


class Conversing(http.server.BaseHTTPRequestHandler):
    """Does its part of a conversation."""

    def note(self, what):
        self.server.record.note(what)

    def log_message(self, template, *arguments):
        self.note(f"log {self.client_address[0]} {template % arguments}")

    def do_GET(self):
        request = self.server.to_be_answered.pop(0)
        self.note((self.command, self.path, self.request_version, self.raw_requestline))
        self.note((self.close_connection, list(self.headers.items())))
        self.word = b"-"
        try:
            if request["version"]:
                self.note(f"body: {shown(self.body(request))}")
            for name, *given_ in request["actions"]:
                self.attempt(name, *given_)
                if self.word == b"!":  # the client may be gone by now
                    break
            if self.word == b"-" and not self.close_connection:
                self.word = b"+"
        finally:
            self.server.to_client.say(self.word)

    do_HEAD = do_POST = do_PUT = do_GET

    def body(self, request):
        ends = ends_with_connection(request)
        left = 10**6 if ends else int(self.headers.get("Content-Length", 0))
        if request["reading"] == "all":
            return self.rfile.read(None if ends else left)
        data = b""
        while len(data) < left and (piece := self.piece(request["reading"], left - len(data))):
            data += piece
        return data

    def piece(self, reading, left):
        if reading == "pieces":
            return self.rfile.read(min(left, 50))
        if reading == "read1":
            return self.rfile.read1(left)
        if reading == "lines":
            return self.rfile.readline(left)
        piece = bytearray(min(left, 1000))
        return piece[: self.rfile.readinto(piece)]

    def attempt(self, name, *given_):
        """Do something; note what it gives, or raises."""
        if name == "raise":
            raise {**RAISED, "TimeoutError": TimeoutError}[given_[0]](given_[0])
        do = getattr(self, "do_" + name.replace(" ", "_"), None) or getattr(self, name)
        try:
            result = do(*given_)
        except Exception as error:
            result = type(error).__name__
        self.note(f"{name}: {shown(result)}")

    def do_answer(self, code, pieces):
        self.send_response(code)
        self.send_header("Content-Length", str(sum(map(len, pieces))))
        self.end_headers()
        for piece in pieces:
            self.wfile.write(piece)

    def do_answer_in_chunks(self, code, pieces):
        self.send_response(code, "Fine")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in [*filter(None, pieces), b""]:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def do_head(self, fields):
        self.send_response_only(200)
        for name, value in fields:
            if value != "keep-alive" or not self.close_connection:
                self.send_header(name, value)
        self.end_headers()

    def do_write(self, data):
        return self.wfile.write(data)

    def do_flush(self):
        self.wfile.flush()

    def do_send(self, data):
        self.wfile.flush()
        self.request.sendall(data)

    def do_makefile(self):
        self.wfile.flush()
        with self.connection.makefile("wb") as file:
            file.write(b"by another file")

    def do_dup(self):
        self.wfile.flush()
        with self.connection.dup() as copy:
            copy.sendall(b"by a copy")

    def do_close_connection(self):
        self.close_connection = True

    def do_shutdown_write(self):
        self.word = b"!"
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)

    def do_close_wfile(self):
        self.word = b"!"
        self.wfile.close()

    def do_close(self):
        self.word = b"!"
        self.connection.close()

    def do_look(self):
        """What is true of a connection whose first request has been read."""
        connection = self.connection
        return (
            connection is self.request,
            connection.gettimeout(),
            connection.getsockname() == self.server.server_address,
            connection.getpeername() == self.client_address,
            isinstance(connection, socket.socket),
            self.server.server_port == self.server.server_address[1],
        )

    def do_names(self):
        return (
            self.version_string(),
            self.address_string(),
            self.requestline,
            len(self.date_time_string()),
            self.headers.get_content_type(),
            self.headers.get_all("x-a"),
            self.rfile.closed,
            self.wfile.closed,
            self.rfile.readable(),
            self.wfile.writable(),
        )

    def do_log(self):
        self.log_message("%s", self.log_date_time_string()[2:3])
        self.log_request("-", 7)
        self.log_error("error %d", 3)


# Running


class Recorded:
    """Notes what it calls; but no method that would have it keep its threads."""

    daemon_threads = False  # server_close waits for what is being served

    def verify_request(self, request, client_address):
        self.record.begun.say()
        # It is on under ours.  Without, what a close throws away depends on acknowledgements.
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.record.note("verify_request")
        return self.verdict

    def process_request(self, request, client_address):
        self.record.note("process_request")
        super().process_request(request, client_address)

    def handle_error(self, request, client_address):
        error = sys.exc_info()[1]
        self.record.note(f"handle_error {type(error).__name__} {error.args}")


class Client:
    """
    Does the other part.

    @ivar heard: what is received, and how it ends.
    """

    def __init__(self, address, from_handler):
        self.sock = connect(address)
        self.from_handler = from_handler
        self.heard = b"", "never"

    def run(self, together, one_by_one):
        reader = threading.Thread(target=self.read)
        with self.sock:
            reader.start()
            if self.goes_on(together) and all(self.goes_on([each]) for each in one_by_one):
                self.end()
            reader.join()

    def goes_on(self, requests):
        """Send requests; tell whether the connection is to go on when they are answered."""
        sent = b"".join(map(raw, requests))
        cuts = sorted(cut for each in requests for cut in each["cuts"])
        with contextlib.suppress(ConnectionError):  # it has been sent away before
            for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
                self.sock.sendall(sent[start:end])
        if requests and ends_with_connection(requests[-1]):
            self.end()
        for _ in requests:
            # One for a method that the handler does not have is answered by an end.
            word = self.from_handler.wait(self.sock)
            if word == b"!":  # the handler has seen to it that nobody else ends it
                self.end()
            if word != b"+":
                return False
        return True

    def end(self):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def read(self):
        received = b""
        end = "end of file"
        try:
            while part := self.sock.recv(65536):
                received += part
        except OSError as error:
            end = type(error).__name__
        self.heard = re.sub(rb"Date: [^\r]*", b"Date: now", received), end


def serve_and_talk(base, talk, **variables):
    """What is received, and what ran."""
    with contextlib.ExitStack() as stack:
        to_client = Words()
        stack.callback(to_client.close)
        handler = type("Handler", (Conversing,), talk["attributes"])
        if talk["has BREW"]:
            handler.do_BREW = handler.do_GET
        together = talk["together"] if handler.protocol_version == "HTTP/1.1" else []
        together = [each for each in together if is_known(handler, each)]
        # The body of another is not read, and resets the connection.
        one_by_one = [
            each if is_known(handler, each) else each | {"body": None}
            for each in talk["one by one"]
        ]
        variables |= {"verdict": talk["verdict"], "to_client": to_client}
        server = type("Server", (Recorded, base), variables)(("127.0.0.1", 0), handler)
        server.to_be_answered = [
            each for each in [*together, *one_by_one] if is_known(handler, each)
        ]
        with recording(server) as record:
            stack.callback(record.close)
            client = Client(server.server_address, to_client)
            client.run(together, one_by_one)
            record.begun.wait()
        return talk["verdict"] and client.heard, record.lines()


#: Our answer where a handler ends its thread before it has sent one, to HTTP/0.9 without a head;
#: there is none in the stdlib.
LAST_WORDS = re.compile(
    rb"(?:HTTP/1\.1 500 Internal Server Error\r\nServer: [^\r]*\r\nDate: now\r\n"
    rb"Content-Type: text/(?:html;charset=utf-8|plain)\r\nVary: Accept\r\nContent-Length: [0-9]+"
    rb"\r\nConnection: close\r\n\r\n|<!DOCTYPE HTML>)[^\r]*\Z"
)


def without_last_words(talk, result):
    """What the client of a handler that may end its thread has heard before that."""
    heard, lines = result
    requests = [*talk["together"], *talk["one by one"]]
    exits = any(("raise", "SystemExit") in each["actions"] for each in requests)
    if exits and heard:
        heard = LAST_WORDS.sub(b"", heard[0]), heard[1]
    return heard, lines


def is_known(handler, request):
    """Whether the handler has the method."""
    return request["version"] is None or hasattr(handler, "do_" + request["method"])


@pytest.mark.parametrize("parks_connections", [True, False])
async def test_handlers(parks_connections):
    @tries(200)
    @given(conversations)
    def check(talk):
        expected = serve_and_talk(http.server.ThreadingHTTPServer, talk)
        ours = sockserve.http.server.ThreadingHTTPServer
        result = serve_and_talk(ours, talk, parks_connections=parks_connections)
        assert expected in (result, without_last_words(talk, result))

    await deferToThread(check)
