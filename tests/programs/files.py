"""``files plain|threading FOLDER HTTP-VERSION``: a folder's files, as http.server's docs show."""

import functools
import sys
from http.server import HTTPServer, SimpleHTTPRequestHandler, ThreadingHTTPServer

SimpleHTTPRequestHandler.protocol_version = sys.argv[3]
handler = functools.partial(SimpleHTTPRequestHandler, directory=sys.argv[2])
server_class = {"plain": HTTPServer, "threading": ThreadingHTTPServer}[sys.argv[1]]
with server_class(("127.0.0.1", 0), handler) as server:
    print(server.server_port)
    server.serve_forever()
