"""``wsgi plain|threading``: wsgiref's server, its validator, and applications that fail."""

import socketserver
import sys
from wsgiref.simple_server import WSGIServer, demo_app, make_server
from wsgiref.validate import validator


class ThreadingServer(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/fail":
        raise ValueError("on purpose")
    if path == "/echo":
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return [body]
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"%d\n" % number for number in range(3))
    return validator(demo_app)(environ, start_response)


server_class = {"plain": WSGIServer, "threading": ThreadingServer}[sys.argv[1]]
with make_server("127.0.0.1", 0, application, server_class) as server:
    print(server.server_port)
    server.serve_forever()
