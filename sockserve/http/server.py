"""
C{http.server}, on sockserve: C{from sockserve.http.server import ThreadingHTTPServer} in place
of C{from http.server import ...} is the whole migration.

This room owns the names of the standard library's module of the same name, as of CPython
3.14, on every Python, and its command line.  What serves them is in
L{sockserve.socketserver}.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server as _stdlib
import os
import socket
import ssl
import sys
import urllib.parse
from http.server import BaseHTTPRequestHandler
from typing import Any

from typing_extensions import override

from sockserve import socketserver

__all__ = [
    "BaseHTTPRequestHandler",
    "HTTPSServer",
    "HTTPServer",
    "SimpleHTTPRequestHandler",
    "ThreadingHTTPSServer",
    "ThreadingHTTPServer",
]

if hasattr(_stdlib, "CGIHTTPRequestHandler"):  # until Python 3.15
    CGIHTTPRequestHandler = _stdlib.CGIHTTPRequestHandler
    __all__ += ["CGIHTTPRequestHandler"]


class HTTPServer(socketserver.TCPServer, _stdlib.HTTPServer):
    """L{http.server.HTTPServer}."""


class ThreadingHTTPServer(socketserver.ThreadingMixIn, HTTPServer, _stdlib.ThreadingHTTPServer):
    """L{http.server.ThreadingHTTPServer}."""

    daemon_threads = True


class HTTPSServer(HTTPServer, getattr(_stdlib, "HTTPSServer", _stdlib.HTTPServer)):  # type: ignore[misc]
    """
    C{http.server.HTTPSServer}, which came with Python 3.14.

    @param certfile: the file of the certificate and those that vouch for it, in PEM.
    @param keyfile: the file of its private key; by default C{certfile}.
    @param password: what the key is encrypted with, or a function that gives it.
    @param alpn_protocols: what is spoken, in the order of preference; C{http/1.1} by default.
    """

    def __init__(
        self,
        server_address: Any,
        RequestHandlerClass: Any,
        bind_and_activate: bool = True,
        *,
        certfile: Any,
        keyfile: Any = None,
        password: Any = None,
        alpn_protocols: Any = None,
    ) -> None:
        self.certfile = certfile
        self.keyfile = keyfile
        self.password = password
        self.alpn_protocols = ["http/1.1"] if alpn_protocols is None else alpn_protocols
        HTTPServer.__init__(self, server_address, RequestHandlerClass, bind_and_activate)

    @override
    def server_activate(self) -> None:
        """Listen for TLS."""
        HTTPServer.server_activate(self)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certfile, self.keyfile, self.password)
        context.set_alpn_protocols(self.alpn_protocols)
        self.socket: Any = context.wrap_socket(self.socket, server_side=True)


class ThreadingHTTPSServer(
    socketserver.ThreadingMixIn,
    HTTPSServer,
    getattr(_stdlib, "ThreadingHTTPSServer", _stdlib.HTTPServer),  # type: ignore[misc]
):
    """C{http.server.ThreadingHTTPSServer}, which came with Python 3.14."""

    daemon_threads = True


class SimpleHTTPRequestHandler(_stdlib.SimpleHTTPRequestHandler):
    """
    L{http.server.SimpleHTTPRequestHandler}.

    @cvar index_pages: what is sent for a folder, if it has one of them; Python 3.12's.
    """

    index_pages: Any = ("index.html", "index.htm")

    if not hasattr(_stdlib.SimpleHTTPRequestHandler, "index_pages"):

        @override
        def send_head(self) -> Any:
            """Send the head of a response to GET or HEAD; gives the file that follows, if any."""
            folder = self.translate_path(self.path)
            if not os.path.isdir(folder) or not urllib.parse.urlsplit(self.path).path.endswith("/"):
                return super().send_head()
            for page in self.index_pages:
                if os.path.isfile(os.path.join(folder, page)):
                    path, self.path = self.path, urllib.parse.urlsplit(self.path).path + page
                    try:
                        return super().send_head()
                    finally:
                        self.path = path
            return self.list_directory(folder)


def __getattr__(name: str) -> Any:
    """What else the standard library's module has, and programs have found."""
    return getattr(_stdlib, name)


def _family_and_address(bind: str | None, port: int) -> tuple[Any, Any]:
    found = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return found[0][0], found[0][4]


def _read_password(path: str | None) -> str | None:
    if path is None:
        return None
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sockserve.http.server", description="Serve the files of a folder."
    )
    parser.add_argument(
        "-b", "--bind", metavar="ADDRESS", help="bind to this address (default: all)"
    )
    parser.add_argument(
        "-d",
        "--directory",
        default=os.getcwd(),
        help="serve this folder (default: the current one)",
    )
    parser.add_argument(
        "-p",
        "--protocol",
        metavar="VERSION",
        default="HTTP/1.0",
        help="conform to this HTTP version (default: %(default)s)",
    )
    parser.add_argument("--tls-cert", metavar="PATH", help="the certificate chain: serve HTTPS")
    parser.add_argument("--tls-key", metavar="PATH", help="its private key")
    parser.add_argument("--tls-password-file", metavar="PATH", help="the key's password")
    parser.add_argument("port", default=8000, type=int, nargs="?", help="(default: %(default)s)")
    return parser


def _main(arguments: list[str] | None = None) -> None:
    """The command line: C{python -m sockserve.http.server}."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.tls_cert is None and (given.tls_key or given.tls_password_file):
        parser.error("--tls-key and --tls-password-file go with --tls-cert")
    SimpleHTTPRequestHandler.protocol_version = given.protocol
    handler = functools.partial(SimpleHTTPRequestHandler, directory=given.directory)

    class DualStack:
        """IPv4 and IPv6 alike, where all addresses are bound to."""

        def server_bind(self: Any) -> None:
            with contextlib.suppress(Exception):
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            super().server_bind()  # type: ignore[misc]

    words: dict[str, Any] = {}
    try:
        base: Any = ThreadingHTTPServer
        if given.tls_cert is not None:
            base = ThreadingHTTPSServer
            words = {
                "certfile": given.tls_cert,
                "keyfile": given.tls_key,
                "password": _read_password(given.tls_password_file),
            }
        family, address = _family_and_address(given.bind, given.port)
        server_class: Any = type("Server", (DualStack, base), {"address_family": family})
        server = server_class(address, handler, **words)
    except (OSError, OverflowError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    with server:
        host, port = server.socket.getsockname()[:2]
        scheme = "http" if given.tls_cert is None else "https"
        url_host = f"[{host}]" if ":" in host else host
        where = f"{host} port {port} ({scheme}://{url_host}:{port}/)"
        print(f"Serving {scheme.upper()} on {where} ...", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nKeyboard interrupt received, exiting.")
            sys.exit(0)


if __name__ == "__main__":
    _main()
