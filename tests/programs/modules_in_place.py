"""Looks at the modules in the place of the standard library's; prints that they are as these."""

import http.server
import importlib
import inspect
import pickle
import socketserver
import sys
import unittest.mock
import wsgiref.simple_server
from logging.config import ThreadingTCPServer
from pathlib import Path
from xmlrpc.server import SimpleXMLRPCServer

import sockserve.http.server
import sockserve.socketserver

PAIRS = [(socketserver, sockserve.socketserver), (http.server, sockserve.http.server)]

for module, ours in PAIRS:
    socket = module.socket
    module.socket = None
    del module.__all__
    assert importlib.reload(module) is module
    assert module.socket is socket or module.socket is None
    assert sys.modules[module.__name__] is module is not ours
    assert module.__spec__.name == module.__name__
    assert inspect.getsource(module) == Path(module.__file__).read_text()
    for name in module.__all__:
        assert getattr(module, name) is getattr(ours, name), name
    module.socket = socket

assert inspect.getsource(socketserver.TCPServer).startswith("class TCPServer(BaseServer):")
assert inspect.getsource(http.server.HTTPServer).startswith("class HTTPServer(socketserver.")
assert repr(socketserver.UDPServer) == "<class 'socketserver.UDPServer'>"
assert issubclass(SimpleXMLRPCServer, sockserve.socketserver.TCPServer)
assert issubclass(wsgiref.simple_server.WSGIServer, sockserve.http.server.HTTPServer)
assert issubclass(ThreadingTCPServer, sockserve.socketserver.ThreadingMixIn)
assert http.server.socketserver is socketserver
assert b"sockserve" not in pickle.dumps(http.server.HTTPServer)
assert pickle.loads(pickle.dumps(http.server.HTTPServer)) is http.server.HTTPServer
assert pickle.loads(b"csocketserver\nTCPServer\n.") is socketserver.TCPServer

# What is changed in the module, the standard library's functions in it have.
names = http.server.BaseHTTPRequestHandler.parse_request.__globals__
with unittest.mock.patch("http.server.email") as patched:
    assert names["email"] is patched
assert names["email"] is http.server.email
with unittest.mock.patch("socketserver.TCPServer") as patched:
    from socketserver import TCPServer

    assert TCPServer is patched
assert socketserver.TCPServer is sockserve.socketserver.TCPServer
socketserver.own = 1
del socketserver.own
assert not hasattr(socketserver, "own")
print("as they are")
