"""
The module C{http.server}, on sockserve: C{from sockserve.http.server import ThreadingHTTPServer}
in place of C{from http.server import ...} is the whole migration.

This room owns the names of the standard library's module of the same name, as of CPython
3.15, on every Python, and its command line.  It must not know how requests are served: that is
in L{sockserve.socketserver}.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server as _stdlib
import mimetypes
import os
import re
import socket
import sys
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, NoReturn

from typing_extensions import override

from sockserve import socketserver
from sockserve.core.late import LateModule
from sockserve.dropin.settings import keep_own_variables

if TYPE_CHECKING:
    import ssl

    from _typeshed import StrOrBytesPath, StrPath

    from sockserve.dropin import serving
else:
    ssl = LateModule("ssl")  # of the command line
    serving = LateModule("sockserve.dropin.serving")

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
    """The class C{http.server.HTTPServer}."""


class ThreadingHTTPServer(socketserver.ThreadingMixIn, HTTPServer, _stdlib.ThreadingHTTPServer):
    """The class C{http.server.ThreadingHTTPServer}."""

    daemon_threads = True


class HTTPSServer(HTTPServer, getattr(_stdlib, "HTTPSServer", _stdlib.HTTPServer)):  # type: ignore[misc]
    """
    The class C{http.server.HTTPSServer}, which came with Python 3.14.

    @param certfile: the file of the certificate and of those that vouch for it, in PEM.
    @param keyfile: the file of its private key; by default C{certfile}.
    @param password: the password of the key, or a function that gives it.
    @param alpn_protocols: the protocols to agree to, in the order of preference; C{http/1.1}
        by default.
    """

    def __init__(
        self,
        server_address: Any,
        RequestHandlerClass: Any,
        bind_and_activate: bool = True,
        *,
        certfile: StrOrBytesPath,
        keyfile: StrOrBytesPath | None = None,
        password: Any = None,
        alpn_protocols: list[str] | None = None,
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
        self.socket: Any = self._create_context().wrap_socket(self.socket, server_side=True)

    def _create_context(self) -> ssl.SSLContext:
        return serving.https_context(
            self.certfile, self.keyfile, self.password, self.alpn_protocols
        )


class ThreadingHTTPSServer(
    socketserver.ThreadingMixIn,
    HTTPSServer,
    getattr(_stdlib, "ThreadingHTTPSServer", _stdlib.HTTPServer),  # type: ignore[misc]
):
    """The class C{http.server.ThreadingHTTPSServer}, which came with Python 3.14."""

    daemon_threads = True


for _name in ("HTTPServer", "ThreadingHTTPServer", "HTTPSServer", "ThreadingHTTPSServer"):
    keep_own_variables(globals()[_name], getattr(_stdlib, _name, None))


class SimpleHTTPRequestHandler(_stdlib.SimpleHTTPRequestHandler):
    """
    The class C{http.server.SimpleHTTPRequestHandler}.

    @param extra_response_headers: names and values that are sent with each response of status
        200, besides those that it has; Python 3.15's.
    @cvar index_pages: the files of which the first that a folder has is sent for it; Python
        3.12's.
    @cvar default_content_type: the type of a file whose name does not tell; Python 3.15's.
    """

    index_pages: Sequence[str] = ("index.html", "index.htm")
    default_content_type: str = "application/octet-stream"

    extra_response_headers: Iterable[tuple[str, str]] | None

    if not hasattr(_stdlib.SimpleHTTPRequestHandler, "default_content_type"):  # until Python 3.15
        #: The status of the response under way, while it is one of a file or a folder.
        __status: int | None = None
        __sends_extra = False

        def __init__(
            self,
            *args: Any,
            directory: StrPath | None = None,
            extra_response_headers: Iterable[tuple[str, str]] | None = None,
            **kwargs: Any,
        ) -> None:
            self.extra_response_headers = extra_response_headers
            super().__init__(*args, directory=directory, **kwargs)

        @override
        def send_head(self) -> Any:
            """
            Send the head of a response to GET or HEAD.

            @return: the file that follows; None for none.
            """
            folder = self.translate_path(self.path)
            if not os.path.isdir(folder) or not urllib.parse.urlsplit(self.path).path.endswith("/"):
                return self.__send_extra(super().send_head)
            for page in self.index_pages:
                if os.path.isfile(os.path.join(folder, page)):
                    path, self.path = self.path, urllib.parse.urlsplit(self.path).path + page
                    try:
                        return self.__send_extra(super().send_head)
                    finally:
                        self.path = path
            return self.list_directory(folder)

        @override
        def list_directory(self, path: StrPath) -> Any:
            """
            Send the head of a response with what a folder has.

            @return: the file that follows; None for none.
            """
            return self.__send_extra(functools.partial(super().list_directory, path))

        def __send_extra(self, send: Callable[[], Any]) -> Any:
            self.__status, self.__sends_extra = None, True
            try:
                return send()
            finally:
                self.__sends_extra = False

        @override
        def send_response(self, code: int, message: str | None = None) -> None:
            """Begin a response."""
            self.__status = code
            super().send_response(code, message)

        @override
        def end_headers(self) -> None:
            """End the head, with the extra fields that are due."""
            if self.__sends_extra and self.__status == HTTPStatus.OK:
                for name, value in self.extra_response_headers or ():
                    self.send_header(name, value)
            super().end_headers()

        @override
        def guess_type(self, path: StrPath) -> str:
            """Tell a file's type by its name, or else L{default_content_type}."""
            suffix = os.path.splitext(path)[1]
            for each in (suffix, suffix.lower()):
                if each in self.extensions_map:
                    return self.extensions_map[each]
            guess = getattr(mimetypes, "guess_file_type", mimetypes.guess_type)  # Python 3.13
            guessed, _ = guess(path)
            return guessed or self.default_content_type


if not TYPE_CHECKING:  # a type checker is to tell a wrong name from a right one

    def __getattr__(name: str) -> Any:
        """Another name of the standard library's module, as programs have found it there."""
        try:
            return getattr(_stdlib, name)
        except AttributeError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def _get_best_family(bind: str | None, port: int) -> tuple[Any, Any]:
    found = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return found[0][0], found[0][4]


def test(
    HandlerClass: Any = BaseHTTPRequestHandler,
    ServerClass: Any = ThreadingHTTPServer,
    protocol: str = "HTTP/1.0",
    port: int = 8000,
    bind: str | None = None,
    tls_cert: StrOrBytesPath | None = None,
    tls_key: StrOrBytesPath | None = None,
    tls_password: Any = None,
) -> None:
    """
    Serve until interrupted (C{http.server.test}).

    @param bind: the address to listen on; None for all.
    @param tls_cert: as C{certfile} of L{HTTPSServer}, which C{ServerClass} is then to be;
        C{tls_key} and C{tls_password} go with it.
    """
    ServerClass.address_family, address = _get_best_family(bind, port)
    HandlerClass.protocol_version = protocol
    words: dict[str, Any] = {}
    if tls_cert:
        words = {"certfile": tls_cert, "keyfile": tls_key, "password": tls_password}
    with ServerClass(address, HandlerClass, **words) as server:
        host, port = server.socket.getsockname()[:2]
        scheme = "https" if tls_cert else "http"
        url_host = f"[{host}]" if ":" in host else host
        where = f"{host} port {port} ({scheme}://{url_host}:{port}/)"
        print(f"Serving {scheme.upper()} on {where} ...", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nKeyboard interrupt received, exiting.")
            sys.exit(0)


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
    parser.add_argument(
        "--content-type",
        metavar="TYPE",
        default=SimpleHTTPRequestHandler.default_content_type,
        help="the type of files whose names do not tell (default: %(default)s)",
    )
    parser.add_argument(
        "-H",
        "--header",
        nargs=2,
        metavar=("NAME", "VALUE"),
        action="append",
        default=[],
        help="send this field with each response of status 200; may be given again",
    )
    parser.add_argument("--tls-cert", metavar="PATH", help="the certificate chain: serve HTTPS")
    parser.add_argument("--tls-key", metavar="PATH", help="its private key")
    parser.add_argument("--tls-password-file", metavar="PATH", help="the key's password")
    parser.add_argument("port", default=8000, type=int, nargs="?", help="(default: %(default)s)")
    return parser


#: What C{send_header} can send.
_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")


def _split_fields(arguments: Iterable[str]) -> list[str]:
    """
    Write C{-H "NAME: VALUE"}, as those say it who know curl, in two words; a name has no colon.
    """
    words: list[str] = []
    for word in arguments:
        option, equals, field = word.partition("=")
        if equals and option == "--header" and ":" in field:
            words.append(option)
            word = field
        if words and words[-1] in ("-H", "--header") and ":" in word:
            name, _, value = word.partition(":")
            words += [name.strip(), value.strip()]
        else:
            words.append(word)
    return words


def _main(arguments: list[str] | None = None, serve: Callable[..., None] = test) -> None:
    """
    The command line: C{python -m sockserve.http.server}.

    @param serve: called with what is asked for, as L{test}.
    """
    parser = _parser()
    given = parser.parse_args(_split_fields(sys.argv[1:] if arguments is None else arguments))
    for name, value in given.header:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            parser.error(f"argument -H/--header: {name + ': ' + value!r} cannot be a header field")
    if not _VALUE.fullmatch(given.content_type):
        parser.error(f"argument --content-type: {given.content_type!r} cannot be a type")
    for option in ("--tls-key", "--tls-password-file"):
        if getattr(given, option[2:].replace("-", "_")) and not given.tls_cert:
            parser.error(f"{option} requires --tls-cert to be set")
    if not 0 <= given.port < 2**16:
        parser.error(f"argument port: {given.port} is not one of 0 to 65535")

    def fail(culprit: str, error: OSError | str) -> NoReturn:
        why = error if isinstance(error, str) else error.strerror
        parser.exit(1, f"{parser.prog}: {culprit}: {why}\n")

    def read(option: str, path: str | None) -> str:
        if not path:
            return ""
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError as error:
            fail(f"{option} {path}", error)

    certificate = read("--tls-cert", given.tls_cert)
    key = read("--tls-key", given.tls_key) or certificate
    password = read("--tls-password-file", given.tls_password_file).strip()
    if given.tls_cert:
        try:
            ssl.create_default_context(cafile=given.tls_cert)
        except ssl.SSLError:
            fail(f"--tls-cert {given.tls_cert}", "there is no certificate in it")

    class FolderServer:
        """Serves the folder; on IPv4 and IPv6 alike, where all addresses are bound to."""

        def __init__(self, address: Any, handler: Any, **words: Any) -> None:
            if handler.default_content_type != given.content_type:
                names = {"default_content_type": given.content_type}
                handler = type(handler.__name__, (handler,), names)
            options = {"directory": given.directory, "extra_response_headers": given.header}
            handler = functools.partial(handler, **options)
            try:
                super().__init__(address, handler, **words)  # type: ignore[call-arg]
            except OSError as error:
                host = f"{given.bind} " if given.bind else ""
                fail(f"{host}port {given.port}", error)

        def server_bind(self: Any) -> None:
            with contextlib.suppress(Exception):  # this is IPv4
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            super().server_bind()  # type: ignore[misc]

    class PlainServer(FolderServer, ThreadingHTTPServer):
        pass

    class TLSServer(FolderServer, ThreadingHTTPSServer):
        def _create_context(self) -> ssl.SSLContext:
            try:
                return super()._create_context()
            except OSError as error:
                option = "--tls-key" if given.tls_key else "--tls-cert"
                file = given.tls_key or given.tls_cert
                if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
                    fail(f"{option} {file}", f"it is not the key of {given.tls_cert}")
                if "ENCRYPTED" not in key:
                    fail(f"{option} {file}", "there is no private key in it")
                if not given.tls_password_file:
                    fail(f"{option} {file}", "it is encrypted, and needs --tls-password-file")
                option, password_file = "--tls-password-file", given.tls_password_file
                fail(f"{option} {password_file}", f"it is not the password of {file}")

    try:
        _get_best_family(given.bind, given.port)
    except OSError as error:
        fail(f"--bind {given.bind}", error)
    serve(
        HandlerClass=SimpleHTTPRequestHandler,
        ServerClass=TLSServer if given.tls_cert else PlainServer,
        port=given.port,
        bind=given.bind,
        protocol=given.protocol,
        tls_cert=given.tls_cert,
        tls_key=given.tls_key,
        tls_password=password if given.tls_password_file else None,
    )


if __name__ == "__main__":
    _main()
