from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer

from django.core.management.base import BaseCommand

from workers.handlers import store


class ServerHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        store(body.decode())
        self.send_response(200)
        self.send_header("Content-type", "text/plain")
        self.end_headers()
        self.wfile.write(b"OK")


class Server(TCPServer):
    allow_reuse_address = True


class Command(BaseCommand):
    help = "Receives results from the workers"

    def handle(self, *args, **options):
        with Server(("127.0.0.1", 0), ServerHandler) as server:
            self.stdout.write("Starting on {}:{}".format(*server.server_address))
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                self.stdout.write("Stopped")
