import socketserver
import time

from django.db import connection, transaction
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from sockserve import StreamRequestHandler
from sockserve.django import with_connections
from sockserve.http import HTTPRequestHandler
from workers.models import Result


def store(name):
    """Store a result; gives how many there are, and whether this thread was connected before."""
    was_connected = connection.connection is not None
    with transaction.atomic():
        Result.objects.create(name=name)
    return f"{Result.objects.count()} {was_connected}\n".encode()


class Blocking(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(store(self.rfile.readline().decode().strip()))


class Coroutine(StreamRequestHandler):
    async def handle(self):
        line = await self.rfile.readline()
        self.wfile.write(await deferToThread(with_connections(store), line.decode().strip()))


class Slow(HTTPRequestHandler):
    def do_GET(self):
        print("slow: began", flush=True)
        time.sleep(0.5)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"after half a second\n")


class Failing(HTTPRequestHandler):
    def do_GET(self):
        raise ValueError("on purpose")


class Stuck(HTTPRequestHandler):
    def do_GET(self):
        print("stuck: began", flush=True)
        time.sleep(60)


class Waiting(StreamRequestHandler):
    async def handle(self):
        self.wfile.write(b"began\n")
        await Deferred()
