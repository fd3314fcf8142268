"""``soak KIND``: a server whose handlers do what their clients ask for."""

import http.server
import socketserver
import sys


class Streams(socketserver.StreamRequestHandler):
    def handle(self):
        word = self.rfile.readline().strip()
        if word == b"echo":
            for line in self.rfile:
                self.wfile.write(line)
        elif word == b"large":
            self.wfile.write(bytes(2**18))
        elif word == b"close":
            self.request.close()
        elif word == b"raise":
            raise ZeroDivisionError
        elif word == b"exit":
            sys.exit()


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"ok"
        if self.path == "/large":
            body = bytes(2**18)
        elif self.path == "/close":
            self.request.close()
            return
        elif self.path == "/raise":
            raise ZeroDivisionError
        elif self.path == "/exit":
            sys.exit()
        self.answer(body)

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Quiet:
    request_queue_size = 100

    def handle_error(self, request, client_address):
        pass


kind = sys.argv[1]
module, handler = (http.server, Web) if "HTTP" in kind else (socketserver, Streams)
server = type("Server", (Quiet, getattr(module, kind)), {})(("127.0.0.1", 0), handler)
with server:
    try:
        print(server.server_address[1])
        server.serve_forever()
    except KeyboardInterrupt:
        pass
