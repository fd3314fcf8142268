"""
HTTP servers of long bodies: they take a PUT, and send as many bytes as the path says.

The slow side of a transfer pauses, here as in the client.
"""

from benchmarks.servers.start import serve_sockserve

BLOCK_BYTES = 256 * 1024
PAUSE_EACH_BYTES = 16 * 2**20
PAUSE_SECONDS = 0.05  # a client without a brake sends several times PAUSE_EACH_BYTES in it


def transfer_sockserve():
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
