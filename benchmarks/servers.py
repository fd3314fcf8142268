"""
The contestants, one small server each: ``python -m benchmarks.servers NAME [SECONDS]``.

Each listens on a port of 127.0.0.1 that the system chooses, prints that port as its first
line, and serves until it is killed or the seconds are over.
"""

import asyncio
import gc
import resource
import signal
import socketserver
import sys

LOOPBACK = "127.0.0.1"


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
    server_class.request_queue_size = 128  # by default 5: 64 clients at once lose SYNs
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


if __name__ == "__main__":
    signal.alarm(int([*sys.argv, "3600"][2]))  # nothing outlives a benchmark that was killed
    signal.signal(signal.SIGUSR1, lambda *_: gc.collect())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    globals()[sys.argv[1].replace("-", "_")]()
