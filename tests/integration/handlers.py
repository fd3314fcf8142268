"""Handlers that several of the tests here serve, in this process or in a child."""

import socketserver

import sockserve

PIECE = b"." * 2**16


class Echo(sockserve.StreamRequestHandler):
    """A coroutine."""

    async def handle(self):
        async for line in self.rfile:
            self.wfile.write(line)
            await self.wfile.drain()


class BlockingEcho(sockserve.StreamRequestHandler):
    """sockserve's class, with a plain C{handle}."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class StdlibEcho(socketserver.StreamRequestHandler):
    """The stdlib's class, unmodified."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class SlowSink(sockserve.StreamRequestHandler):
    """Reads more slowly than a client sends, then says how much it was."""

    async def handle(self):
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        size = pause = 0
        while data := await self.rfile.read(2**16):
            size += len(data)
            if size >= pause:
                pause += 2**24
                await deferLater(reactor, 0.02)
        self.wfile.write(b"%d" % size)


class BlockingSlowSink(socketserver.StreamRequestHandler):
    """The same on a thread."""

    def handle(self):
        import time

        size = pause = 0
        while data := self.request.recv(2**16):
            size += len(data)
            if size >= pause:
                pause += 2**24
                time.sleep(0.02)
        self.wfile.write(b"%d" % size)


class Source(sockserve.StreamRequestHandler):
    """Sends as many pieces of 64 KiB as it is asked for."""

    async def handle(self):
        for _ in range(int(await self.rfile.readline())):
            self.wfile.write(PIECE)
            await self.wfile.drain()


class BlockingSource(socketserver.StreamRequestHandler):
    """The same on a thread."""

    def handle(self):
        for _ in range(int(self.rfile.readline())):
            self.wfile.write(PIECE)
