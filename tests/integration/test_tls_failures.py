"""TLS handshakes and PROXY headers that come to nothing: what the client is told, and the log."""

import contextlib
import logging
import re
import select
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest
from twisted.internet import endpoints
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
)
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols.haproxy import proxyEndpoint

import sockserve.http.server
from sockserve import Deadlines, StreamRequestHandler
from sockserve.core.addresses import shown_address
from sockserve.core.tls import CIPHERS
from sockserve.dropin.service import SocketServerService
from sockserve.http import HTTPRequestHandler
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.service import RequestService
from tests.integration.handlers import Echo
from tests.integration.servers import (
    PATIENCE_SECONDS,
    PROXIED_CLIENT,
    PROXY_HEADER,
    certificate_file,
    certificate_pem,
    connect,
    description,
    in_thread,
    is_ended,
    read_all,
    read_line,
    reset,
    running,
    secure,
    serving,
    trusting,
    until,
)
from tests.integration.socketservers import blocking, looping

pytestmark = [
    pytest.mark.usefixtures("no_leaks", "errors"),
    # What old clients are made of.
    pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning"),
]

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Hello(HTTPRequestHandler):
    async def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello\n")


# Clients whose handshake fails


def speak(client, *pieces, ends=False):
    """Send what is not TLS; all that comes back, if anything does."""
    for piece in pieces:
        client.sendall(piece)
    if ends:
        with contextlib.suppress(OSError):  # the server may have ended the connection already
            client.shutdown(socket.SHUT_WR)
    try:
        return read_all(client)
    except ConnectionResetError:
        return b""


def shake(client, **changes):
    """A handshake by a client whose context is changed; None when it comes to something."""
    context = trusting(changes.pop("certificate", None))
    for name, value in changes.items():
        if name == "ciphers":
            context.set_ciphers(value)
        elif name == "protocols":
            context.set_alpn_protocols(value)
        else:
            setattr(context, name, value)
    try:
        with context.wrap_socket(client) as secured:
            secured.recv(1)  # of TLS 1.3 the client hears late
    except (ssl.SSLError, ConnectionError) as error:
        return error
    return None


def hello():
    """The first flight of a client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        trusting().wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


def go(client):
    """Nothing but a look whether somebody listens, as balancers do."""


def go_midway(client):
    client.sendall(hello()[:50])


def reset_at_once(client):
    reset(client)


def reset_midway(client):
    client.sendall(hello()[:50])
    reset(client)


def old(client):
    client_is = {"minimum_version": ssl.TLSVersion.TLSv1, "maximum_version": ssl.TLSVersion.TLSv1_1}
    assert shake(client, ciphers="ALL:@SECLEVEL=0", **client_is)


def with_weak_ciphers(client):
    twelve = ssl.TLSVersion.TLSv1_2
    weak = "ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA:AES128-SHA256:@SECLEVEL=0"
    assert shake(client, ciphers=weak, maximum_version=twelve)


FAILURES = {
    "plain HTTP": lambda client: speak(client, GET),
    "not TLS": lambda client: speak(client, b"EHLO localhost\r\n"),
    "not TLS, binary": lambda client: speak(client, bytes(range(1, 60))),
    "alert unknown ca": lambda client: shake(client, verify_mode=ssl.CERT_REQUIRED),
    "no shared cipher": with_weak_ciphers,
    "unsupported protocol version": old,
    "closed by the client": go,
    "closed by the client, midway": go_midway,
    "reset by the client": reset_at_once,
    "reset by the client, midway": reset_midway,
}
every_failure = pytest.mark.parametrize("failure", FAILURES)


def fail(failure, address, said=b""):
    with connect(address) as client:
        client.sendall(said)
        FAILURES[failure](client)


@every_failure
@pytest.mark.parametrize("kind", ["ssl", "tls", "haproxy:ssl"])
async def test_a_failed_handshake_has_an_outcome_and_a_reason(kind, failure, tmp_path):
    reason = failure.partition(",")[0]
    records = []
    with capturedLogs() as events:
        async with serving(Echo, description(kind, tmp_path)) as server:
            server.observers.append(records.append)
            header = PROXY_HEADER if kind.startswith("haproxy:") else b""
            await in_thread(fail, failure, server.server_address, header)
            await until(lambda: records)
    (record,) = records
    assert (record.outcome, record.reason) == ("failed: handshake", reason)
    assert dict(server.statistics.failures) == {"handshake": 1}
    assert server.statistics.requests == 0
    assert (record.peer == PROXIED_CLIENT) is bool(header)
    told = [formatEvent(event) for event in events if "line" in event]
    assert told == [f"Echo: the client {shown_address(record.peer)}: handshake failed: {reason}"]


@pytest.mark.parametrize("said", [b"PROXY TCP4 here\r\n", b"PROXY TCP4", b"", None])
async def test_a_bad_proxy_header_before_tls(said, tmp_path):
    """It is broken, cut off, or missing; or inside of TLS, which is not where it belongs."""

    def talk(address):
        with connect(address) as client:
            if said is None:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    secure(client)
            else:
                client.sendall(said)
                client.shutdown(socket.SHUT_WR)
                assert is_ended(client)

    records = []
    with capturedLogs():
        async with serving(Echo, description("haproxy:ssl", tmp_path)) as server:
            server.observers.append(records.append)
            await in_thread(talk, server.server_address)
            await until(lambda: records)
    assert [record.outcome for record in records] == ["failed: proxy header"]


async def test_a_protocol_that_is_not_spoken_here(tmp_path):
    records = []
    async with serving(Hello, description("ssl", tmp_path)) as server:
        server.observers.append(records.append)
        with_h2 = connect(server.server_address)
        assert await in_thread(lambda: shake(with_h2, protocols=["h2"]))
        await until(lambda: records)
    assert records[0].reason == "no shared application protocol"


@pytest.mark.parametrize(
    ("name", "reason"), [(None, "no client certificate"), ("eve", "client certificate refused")]
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_without_the_right_certificate(name, reason, version, tmp_path):
    from twisted.internet import reactor

    own = PrivateCertificate.loadPEM(certificate_pem())
    alice = Certificate.loadPEM(certificate_pem("alice"))
    context = own.options(alice)
    endpoint = endpoints.SSL4ServerEndpoint(reactor, 0, context, interface="127.0.0.1")
    records = []
    async with running(RequestService(endpoint, StreamFactory(Echo, reactor=reactor))) as service:
        service.server.observers.append(records.append)
        client = connect(service.server.server_address)
        certificate = certificate_file(tmp_path, name) if name else None
        assert await in_thread(
            lambda: shake(client, certificate=certificate, maximum_version=version)
        )
        await until(lambda: records)
    assert (records[0].outcome, records[0].reason) == ("failed: handshake", reason)


async def test_a_handshake_that_takes_too_long_has_expired(tmp_path):
    records = []
    deadlines = Deadlines(handshake=0.05)
    with capturedLogs() as events:
        async with serving(Echo, description("ssl", tmp_path), deadlines=deadlines) as server:
            server.observers.append(records.append)
            with connect(server.server_address) as client:
                await in_thread(is_ended, client)
            await until(lambda: records)
    assert [record.outcome for record in records] == ["expired: handshake"]
    assert any("the handshake deadline expired" in formatEvent(event) for event in events)


async def test_many_that_fail_alike_have_one_line_and_their_number_in_the_end(tmp_path):
    """20 that speak HTTP, 5 that come and go: a line for each kind, and 19 and 4 at the end."""
    with capturedLogs() as events:
        async with serving(Echo, description("ssl", tmp_path)) as server:
            for failure, count in [("plain HTTP", 20), ("closed by the client", 5)]:
                for _ in range(count):
                    await in_thread(fail, failure, server.server_address)
            await until(lambda: server.statistics.failures["handshake"] == 25)
            while_it_ran = [formatEvent(event) for event in events if "line" in event]
    assert len(while_it_ran) == 2
    in_the_end = [formatEvent(event) for event in events if "line" in event][2:]
    assert in_the_end == [
        "Echo: handshake failed: plain HTTP: 19 more like it before",
        "Echo: handshake failed: closed by the client: 4 more like it before",
    ]


class StartsTLS(StreamRequestHandler):
    async def handle(self):
        self.wfile.write(b"220 go ahead\n")
        own = PrivateCertificate.loadPEM(certificate_pem())
        await self.start_tls(own.options())
        async for line in self.rfile:
            self.wfile.write(line)


@pytest.mark.parametrize("kind", ["tcp", "haproxy:tcp"])
@pytest.mark.parametrize(
    "failure", ["not TLS", "alert unknown ca", "no shared cipher", "unsupported protocol version"]
)
async def test_a_handshake_that_a_handler_asked_for_and_that_fails(kind, failure, tmp_path):
    records = []

    def talk(address):
        client = connect(address)
        with client:
            if kind.startswith("haproxy"):
                client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.80 4711 80\r\n")
            assert read_line(client) == b"220 go ahead\n"
            FAILURES[failure](client)

    with capturedLogs() as events:
        async with serving(StartsTLS, description(kind, tmp_path)) as server:
            server.observers.append(records.append)
            await in_thread(talk, server.server_address)
            await until(lambda: records)
    (record,) = records
    assert (record.outcome, record.reason) == ("failed: handshake", failure)
    told = [formatEvent(event) for event in events if "line" in event]
    assert told == [
        f"StartsTLS: the client {shown_address(record.peer)}: handshake failed: {failure}"
    ]


# Plain HTTP


def answered(said):
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Content-Type: text/plain" in head
    assert b"Connection: close" in head
    length = re.search(rb"Content-Length: (\d+)", head)
    assert length is not None
    return body, int(length[1])


PLAIN = {
    "get": [GET],
    "byte by byte": [bytes([byte]) for byte in GET],
    "head": [GET.replace(b"GET", b"HEAD")],
    "options": [b"OPTIONS * HTTP/1.1\r\n\r\n"],
    "delete": [b"DELETE /a HTTP/1.0\r\n\r\n"],
    "connect": [b"CONNECT localhost:80 HTTP/1.1\r\n\r\n"],
    "propfind": [b"PROPFIND /a HTTP/1.1\r\n\r\n"],
    "a line with no more": [b"GET / HTTP/1.1\n"],
    "an empty line before": [b"\r\n" + GET],
    "a body": [b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", b"x" * 1_000_000],
}
NOT_HTTP = {
    "smtp": b"EHLO localhost\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "memcached": b"GET a b\r\n",
    "http/0.9": b"GET /\r\n",
    "binary": bytes(range(1, 200)),
    "a record": b"\x16\x03\x01\x00\x05hello",
    "letters": b"A" * 100_000,
}


def dropin_server(folder, cls=sockserve.http.server.ThreadingHTTPSServer):
    return cls(
        ("127.0.0.1", 0),
        sockserve.http.server.SimpleHTTPRequestHandler,
        certfile=certificate_file(folder),
    )


#: However slow a client is here, it is not cut off for going on after the answer.
PATIENT = Deadlines(linger=PATIENCE_SECONDS)


async def speaks(kind, folder, *pieces, ends=False):
    """What a server answers that expects TLS."""

    def talk(address):
        with connect(address) as client:
            return speak(client, *pieces, ends=ends)

    if kind == "dropin":
        server = dropin_server(folder)
        server.deadlines = PATIENT
        with looping(server):
            return await in_thread(talk, server.server_address)
    async with serving(Hello, description(kind, folder), deadlines=PATIENT) as server:
        return await in_thread(talk, server.server_address)


@pytest.mark.parametrize("kind", ["ssl", "tls", "dropin"])
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("name", PLAIN)
async def test_plain_http_is_told_that_it_is(kind, name, ends, tmp_path):
    body, length = answered(await speaks(kind, tmp_path, *PLAIN[name], ends=ends))
    assert b"plain HTTP request was sent to HTTPS port" in body or name == "head"
    assert len(body) == (0 if name == "head" else length)


@pytest.mark.parametrize("kind", ["ssl", "tls", "dropin"])
@pytest.mark.parametrize("name", NOT_HTTP)
async def test_what_is_no_http_is_not_answered_in_http(kind, name, tmp_path):
    said = await speaks(kind, tmp_path, NOT_HTTP[name], ends=True)
    assert b"HTTP" not in said
    assert len(said) <= 7  # an alert, if anything


async def test_a_client_that_goes_on_after_the_answer_is_ended(tmp_path):
    deadlines = Deadlines(linger=4)
    async with serving(Hello, description("ssl", tmp_path), deadlines=deadlines) as server:
        with connect(server.server_address) as client:
            client.sendall(GET)
            answered(await in_thread(read_all, client))
            client.sendall(b"more")  # thrown away, until it has had that long
            assert server.statistics.active == 1
            await until(lambda: not server.statistics.active)


@pytest.mark.parametrize("way", ["serve_forever", "handle_request", "served"])
async def test_a_drop_in_server_says_how_long_it_may_go_on(way, tmp_path):
    """0.05 s here, and by default 2."""
    from twisted.internet import reactor

    def talk(address):
        with connect(address) as client:
            client.sendall(GET)
            answered(read_all(client))
            began = time.monotonic()
            reset = select.poll()
            reset.register(client, 0)
            with contextlib.suppress(ConnectionError):
                while not reset.poll(10):
                    client.sendall(b"more")
            return time.monotonic() - began

    server = dropin_server(tmp_path, sockserve.http.server.HTTPSServer)
    server.deadlines = Deadlines(linger=0.05)
    if way == "serve_forever":
        with looping(server):
            seconds = await in_thread(talk, server.server_address)
    elif way == "handle_request":
        with server:
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            seconds = await in_thread(talk, server.server_address)
            await in_thread(thread.join)
    else:
        async with running(SocketServerService(server, reactor)):
            seconds = await in_thread(talk, server.server_address)
    assert seconds < 1.9


async def test_curl_tells_what_it_was_told(tmp_path):
    async with serving(Hello, description("ssl", tmp_path)) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        ran = await in_thread(
            lambda: subprocess.run(["curl", "-si", url], capture_output=True, check=True)
        )
    answered(ran.stdout)


def test_handle_request_answers_plain_http_and_goes_on(tmp_path):
    server = dropin_server(tmp_path, sockserve.http.server.HTTPSServer)
    with server, connect(server.server_address) as client:
        client.sendall(GET)
        client.shutdown(socket.SHUT_WR)
        server.handle_request()
        answered(read_all(client))


# What is agreed on


CLIENTS = [
    (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], False),
    (["-tls1_2", "-cipher", "AES128-GCM-SHA256:AES256-SHA256"], False),
    (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA"], False),
    (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-CCM"], False),
    (["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256"], True),
    (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256"], True),
    (["-tls1_3"], True),
]


def openssl(address, *options):
    """The cipher that C{openssl} agrees on with a server, and all it says; None for none."""
    host, port = address[:2]
    command = ["openssl", "s_client", "-connect", f"{host}:{port}", "-servername", "localhost"]
    ran = subprocess.run(
        [*command, *options], input="", capture_output=True, text=True, timeout=30, check=False
    )
    agreed = re.search(r"Cipher is (\S+)", ran.stdout)
    return (None if agreed is None or agreed[1] == "(NONE)" else agreed[1]), ran.stdout


@pytest.mark.parametrize("kind", ["ssl", "tls", "start_tls", "dropin"])
async def test_ciphers_and_versions_are_those_of_mozillas_guideline(kind, tmp_path):
    """
    The client's order counts: it gets the first of two that both are offered.  Nothing is
    compressed, and nobody may negotiate anew.
    """

    def talk(address):
        for options, is_served in CLIENTS:
            more = ["-starttls", "smtp"] if kind == "start_tls" else []
            cipher, said = openssl(address, *options, *more)
            assert (cipher is not None) == is_served, (options, said)
            if is_served and options[0] == "-tls1_2":
                assert cipher == options[2].partition(":")[0]
                assert cipher in CIPHERS
                assert "Compression: NONE" in said

    if kind == "dropin":
        server = dropin_server(tmp_path)
        with looping(server):
            await in_thread(talk, server.server_address)
        return
    handler, where = (Mail, "tcp") if kind == "start_tls" else (Hello, kind)
    async with serving(handler, description(where, tmp_path)) as server:
        await in_thread(talk, server.server_address)


class Mail(StreamRequestHandler):
    async def handle(self):
        self.wfile.write(b"220 localhost\r\n")
        async for line in self.rfile:
            if line.startswith(b"EHLO"):
                self.wfile.write(b"250-localhost\r\n250 STARTTLS\r\n")
            elif line.startswith(b"STARTTLS"):
                self.wfile.write(b"220 go ahead\r\n")
                await self.start_tls(PrivateCertificate.loadPEM(certificate_pem()).options())


@pytest.mark.parametrize("kind", ["ssl", "tls", "dropin"])
async def test_nobody_negotiates_anew(kind, tmp_path):
    def talk(address):
        host, port = address[:2]
        ran = subprocess.run(
            ["openssl", "s_client", "-connect", f"{host}:{port}", "-tls1_2"],
            input="R\nGET / HTTP/1.0\n\n",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return ran.stderr

    if kind == "dropin":
        server = dropin_server(tmp_path)
        with looping(server):
            said = await in_thread(talk, server.server_address)
    else:
        async with serving(Hello, description(kind, tmp_path)) as server:
            said = await in_thread(talk, server.server_address)
    assert "no renegotiation" in said


async def test_options_with_ciphers_of_their_own_stay_as_they_are(tmp_path):
    from twisted.internet.ssl import AcceptableCiphers

    own = PrivateCertificate.loadPEM(certificate_pem())
    options = CertificateOptions(
        privateKey=own.privateKey.original,
        certificate=own.original,
        acceptableCiphers=AcceptableCiphers.fromOpenSSLCipherString("ECDHE-ECDSA-AES256-SHA384"),
    )

    class Own(StreamRequestHandler):
        async def handle(self):
            await self.start_tls(options)

    async with serving(Own) as server:
        agreed = await in_thread(openssl, server.server_address, "-tls1_2")
    assert agreed[0] == "ECDHE-ECDSA-AES256-SHA384"


# Certificates by name


async def test_a_name_without_a_certificate_gets_the_first_and_one_line(tmp_path):
    def talk(address, name):
        with connect(address) as client:
            context = trusting()
            with context.wrap_socket(client, server_hostname=name) as secured:
                return Certificate.load(secured.getpeercert(True)).getSubject().commonName

    with capturedLogs() as events:
        async with serving(Echo, description("tls", tmp_path)) as server:
            named = [
                await in_thread(talk, server.server_address, name)
                for name in ["localhost", None, "other.example", "another.example"]
            ]
            certificate_file(tmp_path, "late")
            await until(lambda: late_enough(server))
            named.append(await in_thread(talk, server.server_address, "late"))
    assert named == [b"localhost"] * 4 + [b"late"]
    told = [formatEvent(event) for event in events if "certificate" in event.get("line", "")]
    assert told[0].endswith("is for 'other.example'; the first is used")
    assert len([line for line in told if "more like it" not in line]) == 1


def late_enough(server):
    """The folder is looked at again after a second at the earliest."""
    from twisted.internet import reactor

    if not hasattr(server, "asked_at"):
        server.asked_at = reactor.seconds()
    return reactor.seconds() > server.asked_at + 1.1


# PROXY headers

V2 = b"\r\n\r\n\0\r\nQUIT\n"
ADDRESSES = struct.pack("!4B4BHH", 192, 0, 2, 7, 192, 0, 2, 80, 4711, 80)

HEADERS = {
    GET: "no header",
    b"\x16\x03\x01\x02\x00" + bytes(60): "TLS in place of a header",
    b"PROXY TCP5 192.0.2.7 192.0.2.80 4711 80\r\n": "the family is not TCP4, TCP6 or UNKNOWN",
    b"PROXY TCP4 192.0.2.7 192.0.2.80 4711\r\n": "not two addresses and two ports",
    b"PROXY TCP4 192.0.2.777 192.0.2.80 4711 80\r\n": "an address that is none of TCP4",
    b"PROXY TCP4 192.0.2.7 192.0.2.80 many 80\r\n": "a port that is none of 0 to 65535",
    b"PROXY TCP4 " + b"1" * 200 + b"\r\n": "no line of at most 107 bytes",
    V2 + b"\x31\x11\0\x0c" + ADDRESSES: "not version 2 with the command LOCAL or PROXY",
    V2 + b"\x21\x11\0\x04" + ADDRESSES: "too short for its addresses",
    b"": "closed by the client",
    b"PROXY TCP4 192.0": "closed by the client",
}


@pytest.mark.parametrize("header", HEADERS)
async def test_a_bad_proxy_header_has_an_outcome_and_a_reason(header, tmp_path):
    records = []

    def talk(address):
        with connect(address) as client:
            speak(client, header, ends=True)

    with capturedLogs() as events:
        async with serving(Echo, description("haproxy:tcp", tmp_path)) as server:
            server.observers.append(records.append)
            await in_thread(talk, server.server_address)
            await until(lambda: records)
    (record,) = records
    assert (record.outcome, record.reason) == ("failed: proxy header", HEADERS[header])
    assert dict(server.statistics.failures) == {"proxy header": 1}
    (told,) = [formatEvent(event) for event in events if "line" in event]
    assert (
        told
        == f"Echo: the client {shown_address(record.peer)}: proxy header failed: {HEADERS[header]}"
    )


async def test_twisteds_own_wrapper_of_proxy_headers_has_an_outcome():
    from twisted.internet import reactor

    endpoint = proxyEndpoint(endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
    records = []

    def talk(address):
        with connect(address) as client:
            speak(client, GET)
        connect(address).close()

    async with running(RequestService(endpoint, StreamFactory(Echo, reactor=reactor))) as service:
        service.server.observers.append(records.append)
        await in_thread(talk, service.server.server_address)
        await until(lambda: len(records) == 2)
    assert [record.outcome for record in records] == ["failed: proxy header"] * 2
    assert [record.reason for record in records] == ["no header", "closed by the client"]


# Drop-in servers


@every_failure
@pytest.mark.parametrize("kind", ["HTTPSServer", "ThreadingHTTPSServer"])
@blocking
def test_a_drop_in_server_logs_it_once(kind, failure, tmp_path, caplog):
    caplog.set_level(logging.INFO, "sockserve.connections")
    server = dropin_server(tmp_path, getattr(sockserve.http.server, kind))
    with looping(server):
        for _ in range(3):
            fail(failure, server.server_address)
        with secure(connect(server.server_address)) as client:  # behind these
            client.sendall(GET)
            assert client.recv(4) == b"HTTP"
    reason = failure.partition(",")[0]
    first, last = [
        record.getMessage() for record in caplog.records if reason in record.getMessage()
    ]
    assert re.fullmatch(rf"{kind}: the client 127.0.0.1:\d+: handshake failed: {reason}", first)
    assert last == f"{kind}: handshake failed: {reason}: 2 more like it before"


@every_failure
async def test_a_served_object_has_its_outcomes(failure, tmp_path):
    from twisted.internet import reactor

    service = SocketServerService(dropin_server(tmp_path), reactor)
    records = []
    service.server.observers.append(records.append)
    address = service.server.server_address
    with capturedLogs() as events:
        async with running(service):
            await in_thread(fail, failure, address)
            await until(lambda: records)
    (record,) = records
    reason = failure.partition(",")[0]
    assert (record.outcome, record.reason) == ("failed: handshake", reason)
    assert any(f"handshake failed: {reason}" in formatEvent(event) for event in events)


def test_what_nobody_is_asked_for_is_not_asked_for_here(tmp_path):
    """As CPython's: no certificate of the client's, and its word on protocols."""
    server = dropin_server(tmp_path)
    with server:
        context = server.socket.context
        assert context.verify_mode == ssl.CERT_NONE
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        agreed = [each["name"] for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"]
        assert agreed == [each for each in CIPHERS if each in agreed]
        assert len(agreed) >= 6
