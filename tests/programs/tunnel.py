"""``tunnel PORT``: the forwarder of paramiko's demo, with a plain socket for SSH's channel."""

import select
import socket
import socketserver
import sys


class ForwardServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            chan = self.ssh_transport((self.chain_host, self.chain_port))
        except Exception as e:
            verbose(f"Incoming request to {self.chain_host} failed: {e!r}")
            return
        while True:
            r, _w, _x = select.select([self.request, chan], [], [])
            if self.request in r:
                data = self.request.recv(1024)
                if len(data) == 0:
                    break
                chan.send(data)
            if chan in r:
                data = chan.recv(1024)
                if len(data) == 0:
                    break
                self.request.send(data)

        peername = self.request.getpeername()
        chan.close()
        self.request.close()
        verbose(f"Tunnel closed from {peername!r}")


def verbose(s):
    print(s)


def forward_tunnel(local_port, remote_host, remote_port, transport):
    # SocketServer doesn't give Handlers any way to access the outer server normally.
    class SubHander(Handler):
        chain_host = remote_host
        chain_port = remote_port
        ssh_transport = staticmethod(transport)

    server = ForwardServer(("127.0.0.1", local_port), SubHander)
    print(server.server_address[1])
    server.serve_forever()


forward_tunnel(0, "127.0.0.1", int(sys.argv[1]), socket.create_connection)
