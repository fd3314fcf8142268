"""Handlers that several of the tests here serve, in this process or in a child."""

import http.server
import multiprocessing
import os
import signal
import socketserver
import sys
import time

from twisted.internet.task import deferLater

import sockserve
from sockserve.http import HTTPRequestHandler

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


# Children of handlers


def fork(how):
    """
    Fork, and tell of the child in the log.  It comes back from here like its parent.

    @param how: C{return}, C{raise}, C{exit}, or C{stay} for a child that stays until a signal
        ends it.
    """
    pid = os.fork()
    if pid:
        tell(f"child is {pid}")
        tell(f"child ended with {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")
    elif how == "raise":
        raise RuntimeError("the child's")
    elif how == "exit":
        sys.exit("the child's")
    elif how == "stay":
        signal.pause()


def work_in_processes():
    """Have processes of C{multiprocessing}'s do something, and tell of them in the log."""
    context = multiprocessing.get_context("fork")
    done = context.Process(target=sys.exit, args=(3,))
    done.start()
    done.join()
    stopped = context.Process(target=signal.pause)
    stopped.start()
    stopped.terminate()
    stopped.join()
    with context.Pool(2) as pool:
        tell(f"processes: {done.exitcode} {stopped.exitcode} {pool.map(abs, [-1, -2])}")


def tell(text):
    """Write a line to the log."""
    os.write(2, text.encode() + b"\n")


def do_as_asked(word):
    """Fork as C{word} says, or let C{multiprocessing} do it."""
    if word == "processes":
        work_in_processes()
    else:
        fork(word)


class BlockingParent(socketserver.StreamRequestHandler):
    def handle(self):
        do_as_asked(self.rfile.readline().split()[1].decode().strip("/"))


class CoroutineParent(sockserve.StreamRequestHandler):
    async def handle(self):
        line = await self.rfile.readline()
        do_as_asked(line.split()[1].decode().strip("/"))


class WaitingParent(CoroutineParent):
    """What is waited for after the fork is the reactor's to bring."""

    async def handle(self):
        await super().handle()
        self.wfile.write(b"done\n")
        await self.wfile.drain()
        await self.rfile.read()


class StockHTTPParent(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        do_as_asked(self.path.strip("/"))
        self.send_response(204)
        self.end_headers()


class BlockingHTTPParent(HTTPRequestHandler):
    def do_GET(self):
        do_as_asked(self.path.strip("/"))
        self.send_response(204)
        self.end_headers()


class CoroutineHTTPParent(HTTPRequestHandler):
    async def do_GET(self):
        do_as_asked(self.path.strip("/"))
        self.send_response(204)
        self.end_headers()


class WaitingHTTPParent(HTTPRequestHandler):
    async def do_GET(self):
        do_as_asked(self.path.strip("/"))
        await deferLater(self.server.clock, 0)
        self.send_response(204)
        self.end_headers()


class DatagramParent(socketserver.DatagramRequestHandler):
    def handle(self):
        do_as_asked(self.rfile.read().split()[1].decode().strip("/"))


class CoroutineDatagramParent(sockserve.DatagramRequestHandler):
    async def handle(self):
        do_as_asked(self.rfile.read().split()[1].decode().strip("/"))


# What holds up the reactor


class Stuck(sockserve.StreamRequestHandler):
    """Holds up the reactor for as many seconds as it is told, in the way it is told."""

    async def handle(self):
        while line := await self.rfile.readline():
            how, seconds = line.split()
            getattr(self, how.decode())(float(seconds))
            self.wfile.write(line)

    def wait(self, seconds):
        time.sleep(seconds)

    def compute(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
