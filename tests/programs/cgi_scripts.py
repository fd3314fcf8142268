"""``cgi_scripts plain|threading FOLDER``: the CGI scripts of a folder, while Python has it."""

import os
import sys
from http.server import CGIHTTPRequestHandler, HTTPServer, ThreadingHTTPServer

os.chdir(sys.argv[2])
server_class = {"plain": HTTPServer, "threading": ThreadingHTTPServer}[sys.argv[1]]
with server_class(("127.0.0.1", 0), CGIHTTPRequestHandler) as server:
    print(server.server_port)
    server.serve_forever()
