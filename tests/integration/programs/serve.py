"""
``python -m tests.integration.programs.serve PROGRAM stdlib|sockserve [ARGUMENT]``: a real
program, as it is, with the one or the other modules in place.  Prints its port; ends with its
standard input.
"""

import socketserver
import sys
import threading

from tests.stdlib.replaced import put_in_place


def tell(server):
    print(server.server_address[1], flush=True)


def telling(cls):
    """A server class that tells its port when it listens."""
    activate = cls.server_activate

    def server_activate(self):
        activate(self)
        tell(self)

    cls.server_activate = server_activate


def dns(kind):
    from dnslib import QTYPE, RR
    from dnslib.server import BaseResolver, DNSLogger, DNSServer

    class Resolver(BaseResolver):
        def resolve(self, request, handler):
            reply = request.reply()
            reply.add_answer(
                *RR.fromZone(f"{request.q.qname} 60 {QTYPE[request.q.qtype]} 192.0.2.7")
            )
            return reply

    logger = DNSLogger(logf=lambda line: None)
    server = DNSServer(Resolver(), address="127.0.0.1", port=0, tcp=kind == "tcp", logger=logger)
    tell(server.server)
    server.start()


def flask(processes):
    from flask import Flask, request
    from werkzeug.serving import make_server

    app = Flask("program")

    @app.route("/", methods=["GET", "POST"])
    def hello():
        return f"hello {request.form.get('name', 'world')}"

    @app.route("/fail")
    def fail():
        raise ValueError

    if processes:
        server = make_server("127.0.0.1", 0, app, processes=2)
    else:
        server = make_server("127.0.0.1", 0, app, threaded=True)
    print(server.port, flush=True)
    server.serve_forever()


def django():
    from django.conf import settings
    from django.core.servers import basehttp
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path

    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=(path("", lambda request: HttpResponse(f"hello {request.method}")),),
        SECRET_KEY="x",
    )
    telling(basehttp.WSGIServer)
    basehttp.run("127.0.0.1", 0, get_wsgi_application(), threading=True)


def prometheus(certificate):
    import prometheus_client

    prometheus_client.Counter("program", "It counts.").inc()
    words = {"certfile": certificate, "keyfile": certificate} if certificate else {}
    server, thread = prometheus_client.start_http_server(0, "127.0.0.1", **words)
    print(server.server_port, flush=True)
    sys.stdin.read()
    server.shutdown()
    thread.join()
    print("down", flush=True)


def xmlrpc():
    from xmlrpc.server import SimpleXMLRPCServer

    class Server(socketserver.ThreadingMixIn, SimpleXMLRPCServer):
        pass

    server = Server(("127.0.0.1", 0), logRequests=False, allow_none=True)
    server.register_introspection_functions()
    server.register_function(pow)
    tell(server)
    server.serve_forever()


def wsgiref():
    from wsgiref.simple_server import WSGIServer, demo_app, make_server

    class Server(socketserver.ThreadingMixIn, WSGIServer):
        daemon_threads = True

    server = make_server("127.0.0.1", 0, demo_app, Server)
    tell(server)
    server.serve_forever()


def logging_listen():
    import logging.config

    server = logging.config.listen(0)
    server.start()
    server.ready.wait()
    print(server.port, flush=True)
    sys.stdin.read()
    print(logging.getLogger("configured").level, flush=True)
    logging.config.stopListening()
    server.join()


def forward(target):
    """An SSH tunnel's end, without the SSH."""
    import select
    import socket

    class Forward(socketserver.BaseRequestHandler):
        def handle(self):
            with socket.create_connection(("127.0.0.1", int(target))) as other:
                while True:
                    ready = select.select([self.request, other], [], [])[0]
                    for one, two in ((self.request, other), (other, self.request)):
                        if one in ready:
                            data = one.recv(1024)
                            if not data:
                                return
                            two.sendall(data)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    server = Server(("127.0.0.1", 0), Forward)
    tell(server)
    server.serve_forever()


def main(program, modules, *arguments):
    if modules == "sockserve":
        put_in_place()
        import sockserve.socketserver

        globals()["socketserver"] = sockserve.socketserver
    run = threading.Thread(target=globals()[program], args=arguments, daemon=True)
    run.start()
    if program in ("prometheus", "logging_listen"):
        run.join()
    else:
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
