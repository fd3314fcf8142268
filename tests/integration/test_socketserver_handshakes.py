"""TLS clients of the drop-in modules' servers that do their worst, or nothing."""

import socket
import ssl
import threading
import time

import pytest

from sockserve import Deadlines
from tests.integration.servers import (
    PATIENCE_SECONDS,
    certificate_file,
    connect,
    connect_tls,
    is_ended,
    read_all,
    read_line,
    reset,
    trusting,
)
from tests.integration.socketservers import OURS, blocking, eventually, looping, run_program

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

ADDRESS = ("127.0.0.1", 0)


class Echo(OURS.socketserver.StreamRequestHandler):
    """Echoes by line."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


def secured(folder, base=OURS.socketserver.ThreadingTCPServer, **attributes):
    """A server whose socket the program has wrapped."""
    cls = type("Server", (base,), {"request_queue_size": 100, **attributes})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file(folder))
    server = cls(ADDRESS, Echo)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


def echoes(server):
    with connect_tls(server.server_address) as client:
        client.sendall(b"hello\n")
        line = read_line(client)
        client.shutdown(socket.SHUT_RDWR)
        return line == b"hello\n"


def is_refused(client):
    """Whether the connection ends, without TLS's own end, as the standard library has it."""
    try:
        return client.recv(1) == b""
    except (ssl.SSLEOFError, ConnectionError):
        return True


KINDS = pytest.mark.parametrize("kind", ["TCPServer", "ThreadingTCPServer"])


@KINDS
@blocking
def test_many_that_are_silent_take_no_threads(kind, tmp_path):
    server = secured(tmp_path, getattr(OURS.socketserver, kind))
    with looping(server):
        before = threading.active_count()
        silent = [connect(server.server_address) for _ in range(50)]
        assert echoes(server)
        assert threading.active_count() - before < 5
        for client in silent:
            client.close()
        assert echoes(server)


@pytest.mark.parametrize("kind", ["HTTPSServer", "ThreadingHTTPSServer"])
@blocking
def test_https_servers_are_held_up_by_nobody(kind, tmp_path):
    """They listen for TLS by themselves, on every Python."""

    class Web(OURS.http.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.connection.version().encode())

        def log_message(self, *arguments):
            """Quiet."""

    server = getattr(OURS.http, kind)(ADDRESS, Web, certfile=certificate_file(tmp_path))
    address = server.server_address
    # The stdlib's servers end a connection without TLS's own end, too.
    with (
        looping(server),
        connect(address),
        connect(address),
        trusting().wrap_socket(connect(address)) as client,
    ):
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert read_all(client).endswith(b"\r\n\r\nTLSv1.3")


def test_a_forking_server_is_held_up_by_nobody(tmp_path):
    script = f"""
    import ssl
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain({str(certificate_file(tmp_path))!r})
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    server = socketserver.ForkingTCPServer(("127.0.0.1", 0), Echo)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = background(server, poll_interval=0.05)
    with connect(server), connect(server):
        for _ in range(2):
            client = trusting.wrap_socket(connect(server))
            print(say_on(client))
            client.shutdown(socket.SHUT_RDWR)  # the child has a copy
            client.close()
    server.shutdown()
    thread.join()
    server.server_close()
    """
    assert run_program(script) == ["x", "x"]


@KINDS
@pytest.mark.parametrize("deadline", [None, 4 * PATIENCE_SECONDS])
@blocking
def test_a_server_that_stops_lets_go_of_those_that_are_silent(kind, deadline, tmp_path):
    deadlines = Deadlines(handshake=deadline)
    server = secured(tmp_path, getattr(OURS.socketserver, kind), deadlines=deadlines)
    with looping(server):
        silent = connect(server.server_address)
        assert echoes(server)  # by then it has been accepted
    with silent:
        assert is_ended(silent)


def trickles(client):
    """The beginning of a handshake, by bytes, until the connection ends."""
    client.settimeout(0.02)
    for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"." * 500:
        try:
            client.sendall(b"%c" % byte)
            if client.recv(1) == b"":
                return True
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


@pytest.mark.parametrize("end_of", [is_ended, trickles], ids=["silent", "trickles"])
@KINDS
@blocking
def test_one_that_takes_too_long_is_let_go_of_at_the_deadline(kind, end_of, tmp_path):
    base = getattr(OURS.socketserver, kind)
    server = secured(tmp_path, base, deadlines=Deadlines(handshake=0.3))
    with looping(server):
        began = time.monotonic()  # it may be accepted before this thread goes on
        with connect(server.server_address) as slow:
            assert end_of(slow)
            assert 0.2 < time.monotonic() - began < 10


@KINDS
@blocking
def test_handle_request_does_the_handshake_by_itself(kind, tmp_path):
    with secured(tmp_path, getattr(OURS.socketserver, kind)) as server:
        once = threading.Thread(target=server.handle_request)
        once.start()
        assert echoes(server)
        once.join()


@blocking
def test_handle_request_waits_no_longer_than_the_deadline(tmp_path):
    server = secured(tmp_path, deadlines=Deadlines(handshake=0.2))
    with server, connect(server.server_address) as silent:
        began = time.monotonic()
        server.handle_request()
        assert 0.1 < time.monotonic() - began < 10
        assert is_ended(silent)


def says(data):
    def client(address):
        with connect(address) as sock:
            sock.sendall(data)
            assert is_ended(sock)

    return client


def trusts_nobody(address):
    sock = connect(address)
    context = ssl.create_default_context()
    context.check_hostname = False
    with pytest.raises(ssl.SSLCertVerificationError):
        context.wrap_socket(sock)
    sock.close()


def speaks_old(address):
    sock = connect(address)
    context = trusting()
    context.set_ciphers("AES128-SHA")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError, match=r"(?i)handshake"):
        context.wrap_socket(sock)
    sock.close()


def resets(address):
    sock = connect(address)
    sock.sendall(b"\x16\x03\x01")
    reset(sock)


def resets_later(address):
    sock = connect(address)
    inner, outer = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        trusting().wrap_bio(inner, outer).do_handshake()
    sock.sendall(outer.read())
    assert sock.recv(1)
    reset(sock)


@pytest.mark.parametrize(
    "client",
    [
        says(b"GET / HTTP/1.0\r\n\r\n"),
        says(b"\x16\x03\x01\x00\x05hello"),
        trusts_nobody,
        speaks_old,
        resets,
        resets_later,
    ],
    ids=["plain", "nonsense", "trusts_nobody", "speaks_old", "resets", "resets_later"],
)
@KINDS
@blocking
def test_a_handshake_that_fails_is_nobody_elses_business(kind, client, tmp_path, capfd):
    """It is not even told of, as the standard library does not."""
    told = []
    server = secured(
        tmp_path,
        getattr(OURS.socketserver, kind),
        handle_error=lambda server, *arguments: told.append(arguments),
        verify_request=lambda server, *arguments: asked.append(arguments) or True,
    )
    asked = []
    with looping(server):
        client(server.server_address)
        assert echoes(server)
        eventually(lambda: asked)
    assert told == []
    # A client of TLS 1.3 may learn only after the handshake what it does not like.
    assert len(asked) <= 2
    assert capfd.readouterr() == ("", "")


@KINDS
@blocking
def test_what_comes_along_with_the_handshake_is_not_lost(kind, tmp_path):
    server = secured(tmp_path, getattr(OURS.socketserver, kind))
    with looping(server):
        for _ in range(5):
            sock = connect(server.server_address)
            inner, outer = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = trusting().wrap_bio(inner, outer)
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(outer.read())
                    inner.write(sock.recv(2**16))
            tls.write(b"at once\n")
            sock.sendall(outer.read())  # in one piece with Finished
            while True:
                try:
                    assert tls.read(100) == b"at once\n"
                    break
                except ssl.SSLWantReadError:
                    inner.write(sock.recv(2**16))
            sock.close()


@KINDS
@blocking
def test_a_verify_request_that_says_no_comes_after_the_handshake(kind, tmp_path):
    seen = []

    def verify_request(server, request, client_address):
        seen.append((request.version(), threading.current_thread() is serving))
        return False

    base = getattr(OURS.socketserver, kind)
    server = secured(tmp_path, base, verify_request=verify_request)
    with looping(server) as serving, connect_tls(server.server_address) as client:
        assert is_refused(client)
    assert seen == [("TLSv1.3", True)]


@blocking
def test_failed_handshakes_without_a_line_are_told_of_when_the_server_closes(tmp_path, caplog):
    with caplog.at_level("INFO", "sockserve.connections"):
        server = secured(tmp_path)
        with looping(server):
            for _ in range(3):
                with connect(server.server_address) as client:
                    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    assert read_all(client).startswith(b"HTTP/1.1 400 ")
            assert echoes(server)
        lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].endswith(": handshake failed: plain HTTP")
    assert lines[1] == "Server: handshake failed: plain HTTP: 2 more like it before"


@pytest.mark.parametrize("forks_in", ["handle", "verify_request"])
def test_a_child_that_exits_leaves_other_clients_handshakes_to_the_parent(tmp_path, forks_in):
    script = f"""
    import ssl
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain({str(certificate_file(tmp_path))!r})
    trusting = ssl._create_unverified_context()
    served = []
    def fork(method):
        if method == {forks_in!r} and not served:
            served.append(method)
            pid = os.fork()
            if not pid:
                sys.exit()
            os.waitpid(pid, 0)
    class Line(socketserver.StreamRequestHandler):
        def handle(self):
            fork("handle")
            self.wfile.write(self.rfile.readline())
    class Server(socketserver.TCPServer):
        def verify_request(self, request, client_address):
            fork("verify_request")
            return True
        def service_actions(self):
            self.turns += 1
    server = Server(("127.0.0.1", 0), Line)
    server.turns = 0
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = background(server, poll_interval=0.01)
    with connect(server) as waiting:
        before = server.turns
        while server.turns < before + 3:
            time.sleep(0.01)
        for client in (connect(server), waiting):
            with trusting.wrap_socket(client) as secured:
                print(say_on(secured), flush=True)
    server.shutdown()
    thread.join()
    server.server_close()
    """
    assert run_program(script) == ["x", "x"]
