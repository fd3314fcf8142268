"""STARTTLS and logins over real connections, by coroutine and blocking handlers."""

import http.server
import os
import socket
import socketserver
import ssl
import threading
import time
from base64 import b64decode, b64encode
from ipaddress import ip_address

import pytest
from scramp import ScramClient
from twisted.internet import endpoints
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.logger import formatEvent, globalLogPublisher

import sockserve.socketserver
from sockserve import ConfigurationError, Deadlines, StreamRequestHandler
from sockserve.auth import NotAuthenticated, SASLMixIn, TLSClientAuthMixIn, make_portal
from sockserve.auth.door import door_of
from sockserve.http import HTTPRequestHandler
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.server import make_executor
from sockserve.service import RequestService, service_from_description
from tests.auth.mail import BlockingMail, Mail, with_attributes
from tests.integration.servers import (
    PATIENCE_SECONDS,
    PROXY_HEADER,
    certificate_file,
    certificate_pem,
    connect,
    connect_as,
    connect_tls,
    counts,
    description,
    in_thread,
    is_ended,
    read_all,
    read_line,
    running,
    secure,
    serving,
    until,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

KINDS = pytest.mark.parametrize("handler", [Mail, BlockingMail])
PLAIN = b"AUTH PLAIN " + b64encode(b"\0alice\0wonderland") + b"\r\n"


@pytest.fixture
def told():
    """What is logged of clients."""
    lines = []

    def observe(event):
        if event.get("log_namespace") == "sockserve.connections":
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def mail(handler, folder, **attributes):
    return with_attributes(handler, tls_certificate=certificate_file(folder), **attributes)


def portal():
    return make_portal(["memory:alice:wonderland"])


def recorded(server):
    """What observers are told."""
    records = []
    server.observers.append(records.append)
    return records


def ask(client, command):
    client.sendall(command)
    return read_line(client)


def start_tls(client, certificate=None):
    assert ask(client, b"STARTTLS\r\n") == b"220\r\n"
    return secure(client, certificate)


# STARTTLS


@KINDS
@pytest.mark.parametrize("kind", ["tcp", "unix", "haproxy:tcp"])
@pytest.mark.parametrize("buffered", [True, False])
async def test_what_was_said_before_tls_is_forgotten(handler, kind, buffered, tmp_path):
    attributes = {"rbufsize": -1 if buffered else 0, "wbufsize": -1 if buffered else 0}
    if buffered and handler is BlockingMail:
        attributes["wbufsize"] = 0

    def talk(address):
        client = connect(address)
        if kind == "haproxy:tcp":
            client.sendall(PROXY_HEADER)
        assert ask(client, b"EHLO\r\n") == b"250 SCRAM-SHA-256\r\n"
        with start_tls(client) as secured:
            answers = [ask(secured, b"WHO\r\n"), ask(secured, b"EHLO\r\n"), ask(secured, PLAIN)]
            return [*answers, ask(secured, b"WHO\r\n")]

    served = mail(handler, tmp_path, **attributes)
    async with serving(served, description(kind, tmp_path), portal=portal()) as server:
        assert await in_thread(talk, server.server_address) == [
            b"250 False nobody\r\n",
            b"250 SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN\r\n",
            b"235 alice by PLAIN\r\n",
            b"250 True alice by PLAIN\r\n",
        ]
        await until(lambda: not server.statistics.active)
        assert server.statistics.errors == 0


@KINDS
@pytest.mark.parametrize("rbufsize", [-1, 0])
@pytest.mark.parametrize("kind", ["tcp", "haproxy:tcp"])
async def test_commands_behind_starttls_are_refused_and_never_run(
    handler, rbufsize, kind, tmp_path, told
):
    """All in one packet, as who injects them does (CVE-2011-0411)."""

    def talk(address):
        with connect_as(kind, address) as client:
            client.sendall(b"EHLO\r\nSTARTTLS\r\nMAIL FROM:<eve@example.org>\r\nRCPT\r\n")
            answers = [read_line(client), read_line(client)]
            answers.append(ask(client, b"WHO\r\n"))
            with start_tls(client) as secured:
                answers.append(ask(secured, b"WHO\r\n"))
            return answers

    served = mail(handler, tmp_path, rbufsize=rbufsize)
    async with serving(served, description(kind, tmp_path), portal=portal()) as server:
        answers = await in_thread(talk, server.server_address)
        assert answers == [
            b"250 SCRAM-SHA-256\r\n", b"554\r\n", b"250 True nobody\r\n", b"250 False nobody\r\n",
        ]  # fmt: skip
        await until(lambda: not server.statistics.active)
        assert server.statistics.failures == {"handshake": 1}
    failed = [line for line in told if "handshake" in line]
    assert len(failed) == 1
    assert failed[0].endswith("handshake failed: plaintext behind STARTTLS")


@KINDS
async def test_commands_between_starttls_and_the_hello_fail_the_handshake(handler, tmp_path):
    def talk(address):
        with connect(address) as client:
            assert ask(client, b"STARTTLS\r\n") == b"220\r\n"
            client.sendall(b"MAIL FROM:<eve@example.org>\r\n")
            try:
                with secure(client) as secured:
                    assert secured.version() is None  # it was gone before the hello
            except OSError:
                pass

    async with serving(mail(handler, tmp_path), portal=portal()) as server:
        records = recorded(server)
        await in_thread(talk, server.server_address)
        await until(lambda: not server.statistics.active)
        assert server.statistics.failures == {"handshake": 1}
        assert server.statistics.errors == 0
        assert [(each.outcome, each.reason) for each in records] == [
            ("failed: handshake", "not TLS")
        ]


@KINDS
async def test_a_handshake_has_its_deadline(handler, tmp_path, told):
    """1 s, though a byte comes each 0.3 s; idle is 300."""

    def talk(address):
        with connect(address) as client:
            assert ask(client, b"STARTTLS\r\n") == b"220\r\n"
            began = time.monotonic()
            hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"
            try:
                for byte in hello:
                    client.sendall(bytes([byte]))
                    time.sleep(0.3)
            except OSError:
                pass
            assert is_ended(client)
            return time.monotonic() - began

    served = mail(handler, tmp_path)
    async with serving(served, deadlines=Deadlines(handshake=1), portal=portal()) as server:
        records = recorded(server)
        assert await in_thread(talk, server.server_address) < 5
        await until(lambda: not server.statistics.active)
        assert [each.outcome for each in records] == ["expired: handshake"]
        assert counts(server)["expiries"] == {"handshake": 1}
        assert server.statistics.errors == 0
    assert len(told) == 1


async def test_a_blocking_handler_has_its_deadlines_after_starttls(tmp_path):
    """idle: 3 s, from the connection on."""

    def talk(address):
        with start_tls(connect(address)) as secured, pytest.raises(ssl.SSLEOFError):
            read_all(secured)
        return True

    served = mail(BlockingMail, tmp_path)
    async with serving(served, deadlines=Deadlines(idle=3), portal=portal()) as server:
        assert await in_thread(talk, server.server_address)
        await until(lambda: not server.statistics.active)
        assert counts(server)["expiries"] == {"idle": 1}


@KINDS
async def test_a_client_that_ends_tls_gets_its_end(handler, tmp_path):
    """TLS' own end comes before the connection's, so that nobody can have cut it."""

    def talk(address):
        with start_tls(connect(address)) as secured:
            secured.sendall(b"WHO\r\n")
            read_line(secured)
            unwrapped = secured.unwrap()
            return read_all(unwrapped)

    async with serving(mail(handler, tmp_path), portal=portal()) as server:
        assert await in_thread(talk, server.server_address) == b""
        await until(lambda: not server.statistics.active)
        assert server.statistics.errors == 0


@KINDS
async def test_a_client_that_breaks_tls_is_no_error(handler, tmp_path):
    """What is no record of TLS, in the middle of it."""

    def talk(address):
        with start_tls(connect(address)) as secured:
            assert ask(secured, b"WHO\r\n") == b"250 False nobody\r\n"
            with socket.socket(fileno=os.dup(secured.fileno())) as below:
                below.settimeout(PATIENCE_SECONDS)
                below.sendall(b"MAIL FROM:<eve@example.org>\r\n")
                while below.recv(1000):
                    pass

    async with serving(mail(handler, tmp_path), portal=portal()) as server:
        records = recorded(server)
        await in_thread(talk, server.server_address)
        await until(lambda: not server.statistics.active)
        assert server.statistics.errors == 0
        assert [each.outcome for each in records] == ["lost"]


@KINDS
async def test_a_client_that_breaks_tls_off_while_it_is_answered_is_no_error(handler, tmp_path):
    """The answers, 40 MB, have no place anywhere but with the client, who reads none."""

    def talk(address):
        with start_tls(connect(address)) as secured:
            secured.sendall(b"WHO\r\n")
            read_line(secured)
            secured.sendall((b"x" * 4000 + b"\r\n") * 10)

    class Answering(handler):
        def said(self, line):
            return line * 1000 if line.startswith(b"x") else super().said(line)

    async with serving(mail(Answering, tmp_path), portal=portal()) as server:
        records = recorded(server)
        await in_thread(talk, server.server_address)
        await until(lambda: not server.statistics.active)
        assert server.statistics.errors == 0
        assert [each.outcome for each in records] == ["lost"]


async def test_starttls_in_a_child(tmp_path):
    from twisted.internet import reactor

    def talk(address):
        with start_tls(connect(address)) as secured:
            answers = ask(secured, PLAIN), ask(secured, b"WHO\r\n")
            secured.shutdown(socket.SHUT_RDWR)  # the child has a copy of this end
            return answers

    served = mail(BlockingMail, tmp_path)
    fork = make_executor(reactor, "fork")
    async with serving(served, concurrency=fork, portal=portal()) as server:
        answers = await in_thread(talk, server.server_address)
        assert answers == (b"235 alice by PLAIN\r\n", b"250 False alice by PLAIN\r\n")
        await until(lambda: not server.statistics.active)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "tls_certificate is to name"),
        ({"tls_certificate": "/no/such.pem"}, "STARTTLS: '/no/such.pem': No such file"),
        ({"tls_certificate": __file__}, "STARTTLS: .*test_auth.py"),
    ],
)
def test_a_certificate_that_is_none_is_told_when_the_server_is_made(attributes, message):
    from twisted.internet import reactor

    with pytest.raises(ConfigurationError, match=message):
        StreamFactory(with_attributes(Mail, **attributes), reactor=reactor)


def test_a_key_of_another_certificate_is_told(tmp_path):
    from twisted.internet import reactor

    key = certificate_file(tmp_path, "other")
    with pytest.raises(ConfigurationError, match="do not belong together"):
        StreamFactory(mail(Mail, tmp_path, tls_private_key=key), reactor=reactor)


# Certificates of clients


class Who(TLSClientAuthMixIn, StreamRequestHandler):
    async def handle(self):
        shown = self.identity and (self.identity.name, self.identity.subject, self.identity.names)
        self.wfile.write(repr(shown).encode())


class BlockingWho(TLSClientAuthMixIn, StreamRequestHandler):
    def handle(self):
        shown = self.identity and (self.identity.name, self.identity.subject, self.identity.names)
        self.wfile.write(repr(shown).encode())


ALICE = b"('alice', 'CN=alice', ('alice',))"
both = pytest.mark.parametrize("who", [Who, BlockingWho])


@both
@pytest.mark.parametrize("kind", ["ssl", "tls", "haproxy:ssl"])
async def test_a_client_is_known_by_its_certificate(who, kind, tmp_path):
    authorities = tmp_path / "authorities"
    authorities.mkdir()
    alice = certificate_file(authorities, "alice")

    def talk(address):
        client = connect(address)
        if kind == "haproxy:ssl":
            client.sendall(PROXY_HEADER)
        with secure(client, alice) as secured:
            return secured.recv(1000)

    served = with_attributes(who, client_authority=alice)
    async with serving(served, description(kind, tmp_path)) as server:
        assert await in_thread(talk, server.server_address) == ALICE
        await until(lambda: not server.statistics.active)


@both
@pytest.mark.parametrize("kind", ["ssl", "tls"])
@pytest.mark.parametrize(
    ("name", "fault"),
    [(None, "no client certificate"), ("eve", "client certificate refused")],
)
async def test_a_client_without_a_good_certificate_is_turned_away(
    who, kind, name, fault, tmp_path, told
):
    others = tmp_path / "others"
    others.mkdir()
    alice = certificate_file(others, "alice")
    certificate = None if name is None else certificate_file(others, name)

    def talk(address):
        try:
            with connect_tls(address, certificate) as client:
                return is_ended(client)
        except (ssl.SSLError, ConnectionError):
            return True

    served = with_attributes(who, client_authority=alice)
    async with serving(served, description(kind, tmp_path)) as server:
        for _ in range(2):
            assert await in_thread(talk, server.server_address)
        await until(lambda: server.statistics.failures["handshake"] == 2)
        assert server.statistics.requests == 0
    assert len([line for line in told if fault in line]) == 2  # the second says how many more


@both
async def test_a_client_may_be_asked_without_having_to(who, tmp_path):
    others = tmp_path / "others"
    others.mkdir()
    alice = certificate_file(others, "alice")

    def talk(address, certificate):
        with connect_tls(address, certificate) as client:
            return client.recv(1000)

    served = with_attributes(who, client_authority=alice, requires_certificate=False)
    async with serving(served, description("ssl", tmp_path)) as server:
        assert await in_thread(talk, server.server_address, None) == b"None"
        assert await in_thread(talk, server.server_address, alice) == ALICE


class Other:
    """An endpoint of a program's own, of which nobody knows what its connections begin with."""

    def __init__(self, endpoint):
        self._endpoint = endpoint

    def listen(self, factory):
        return self._endpoint.listen(factory)


@both
@pytest.mark.parametrize("over_tls", [True, False])
async def test_who_did_not_ask_lets_nobody_in(who, over_tls, tmp_path, told):
    """An endpoint of a program's own that asks for no certificate, or has no TLS at all."""
    from twisted.internet import reactor

    alice = certificate_file(tmp_path, "alice")
    context = PrivateCertificate.loadPEM(certificate_pem()).options()
    assert isinstance(context, CertificateOptions)
    if over_tls:
        endpoint = endpoints.SSL4ServerEndpoint(reactor, 0, context, interface="127.0.0.1")
    else:
        endpoint = Other(endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))

    def talk(address):
        with connect_tls(address, alice) if over_tls else connect(address) as client:
            return client.recv(1000)

    server = StreamFactory(with_attributes(who, client_authority=alice), reactor=reactor)
    async with running(RequestService(endpoint, server)) as service:
        assert await in_thread(talk, service.server.server_address) == b""
        await until(lambda: not server.statistics.active)
        assert server.statistics.failures == {"authentication": 1}
        assert server.statistics.errors == 0
    assert len(told) == 1
    assert "authentication failed: no client certificate" in told[0]


@both
@pytest.mark.parametrize("kind", ["tcp", "unix", "haproxy:tcp", "udp", "unixgram"])
def test_listeners_that_never_see_a_certificate_are_refused(who, kind, tmp_path):
    from twisted.internet import reactor

    alice = certificate_file(tmp_path, "alice")
    words = "/none" if kind.startswith("unix") else "0:interface=127.0.0.1"
    listen = f"{kind}:{words}"
    with pytest.raises(ConfigurationError, match="certificate only, which none can show") as raised:
        service_from_description(reactor, listen, with_attributes(who, client_authority=alice))
    assert "\n" not in str(raised.value)
    may_have_none = with_attributes(who, client_authority=alice, requires_certificate=False)
    service_from_description(reactor, listen, may_have_none)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), ("", "no certificate"), ("x", "no certif")]
)
def test_an_authority_that_is_none_is_told(content, message, tmp_path):
    from twisted.internet import reactor

    path = tmp_path / "authority.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=f"client authority .*{message}"):
        StreamFactory(with_attributes(Who, client_authority=path), reactor=reactor)
    with pytest.raises(ConfigurationError, match="client_authority is to name"):
        StreamFactory(Who, reactor=reactor)


# Both after STARTTLS


def with_certificates(handler):
    return type(handler.__name__, (TLSClientAuthMixIn, handler), {})


@KINDS
async def test_a_certificate_after_starttls_and_by_external(handler, tmp_path):
    alice = certificate_file(tmp_path, "alice")

    def talk(address):
        with start_tls(connect(address), alice) as secured:
            return [
                ask(secured, b"WHO\r\n"),
                ask(secured, b"EHLO\r\n"),
                ask(secured, b"AUTH EXTERNAL " + b64encode(b"eve") + b"\r\n"),
                ask(secured, b"AUTH EXTERNAL =\r\n"),
                ask(secured, b"AUTH EXTERNAL " + b64encode(b"alice") + b"\r\n"),
            ]

    served = mail(with_certificates(handler), tmp_path, client_authority=alice)
    async with serving(served) as server:
        assert await in_thread(talk, server.server_address) == [
            b"250 False alice by certificate\r\n",
            b"250 EXTERNAL\r\n",
            b"535 wrong credentials\r\n",
            b"235 alice by EXTERNAL\r\n",
            b"235 alice by EXTERNAL\r\n",
        ]


@KINDS
@pytest.mark.parametrize("name", [None, "eve"])
async def test_no_good_certificate_after_starttls(handler, name, tmp_path, told):
    alice = certificate_file(tmp_path, "alice")
    certificate = None if name is None else certificate_file(tmp_path, name)

    def talk(address):
        with connect(address) as client:
            assert ask(client, b"STARTTLS\r\n") == b"220\r\n"
            try:
                with secure(client, certificate) as secured:
                    return is_ended(secured)
            except (ssl.SSLError, ConnectionError):
                return True

    served = mail(with_certificates(handler), tmp_path, client_authority=alice)
    async with serving(served) as server:
        assert await in_thread(talk, server.server_address)
        await until(lambda: not server.statistics.active)
        assert server.statistics.failures == {"handshake": 1}
        assert server.statistics.errors == 0
    assert len(told) == 1


# SCRAM bound to its connection


def scram(client, username="alice", password="wonderland", data=None):
    """An exchange bound to the connection; gives its answer."""
    binding = ("tls-server-end-point", client if data is None else data)
    exchange = ScramClient(["SCRAM-SHA-256-PLUS"], username, password, channel_binding=binding)
    first = b64encode(exchange.get_client_first().encode())
    answer = ask(client, b"AUTH SCRAM-SHA-256-PLUS " + first + b"\r\n")
    exchange.set_server_first(b64decode(answer[4:]).decode())
    answer = ask(client, b64encode(exchange.get_client_final().encode()) + b"\r\n")
    if not answer.startswith(b"334 "):
        return answer
    exchange.set_server_final(b64decode(answer[4:]).decode())
    return ask(client, b"\r\n")


@KINDS
@pytest.mark.parametrize("starts", [True, False])
async def test_scram_is_bound_to_its_connection(handler, starts, tmp_path):
    def talk(address):
        with start_tls(connect(address)) if starts else connect_tls(address) as client:
            return scram(client, data=b"of another"), scram(client, "eve"), scram(client)

    served = mail(handler, tmp_path)
    where = description("tcp" if starts else "ssl", tmp_path)
    async with serving(served, where, portal=portal()) as server:
        assert await in_thread(talk, server.server_address) == (
            b"535 malformed response\r\n",
            b"535 wrong credentials\r\n",
            b"235 alice by SCRAM-SHA-256-PLUS\r\n",
        )
        await until(lambda: not server.statistics.active)
        assert server.statistics.failures == {"authentication": 2}


@KINDS
async def test_a_client_that_was_told_of_no_binding_is_refused(handler, tmp_path):
    """Somebody between has taken -PLUS out of what was offered."""

    def talk(address):
        with start_tls(connect(address)) as client:
            first = b64encode(b"y,,n=alice,r=0123456789abcdef")
            return ask(client, b"AUTH SCRAM-SHA-256 " + first + b"\r\n")

    async with serving(mail(handler, tmp_path), portal=portal()) as server:
        assert await in_thread(talk, server.server_address) == b"535 malformed response\r\n"


# Slowness


def failed_before(server):
    """Have a client's next failure take 16 s: it has had some, a while ago."""
    throttle = door_of(server.portal).throttle
    for _ in range(4):
        throttle.failed(ip_address("127.0.0.1"), server.clock.seconds() - 60)


async def test_a_blocking_handler_that_slows_its_client_ends_with_it(tmp_path):
    """The failure takes 16 s; the client leaves after 0.2."""

    def talk(address):
        with start_tls(connect(address)) as client:
            client.sendall(b"AUTH PLAIN " + b64encode(b"\0alice\0wrong") + b"\r\n")
            time.sleep(0.2)

    async with serving(mail(BlockingMail, tmp_path), portal=portal()) as server:
        failed_before(server)
        await in_thread(talk, server.server_address)
        began = time.monotonic()
        await until(lambda: not server.statistics.active)
        assert time.monotonic() - began < 12
        assert server.statistics.failures == {"authentication": 1}
        assert server.statistics.errors == 0


async def test_a_thread_that_others_wait_for_is_not_kept(tmp_path):
    """One thread, two clients: the first is answered in less than its 16 s."""
    from twisted.internet import reactor

    def talk(address):
        with start_tls(connect(address)) as client, connect(address) as other:
            other.settimeout(0.3)
            with pytest.raises(TimeoutError):
                ask(other, b"EHLO\r\n")  # it waits
            began = time.monotonic()
            answer = ask(client, b"AUTH PLAIN " + b64encode(b"\0alice\0wrong") + b"\r\n")
            return answer, time.monotonic() - began < 12, ask(client, PLAIN)

    threads = make_executor(reactor, "threads", threads=1)
    served = mail(BlockingMail, tmp_path)
    async with serving(served, concurrency=threads, portal=portal()) as server:
        failed_before(server)
        answer, is_soon, again = await in_thread(talk, server.server_address)
        assert answer == again == b"535 too many failures\r\n"
        assert is_soon
        await until(lambda: not server.statistics.active)
        assert server.statistics.failures == {"authentication": 2}


# Handlers of other kinds


class StockMail(SASLMixIn, socketserver.StreamRequestHandler):
    """One of socketserver's."""

    def handle(self):
        for line in self.rfile:
            try:
                self.authenticate(*line.split())
            except NotAuthenticated as failure:
                self.wfile.write(f"no: {failure.refusal.value}\n".encode())
            else:
                self.wfile.write(f"{self.identity.name}\n".encode())


async def test_a_handler_of_socketservers(tmp_path):
    def talk(address):
        with connect_tls(address) as client:
            answers = [ask(client, PLAIN.removeprefix(b"AUTH "))]
            return [*answers, ask(client, b"PLAIN " + b64encode(b"\0alice\0x") + b"\n")]

    async with serving(StockMail, description("ssl", tmp_path), portal=portal()) as server:
        answers = await in_thread(talk, server.server_address)
        assert answers == [b"alice\n", b"no: wrong credentials\n"]


@pytest.mark.parametrize("module", [socketserver, sockserve.socketserver])
async def test_a_server_of_socketservers_with_a_portal(module, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file(tmp_path))

    class Server(module.ThreadingTCPServer):
        def get_request(self):
            client, address = super().get_request()
            return context.wrap_socket(client, server_side=True), address

    Server.portal = portal()

    def talk():
        with Server(("127.0.0.1", 0), StockMail) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            with connect_tls(server.server_address) as client:
                answer = ask(client, PLAIN.removeprefix(b"AUTH "))
            server.shutdown()
            thread.join()
        return answer

    assert await in_thread(talk) == b"alice\n"


class WebWho(TLSClientAuthMixIn, HTTPRequestHandler):
    async def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.identity.name.encode())


class BlockingWebWho(TLSClientAuthMixIn, HTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.identity.name.encode())


class StockWebWho(TLSClientAuthMixIn, http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.identity.name.encode())

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize("who", [WebWho, BlockingWebWho, StockWebWho])
async def test_handlers_of_http_know_certificates(who, tmp_path):
    authorities = tmp_path / "authorities"
    authorities.mkdir()
    alice = certificate_file(authorities, "alice")

    def talk(address):
        with connect_tls(address, alice) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return read_all(client)

    served = with_attributes(who, client_authority=alice)
    async with serving(served, description("ssl", tmp_path)) as server:
        answer = await in_thread(talk, server.server_address)
        assert answer.startswith(b"HTTP/1.")
        assert b" 200 OK\r\n" in answer
        assert b"alice" in answer
