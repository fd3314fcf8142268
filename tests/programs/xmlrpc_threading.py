"""Documented XML-RPC, a thread and a connection for each client."""

import socketserver
import threading
from xmlrpc.server import DocXMLRPCRequestHandler, DocXMLRPCServer


class RequestHandler(DocXMLRPCRequestHandler):
    protocol_version = "HTTP/1.1"


class Server(socketserver.ThreadingMixIn, DocXMLRPCServer):
    daemon_threads = True


both_are_here = threading.Barrier(2)


def meet(name):
    """Returns when two clients have called it."""
    both_are_here.wait(60)
    return name


server = Server(("127.0.0.1", 0), RequestHandler, logRequests=False, allow_none=True)
server.register_introspection_functions()
server.register_function(meet)
server.register_function(lambda data: data, "echo")
print(server.server_address[1])
server.serve_forever()
