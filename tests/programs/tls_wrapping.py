"""``tls_wrapping CERTIFICATE WHERE``: HTTPS, by wrapping connections where programs do it."""

import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(sys.argv[1])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{self.command} {type(self.connection).__name__} {self.connection.version()}\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()


class Server(ThreadingHTTPServer):
    pass


def wrap(connection):
    return context.wrap_socket(connection, server_side=True)


class InSetup(Handler):
    def setup(self):
        self.request = wrap(self.request)
        super().setup()

    def finish(self):
        super().finish()
        self.request.close()


class InHandle(Handler):
    def handle(self):
        self.request = self.connection = wrap(self.request)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", 0)
        super().handle()
        self.connection.close()


class InGetRequest(Server):
    def get_request(self):
        connection, address = super().get_request()
        return wrap(connection), address


class InFinishRequest(Server):
    def finish_request(self, request, client_address):
        with wrap(request) as wrapped:
            super().finish_request(wrapped, client_address)


classes = {
    "listener": (Server, Handler),
    "get_request": (InGetRequest, Handler),
    "finish_request": (InFinishRequest, Handler),
    "setup": (Server, InSetup),
    "handle": (Server, InHandle),
}
server_class, handler_class = classes[sys.argv[2]]
server = server_class(("127.0.0.1", 0), handler_class)
if sys.argv[2] == "listener":
    server.socket = wrap(server.socket)
print(server.server_port)
server.serve_forever()
