"""
What the servers share: how one listens, tells its port and runs.

Knows sockets, reactors and the two ways to serve a handler; must not know what is served.
"""

import gc
import socket
import threading
import time

LOOPBACK = "127.0.0.1"
BACKLOG = 4096  # Linux's own bound: 10,000 clients at once lose few SYNs, with any server
NEVER_SECONDS = 3600  # no peer's own patience ends an idle connection that is measured
MANY = 1_000_000_000  # requests: no peer's own bound ends a connection, either
CONNECTIONS = 20_000  # nor keeps one from being accepted
TRY_SECONDS = 0.05


def ready(port):
    gc.collect()
    print(port, flush=True)


def listening():
    """A socket for the servers that take one that listens."""
    return socket.create_server((LOOPBACK, 0), backlog=BACKLOG)


def port_of(sock):
    return sock.getsockname()[1]


def free_port():
    """For the servers that must be told a number."""
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        return port_of(sock)


def ready_when_open(port):
    """Tell the port of a server that says nothing itself, once it accepts."""

    def wait():
        while True:
            try:
                socket.create_connection((LOOPBACK, port)).close()
                return ready(port)
            except ConnectionRefusedError:
                time.sleep(TRY_SECONDS)

    threading.Thread(target=wait, daemon=True).start()


def use_uvloop_reactor():
    """For what is imported from here on."""
    from sockserve.reactors import uvloop

    uvloop.install()


def serve_factory(factory):
    """A factory of Twisted's, on the reactor that is installed."""
    from twisted.internet import reactor

    port = reactor.listenTCP(0, factory, BACKLOG, LOOPBACK)
    ready(port.getHost().port)
    reactor.run()


def serve_stdlib(server_class, handler):
    server_class.request_queue_size = BACKLOG
    with server_class((LOOPBACK, 0), handler) as server:
        ready(server.server_address[1])
        server.serve_forever()


def serve_sockserve(kind, handler):
    from twisted.internet import reactor

    from sockserve import service

    made_by, more = {
        "tcp": (service.RequestService, f":backlog={BACKLOG}"),
        "udp": (service.DatagramRequestService, ""),
    }[kind]
    server = made_by.from_description(reactor, f"{kind}:0:interface={LOOPBACK}{more}", handler)
    server.privilegedStartService()
    server.startService()
    reactor.callWhenRunning(lambda: ready(server.server.server_address[1]))
    reactor.run()
