"""A client that says nothing where TLS is spoken holds up nobody."""

import socket
import ssl
import threading

import pytest

from sockserve import Deadlines, socketserver
from sockserve.http import server as http_server
from tests.integration.servers import certificate_file, in_thread, is_ended, read_all, trusting

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


class Web(http_server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.connection.version().encode())

    def log_message(self, *arguments):
        """Quiet."""


def wrapped(certificate):
    """As programs did before there was an HTTPSServer."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Web)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


MAKERS = {
    "HTTPSServer": lambda certificate: http_server.HTTPSServer(
        ("127.0.0.1", 0), Web, certfile=certificate
    ),
    "ThreadingHTTPSServer": lambda certificate: http_server.ThreadingHTTPSServer(
        ("127.0.0.1", 0), Web, certfile=certificate
    ),
    "wrapped": wrapped,
}


def connect(server):
    return socket.create_connection(server.server_address, 15)


def get(server):
    # The stdlib's servers end a connection without TLS's own end, too.
    with trusting().wrap_socket(connect(server)) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return read_all(client)


async def served(server, talk):
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        return await in_thread(talk)
    finally:
        await in_thread(server.shutdown)
        await in_thread(thread.join)
        await in_thread(server.server_close)


@pytest.mark.parametrize("kind", MAKERS)
async def test_a_silent_client_holds_up_nobody(kind, tmp_path):
    server = MAKERS[kind](certificate_file(tmp_path))

    def talk():
        with connect(server), connect(server):
            return get(server)

    assert (await served(server, talk)).endswith(b"\r\n\r\nTLSv1.3")


async def test_it_is_let_go_of_when_the_handshake_takes_too_long(tmp_path):
    class Server(http_server.HTTPSServer):
        deadlines = Deadlines(handshake=0.2)

    server = Server(("127.0.0.1", 0), Web, certfile=certificate_file(tmp_path))

    def talk():
        with connect(server) as silent:
            return is_ended(silent)

    assert await served(server, talk)


async def test_a_client_that_speaks_no_tls_harms_nobody(tmp_path, capfd):
    server = MAKERS["HTTPSServer"](certificate_file(tmp_path))

    def talk():
        with connect(server) as plain:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert is_ended(plain)
        return get(server)

    assert (await served(server, talk)).endswith(b"TLSv1.3")
    assert capfd.readouterr().err == ""


async def test_handle_request_does_the_handshake_by_itself(tmp_path):
    server = MAKERS["HTTPSServer"](certificate_file(tmp_path))
    once = threading.Thread(target=server.handle_request)
    once.start()
    assert (await in_thread(get, server)).endswith(b"TLSv1.3")
    await in_thread(once.join)
    server.server_close()


async def test_verify_request_may_look_at_the_session(tmp_path):
    seen = []

    class Server(http_server.HTTPSServer):
        def verify_request(self, request, client_address):
            seen.append(request.version())
            return True

    server = Server(("127.0.0.1", 0), Web, certfile=certificate_file(tmp_path))
    await served(server, lambda: get(server))
    assert seen == ["TLSv1.3"]
