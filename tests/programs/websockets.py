"""
WebSockets on http.server, in the way of HTTPWebSocketsHandler, which many home automations
have: frames are read from ``rfile`` and sent by ``request``; others send to all connections.
"""

import base64
import hashlib
import socketserver
import struct
import threading
from http.server import HTTPServer, SimpleHTTPRequestHandler

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE = 0x1, 0x8


class HTTPWebSocketsHandler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        SimpleHTTPRequestHandler.setup(self)
        self.connected = False
        self.mutex = threading.Lock()

    def do_GET(self):
        if self.headers.get("Upgrade", None) == "websocket":
            self._handshake()
            # This handler is in websocket mode now: do_GET only returns after client close
            # or socket error.
            self._read_messages()
        else:
            self.send_error(426, explain="speak WebSocket")

    def do_POST(self):
        """Send to all who are there."""
        message = self.rfile.read(int(self.headers["Content-Length"]))
        for connection in list(self.server.sockets):
            connection.send_frame(TEXT, message)
        self.send_response(204)
        self.end_headers()

    def send_frame(self, opcode, data):
        with self.mutex:
            if len(data) <= 125:
                self.request.send(struct.pack(">BB", 0x80 | opcode, len(data)))
            else:
                self.request.send(struct.pack(">BBH", 0x80 | opcode, 126, len(data)))
            self.connection.sendall(data)

    def _handshake(self):
        key = self.headers["Sec-WebSocket-Key"]
        digest = hashlib.sha1((key + GUID).encode()).digest()
        self.send_response(101, "Switching Protocols")
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.end_headers()
        self.connected = True
        self.close_connection = True
        self.server.sockets.append(self)

    def _read_messages(self):
        try:
            while self.connected:
                first, second = self.rfile.read(2)
                length = second & 0x7F
                if length == 126:
                    (length,) = struct.unpack(">H", self.rfile.read(2))
                masks = self.rfile.read(4)
                data = bytes(
                    byte ^ masks[number % 4] for number, byte in enumerate(self.rfile.read(length))
                )
                self._on_message(first & 0x0F, data)
        except (ValueError, OSError):  # it has gone without a word
            pass
        finally:
            self.server.sockets.remove(self)

    def _on_message(self, opcode, data):
        self.send_frame(opcode, data)
        if opcode == CLOSE:
            self.connected = False


class ThreadedHTTPServer(socketserver.ThreadingMixIn, HTTPServer):
    """Handle requests in a separate thread."""

    daemon_threads = True


server = ThreadedHTTPServer(("127.0.0.1", 0), HTTPWebSocketsHandler)
server.sockets = []
print(server.server_port)
server.serve_forever()
