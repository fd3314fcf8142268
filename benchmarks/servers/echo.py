"""Echo servers: of lines over TCP, and of datagrams."""

import asyncio
import socketserver

from benchmarks.servers.start import (
    BACKLOG,
    LOOPBACK,
    listening,
    port_of,
    ready,
    serve_factory,
    serve_sockserve,
    serve_stdlib,
    use_uvloop_reactor,
)

# Lines over TCP


async def streams():
    async def echo(reader, writer):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, LOOPBACK, 0, backlog=BACKLOG)
    ready(port_of(server.sockets[0]))
    await server.serve_forever()


def tcp_asyncio():
    asyncio.run(streams())


def tcp_uvloop():
    import uvloop

    uvloop.run(streams())


def tcp_uvloop_protocol():
    """Looks for no lines: what is left of uvloop is the least that any costs."""
    import uvloop

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data)

    sock = listening()
    loop = uvloop.new_event_loop()
    loop.run_until_complete(loop.create_server(Echo, sock=sock, backlog=BACKLOG))
    ready(port_of(sock))
    loop.run_forever()


def tcp_gevent():
    from gevent.server import StreamServer

    def echo(sock, address):
        for line in sock.makefile("rb"):
            sock.sendall(line)

    server = StreamServer((LOOPBACK, 0), echo, backlog=BACKLOG)
    server.start()
    ready(server.server_port)
    server.serve_forever()


def tcp_linereceiver():
    from twisted.internet.protocol import Factory
    from twisted.protocols.basic import LineReceiver

    class Echo(LineReceiver):
        delimiter = b"\n"

        def lineReceived(self, line):
            self.sendLine(line)

    serve_factory(Factory.forProtocol(Echo))


class StreamEcho(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


def tcp_threading():
    serve_stdlib(socketserver.ThreadingTCPServer, StreamEcho)


def tcp_dropin():
    import sockserve.socketserver

    serve_stdlib(sockserve.socketserver.ThreadingTCPServer, StreamEcho)


def tcp_sockserve():
    from sockserve import StreamRequestHandler

    class Echo(StreamRequestHandler):
        async def handle(self):
            async for line in self.rfile:
                self.wfile.write(line)
                await self.wfile.drain()

    serve_sockserve("tcp", Echo)


def tcp_sockserve_uvloop_reactor():
    use_uvloop_reactor()
    tcp_sockserve()


def tcp_sockserve_threads():
    serve_sockserve("tcp", StreamEcho)


# Datagrams


class DatagramEcho(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request
        sock.sendto(data, self.client_address)


def udp_udpserver():
    serve_stdlib(socketserver.UDPServer, DatagramEcho)


def udp_dropin():
    import sockserve.socketserver

    serve_stdlib(sockserve.socketserver.UDPServer, DatagramEcho)


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
