"""
The contestants, one small server each: ``python -m benchmarks.servers NAME [SECONDS]``.

Each listens on a port of 127.0.0.1 that the system chooses, prints that port as its first
line, and serves until it is killed or the seconds are over.
"""

import asyncio
import gc
import http.server
import logging
import resource
import signal
import socket
import socketserver
import sys

LOOPBACK = "127.0.0.1"
GREETING = b"Hello, world!"
CONSTANT = (
    b"HTTP/1.1 200 OK\r\nServer: none/1.0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(GREETING), GREETING)
)
NEVER_SECONDS = 3600  # no peer's own patience ends an idle connection that is measured
BLOCK_BYTES = 256 * 1024
PAUSE_EACH_BYTES = 16 * 2**20
PAUSE_SECONDS = 0.05  # a client without a brake sends several times PAUSE_EACH_BYTES in it


def ready(port):
    gc.collect()
    print(port, flush=True)


async def streams():
    async def echo(reader, writer):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, LOOPBACK, 0)
    ready(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def tcp_asyncio():
    asyncio.run(streams())


def tcp_uvloop():
    import uvloop

    uvloop.run(streams())


def tcp_gevent():
    from gevent.server import StreamServer

    def echo(sock, address):
        for line in sock.makefile("rb"):
            sock.sendall(line)

    server = StreamServer((LOOPBACK, 0), echo)
    server.start()
    ready(server.server_port)
    server.serve_forever()


def tcp_linereceiver():
    from twisted.internet import protocol, reactor
    from twisted.protocols.basic import LineReceiver

    class Echo(LineReceiver):
        delimiter = b"\n"

        def lineReceived(self, line):
            self.sendLine(line)

    port = reactor.listenTCP(0, protocol.Factory.forProtocol(Echo), interface=LOOPBACK)
    ready(port.getHost().port)
    reactor.run()


class StreamEcho(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class DatagramEcho(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request
        sock.sendto(data, self.client_address)


def serve_stdlib(server_class, handler):
    server_class.request_queue_size = 2048  # by default 5: many clients at once lose SYNs
    with server_class((LOOPBACK, 0), handler) as server:
        ready(server.server_address[1])
        server.serve_forever()


def tcp_threading():
    serve_stdlib(socketserver.ThreadingTCPServer, StreamEcho)


def udp_udpserver():
    serve_stdlib(socketserver.UDPServer, DatagramEcho)


def udp_twisted():
    from twisted.internet import protocol, reactor

    class Echo(protocol.DatagramProtocol):
        def datagramReceived(self, data, address):
            self.transport.write(data, address)

    ready(reactor.listenUDP(0, Echo(), interface=LOOPBACK).getHost().port)
    reactor.run()


def udp_asyncio():
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport
            ready(transport.get_extra_info("sockname")[1])

        def datagram_received(self, data, address):
            self.transport.sendto(data, address)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(loop.create_datagram_endpoint(Echo, (LOOPBACK, 0)))
    loop.run_forever()


def serve_sockserve(kind, handler):
    from twisted.internet import reactor

    from sockserve import service

    made_by = service.RequestService if kind == "tcp" else service.DatagramRequestService
    server = made_by.from_description(reactor, f"{kind}:0:interface={LOOPBACK}", handler)
    server.privilegedStartService()
    server.startService()
    reactor.callWhenRunning(lambda: ready(server.server.server_address[1]))
    reactor.run()


def tcp_sockserve():
    from sockserve import StreamRequestHandler

    class Echo(StreamRequestHandler):
        async def handle(self):
            async for line in self.rfile:
                self.wfile.write(line)
                await self.wfile.drain()

    serve_sockserve("tcp", Echo)


def tcp_sockserve_threads():
    serve_sockserve("tcp", StreamEcho)


def udp_sockserve():
    from sockserve import BaseRequestHandler

    class Echo(BaseRequestHandler):
        async def handle(self):
            data, sock = self.request
            sock.sendto(data, self.client_address)

    serve_sockserve("udp", Echo)


def udp_sockserve_files():
    from sockserve import DatagramRequestHandler

    class Echo(DatagramRequestHandler):
        async def handle(self):
            self.wfile.write(self.rfile.read())

    serve_sockserve("udp", Echo)


async def hello_asgi(scope, receive, send):
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(GREETING))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": GREETING})


def http_uvicorn():
    import uvicorn

    config = uvicorn.Config(
        hello_asgi,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=NEVER_SECONDS,
    )
    sock = socket.create_server((LOOPBACK, 0))
    ready(sock.getsockname()[1])
    uvicorn.Server(config).run(sockets=[sock])


def http_twistedweb():
    from twisted.internet import reactor
    from twisted.web import resource, server

    class Hello(resource.Resource):
        def render_GET(self, request):
            request.setHeader(b"Content-Type", b"text/plain")
            return GREETING

    class Site(server.Site):
        def log(self, request):
            """No access log here, either."""

    hello = Hello()
    hello.isLeaf = True
    site = Site(hello, timeout=NEVER_SECONDS)
    ready(reactor.listenTCP(0, site, interface=LOOPBACK).getHost().port)
    reactor.run()


def http_twistedprotocol():
    from twisted.internet import protocol, reactor

    class Constant(protocol.Protocol):
        """Reads nothing of what is asked: what is left of Twisted is the least that any costs."""

        def dataReceived(self, data):
            self.transport.write(CONSTANT)

    port = reactor.listenTCP(0, protocol.Factory.forProtocol(Constant), interface=LOOPBACK)
    ready(port.getHost().port)
    reactor.run()


def http_waitress():
    import waitress

    def hello(environ, start_response):
        length = str(len(GREETING))
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", length)])
        return [GREETING]

    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns of each that waits
    server = waitress.create_server(hello, host=LOOPBACK, port=0)
    ready(server.effective_port)
    server.run()


class StdlibHello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(GREETING)))
        self.end_headers()
        self.wfile.write(GREETING)

    def log_message(self, *args):
        """No access log here, either."""


class StdlibHelloAtOnce(StdlibHello):
    disable_nagle_algorithm = True


def tcp_dropin():
    import sockserve.socketserver

    serve_stdlib(sockserve.socketserver.ThreadingTCPServer, StreamEcho)


def udp_dropin():
    import sockserve.socketserver

    serve_stdlib(sockserve.socketserver.UDPServer, DatagramEcho)


def http_dropin():
    import sockserve.http.server

    serve_stdlib(sockserve.http.server.ThreadingHTTPServer, StdlibHello)


def http_threading():
    serve_stdlib(http.server.ThreadingHTTPServer, StdlibHello)


def http_threading_nodelay():
    serve_stdlib(http.server.ThreadingHTTPServer, StdlibHelloAtOnce)


def http_sockserve_stdlib():
    serve_sockserve("tcp", StdlibHello)


def http_sockserve():
    from sockserve.http import HTTPRequestHandler

    class Hello(HTTPRequestHandler):
        async def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            self.wfile.write(GREETING)

    serve_sockserve("tcp", Hello)


def http_sockserve_threads():
    from sockserve.http import HTTPRequestHandler

    class Hello(HTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            self.wfile.write(GREETING)

    serve_sockserve("tcp", Hello)


def serve_rpc(kind, is_coroutine=True):
    from pathlib import Path

    from sockserve import sunrpc

    x = sunrpc.load(Path(__file__).with_name("rpc.x"))

    def answer(call):
        total = call.first + call.second + call.third
        return x.answered(total, total > 1000, call.name)

    class Coroutine(sunrpc.RPCRequestHandler):
        program = x.BENCHMARK

        async def ask(self, call):
            return answer(call)

    class Blocking(sunrpc.RPCRequestHandler):
        program = x.BENCHMARK

        def ask(self, call):
            return answer(call)

    serve_sockserve(kind, Coroutine if is_coroutine else Blocking)


def rpc_tcp_sockserve():
    serve_rpc("tcp")


def rpc_tcp_sockserve_threads():
    serve_rpc("tcp", is_coroutine=False)


def rpc_udp_sockserve():
    serve_rpc("udp")


def rpc_udp_sockserve_threads():
    serve_rpc("udp", is_coroutine=False)


def serve_rpcgen(kind):
    """The server in C: made here, as rpcgen is not everywhere."""
    import os
    import shutil
    import subprocess
    import tempfile
    from pathlib import Path

    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(here / "rpc.x", folder)
        for option, name in (("-h", "rpc.h"), ("-m", "dispatch.c"), ("-c", "types.c")):
            subprocess.run(["rpcgen", option, "-o", name, "rpc.x"], cwd=folder, check=True)
        sources = [here / "rpc_server.c", "dispatch.c", "types.c"]
        command = ["cc", "-O2", "-w", "-I.", "-I/usr/include/tirpc", "-o", "server", *sources]
        subprocess.run([*command, "-ltirpc"], cwd=folder, check=True)
        program = os.open(Path(folder, "server"), os.O_RDONLY)
    os.execve(program, ["server", kind], os.environ)


def rpc_tcp_rpcgen():
    serve_rpcgen("tcp")


def rpc_udp_rpcgen():
    serve_rpcgen("udp")


def transfer_sockserve():
    """It takes a body with pauses, and sends as many bytes as the path says."""
    from twisted.internet.task import deferLater

    from sockserve.http import HTTPRequestHandler

    class Transfer(HTTPRequestHandler):
        async def do_PUT(self):
            count = 0
            pause_at = PAUSE_EACH_BYTES
            while data := await self.rfile.read(BLOCK_BYTES):
                count += len(data)
                if count >= pause_at:
                    pause_at += PAUSE_EACH_BYTES
                    await deferLater(self.server.reactor, PAUSE_SECONDS)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"%d" % count)

        async def do_GET(self):
            size = int(self.path[1:])
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.end_headers()
            for _ in range(0, size, BLOCK_BYTES):
                self.wfile.write(bytes(BLOCK_BYTES))
                await self.wfile.drain()

    serve_sockserve("tcp", Transfer)


def transfer_sockserve_threads():
    from sockserve.http import HTTPRequestHandler

    class Transfer(HTTPRequestHandler):
        def do_PUT(self):
            count = 0
            while data := self.rfile.read(BLOCK_BYTES):
                count += len(data)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"%d" % count)

        def do_GET(self):
            size = int(self.path[1:])
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.end_headers()
            for _ in range(0, size, BLOCK_BYTES):
                self.wfile.write(bytes(BLOCK_BYTES))

    serve_sockserve("tcp", Transfer)


if __name__ == "__main__":
    signal.alarm(int([*sys.argv, "3600"][2]))  # nothing outlives a benchmark that was killed
    signal.signal(signal.SIGUSR1, lambda *_: gc.collect())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    globals()[sys.argv[1].replace("-", "_")]()
