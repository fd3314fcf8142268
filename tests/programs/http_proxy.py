"""A proxy such as there are many: CONNECT is relayed, all else is asked for."""

import http.client
import select
import socket
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ProxyRequestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_CONNECT(self):
        host, _, port = self.path.rpartition(":")
        try:
            other = socket.create_connection((host, int(port)), timeout=self.timeout)
        except OSError:
            self.send_error(502)
            return
        self.send_response(200, "Connection Established")
        self.end_headers()

        conns = [self.connection, other]
        self.close_connection = False
        while not self.close_connection:
            rlist, _wlist, xlist = select.select(conns, [], conns, self.timeout)
            if xlist or not rlist:
                break
            for r in rlist:
                o = conns[1] if r is conns[0] else conns[0]
                data = r.recv(8192)
                if not data:
                    self.close_connection = True
                    break
                o.sendall(data)
        other.close()

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        content_length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(content_length) if content_length else None
        asked = http.client.HTTPConnection(url.netloc, timeout=self.timeout)
        try:
            asked.request(self.command, url.path, body, {"Via": "1.1 program"})
            answer = asked.getresponse()
            content = answer.read()
        except OSError:
            self.send_error(502)
            return
        finally:
            asked.close()
        self.send_response(answer.status, answer.reason)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET


server = ThreadingHTTPServer(("127.0.0.1", 0), ProxyRequestHandler)
print(server.server_port)
server.serve_forever()
