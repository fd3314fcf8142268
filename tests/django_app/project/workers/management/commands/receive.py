from sockserve.django import SockserveCommand
from sockserve.http import HTTPRequestHandler
from workers import versions


class ServerHandler(HTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(versions.VERSION.encode() + b"\n")


class Command(SockserveCommand):
    help = "Receives results from the workers"
    handler_class = ServerHandler
    listen = "tcp:0:interface=127.0.0.1"
