"""
STARTTLS: the upgrade of protocols that begin in plain lines, as SMTP (RFC 3207).

This room owns the upgrade, for both kinds of handler, and what must not survive it.  It must not
know the protocol's commands. (handler's thread)

Whoever sits between client and server may slip commands in behind STARTTLS; run after the
handshake they would pass for the client's own (CVE-2011-0411).  So nothing that came before may be
left in a buffer of ours by then: what is there is thrown away, and the upgrade refused.  What is
still in the kernel's buffer, or comes before the client's hello, the handshake reads, and fails.
"""

from __future__ import annotations

import io
import os
import socket
import socketserver
import ssl
from collections.abc import Awaitable
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate
from OpenSSL import crypto
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from typing_extensions import override

from sockserve.auth.mixin import AuthMixIn
from sockserve.core.messages import one_line
from sockserve.core.tls import CIPHERS, handshake_fault
from sockserve.core.tls_facts import TLSFacts
from sockserve.interfaces import (
    ClientGone,
    ConfigurationError,
    DeadlineExpired,
    HandshakeFailed,
    Phase,
)
from sockserve.sockets.lending import has_unread
from sockserve.streams.tls import ClientAuthority, load_client_authority, with_client_authority

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["PlaintextPipelined", "SecuredSocket", "ServerCertificate", "StartTLSMixIn"]

#: How much is thrown away at once.
_PIECE_BYTES = 65536


class PlaintextPipelined(HandshakeFailed):
    """
    The error of a client that has sent something behind STARTTLS, before the handshake: its own
    commands, or another's that were slipped in.  They are thrown away, and there is no TLS; the
    connection can be answered still.
    """


class SecuredSocket(ssl.SSLSocket):
    """
    The socket of a blocking handler after STARTTLS.  Where its client breaks TLS, or breaks it off,
    it raises L{ClientGone}: an C{ssl.SSLError} does not say whose fault it is.

    @ivar tls: the facts of its TLS.
    """

    tls: TLSFacts | None = None

    @override
    def read(self, len: int = 1024, buffer: WriteableBuffer | None = None) -> bytes:
        try:
            return super().read(len, buffer)
        except ssl.SSLError as error:
            raise _as_clients(error) from error

    @override
    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        try:
            return super().send(data, flags)
        except ssl.SSLError as error:
            raise _as_clients(error) from error


def _as_clients(error: ssl.SSLError) -> OSError:
    """The error of a client for one of TLS, unless that only says to wait."""
    if isinstance(error, (ssl.SSLWantReadError, ssl.SSLWantWriteError)):
        return error
    return ClientGone(f"TLS: {handshake_fault(error)}")


class ServerCertificate:
    """
    The certificate that a server shows after STARTTLS, with its key, for both libraries of TLS.

    @ivar der: the certificate in DER.
    """

    def __init__(
        self,
        certificate: str | PathLike[str],
        private_key: str | PathLike[str] | None,
        authority: ClientAuthority | None,
    ) -> None:
        """
        @param certificate: the name of a PEM file, with those that lead to an authority behind it.
        @param private_key: of another with its key; None if that is in the same.
        @param authority: whose certificates clients are asked for.
        @raise ConfigurationError: a file cannot be read, or they do not belong together.
        """
        self._certificate = os.fspath(certificate)
        self._private_key = None if private_key is None else os.fspath(private_key)
        self._authority = authority
        name = self._certificate
        try:
            with open(name, "rb") as file:
                self._pem = file.read()
            name = self._private_key or name
            with open(name, "rb") as file:
                self._key_pem = file.read()
            self.der = load_pem_x509_certificate(self._pem).public_bytes(Encoding.DER)
            self.context.session_stats()  # it is made, which tells whether they belong together
        except OSError as error:  # an SSLError is one too
            fault = error.strerror
            if isinstance(error, ssl.SSLError):
                fault = "the certificate or key is no PEM file, or they do not belong together"
            raise ConfigurationError(f"STARTTLS: {name!r}: {fault}") from None
        except ValueError as error:
            raise ConfigurationError(f"STARTTLS: {name!r}: {one_line(error)}") from None

    @cached_property
    def context(self) -> ssl.SSLContext:
        """For blocking handlers: what is agreed on as at any listener."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(":".join(CIPHERS))
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        context.sslsocket_class = SecuredSocket
        context.load_cert_chain(self._certificate, self._private_key, password=lambda: "")
        if self._authority is not None:
            is_required = self._authority.is_required
            context.verify_mode = ssl.CERT_REQUIRED if is_required else ssl.CERT_OPTIONAL
            context.load_verify_locations(self._authority.path)
        return context

    @cached_property
    def options(self) -> CertificateOptions:
        """For coroutine handlers."""
        options: CertificateOptions
        options = PrivateCertificate.loadPEM(self._pem + b"\n" + self._key_pem).options()
        chain = self._pem.split(b"-----END CERTIFICATE-----")[1:-1]
        options.extraCertChain = [
            crypto.load_certificate(crypto.FILETYPE_PEM, each + b"-----END CERTIFICATE-----\n")
            for each in chain
        ]
        if self._authority is not None:
            options = with_client_authority(options, self._authority)
        return options


class _Input(io.RawIOBase):
    """The input of a blocking handler: from its connection, whichever socket that is by now."""

    def __init__(self, handler: StartTLSMixIn) -> None:
        self._handler = handler

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: WriteableBuffer) -> int | None:
        try:
            request: socket.socket = self._handler.request
            return request.recv_into(buffer)
        except BlockingIOError:
            return None


class StartTLSMixIn(AuthMixIn):
    """
    A handler that turns to TLS when its client asks for it, coroutine or blocking.

    @cvar tls_certificate: the name of a PEM file with the server's certificate, and those that lead
        to an authority behind it.
    @cvar tls_private_key: the name of another with its key; None if that is in the same.
    """

    tls_certificate: ClassVar[str | PathLike[str] | None] = None
    tls_private_key: ClassVar[str | PathLike[str] | None] = None

    @classmethod
    def prepare_server(cls, server: Any) -> None:
        """
        Read the certificate.

        @raise ConfigurationError: it cannot be read, or there is none.
        """
        super().prepare_server(server)
        if cls.tls_certificate is None:
            raise ConfigurationError(
                f"handler {cls.__qualname__}: tls_certificate is to name the PEM file of the"
                " server's certificate"
            )
        cls._server_certificate()

    @classmethod
    def _server_certificate(cls) -> ServerCertificate:
        """The certificate of the class, read once."""
        found: ServerCertificate | None = vars(cls).get("_read_certificate")
        if found is None:
            assert cls.tls_certificate is not None
            authority = None
            path = getattr(cls, "client_authority", None)
            if path is not None:
                authority = load_client_authority(path, getattr(cls, "requires_certificate", True))
            found = ServerCertificate(cls.tls_certificate, cls.tls_private_key, authority)
            cls._read_certificate = found
        return found

    _read_certificate: ClassVar[ServerCertificate | None] = None

    @property
    def can_start_tls(self) -> bool:
        """Whether the connection is plain yet, and may turn to TLS: whether to offer STARTTLS."""
        return self.tls is None and self.tls_certificate is not None

    def begin_tls(self, reply: bytes) -> Any:
        """
        Speak TLS from here on: answer STARTTLS, and shake hands.  After that all that the client
        has said is forgotten, C{identity} with it, unless that is by its address.

        @param reply: the answer, C{b"220 go ahead\\r\\n"} say.
        @return: in a coroutine handler, what is to be awaited.
        @raise RuntimeError: it is TLS already.
        @raise PlaintextPipelined: the client has sent something behind STARTTLS; it is thrown away,
            and the answer is not sent.
        @raise HandshakeFailed: the handshake has; a C{ConnectionError}.
        @raise DeadlineExpired: the C{handshake} deadline has passed.
        @raise NotAuthenticated: a L{TLSClientAuthMixIn} does not let the client in.
        """
        if self.tls is not None:
            raise RuntimeError("begin_tls: this connection is TLS already")
        if self._is_blocking:
            self._begin_blocking(reply)
            return None
        return self._begin_on_reactor(reply)

    def setup(self) -> Any:
        """Make the streams; a blocking handler's C{rfile} stays the same after L{begin_tls}."""
        result = super().setup()
        if self._is_blocking:
            self.rfile.close()
            raw = _Input(self)
            size = io.DEFAULT_BUFFER_SIZE if self.rbufsize < 0 else self.rbufsize
            self.rfile = io.BufferedReader(raw, size) if size else raw
        return result

    def tls_began(self) -> None:
        """
        Forget what the client has said in the plain (its EHLO, say): override it.  By default
        does nothing.
        """

    def finish(self) -> Any:
        """Clean up, and end the TLS that L{begin_tls} has begun."""
        try:
            result: Awaitable[None] | None = super().finish()
        finally:
            if isinstance(self.request, SecuredSocket):
                _end_tls(self.request)
        return result

    async def _begin_on_reactor(self, reply: bytes) -> None:
        if self.rfile.unread():
            while self.rfile.unread():
                await self.rfile.read(_PIECE_BYTES)
            raise self._pipelined()
        self.wfile.write(reply)
        await self.start_tls(self._server_certificate().options)
        self._began()

    def _begin_blocking(self, reply: bytes) -> None:
        request: socket.socket = self.request
        if self._throw_away_plaintext():
            raise self._pipelined()
        self.wfile.write(reply)
        self.wfile.flush()
        secured = self._shake_hands(request)
        self.wfile.close()
        self.request = self.connection = secured
        if self.wbufsize == 0:
            self.wfile = socketserver._SocketWriter(secured)  # type: ignore[attr-defined]
        else:
            self.wfile = secured.makefile("wb", self.wbufsize)
        self._began()

    def _throw_away_plaintext(self) -> bool:
        """
        Throw away what has come and was not read.

        @return: whether there was any.
        """
        request: socket.socket = self.request
        timeout = request.gettimeout()
        request.settimeout(0)
        try:
            read = getattr(self.rfile, "read1", None)
            was_any = False
            if read is None:  # unbuffered
                while has_unread(request) and request.recv(_PIECE_BYTES):
                    was_any = True
            else:
                while read(_PIECE_BYTES):
                    was_any = True
            return was_any
        finally:
            request.settimeout(timeout)

    def _shake_hands(self, request: socket.socket) -> SecuredSocket:
        """
        Turn to TLS on a copy of the descriptor: the socket itself is the server's, which keeps the
        connection's deadlines by it, and ends it.
        """
        deadlines = getattr(self.server, "deadlines", None)
        certificate = self._server_certificate()
        copy = socket.socket(request.family, request.type, request.proto, os.dup(request.fileno()))
        try:
            secured = certificate.context.wrap_socket(
                copy, server_side=True, do_handshake_on_connect=False
            )
        except BaseException:
            copy.close()
            raise
        assert isinstance(secured, SecuredSocket)
        failure: DeadlineExpired | HandshakeFailed
        try:
            secured.settimeout(None if deadlines is None else deadlines.handshake)
            secured.do_handshake()
            secured.settimeout(request.gettimeout())
        except TimeoutError:
            failure = DeadlineExpired(Phase.HANDSHAKE)
        except (OSError, ValueError) as error:
            failure = HandshakeFailed(handshake_fault(error))
        else:
            secured.tls = TLSFacts(secured.getpeercert(True), certificate.der)
            return secured
        secured.close()
        self._tell_server("upgrade_failed", request, failure)
        raise failure

    def _pipelined(self) -> PlaintextPipelined:
        fault = "plaintext behind STARTTLS"
        self._tell_server("count_failure", "handshake", fault)
        return PlaintextPipelined(fault)

    def _began(self) -> None:
        if self.identity is not None and self.identity.method != "address":
            self.forget_identity()
        identify = getattr(self, "identify_by_certificate", None)
        if identify is not None:
            identify()
        self.tls_began()


def _end_tls(secured: SecuredSocket) -> None:
    """Tell the client that no more comes, and close this copy of the descriptor."""
    try:
        secured.settimeout(0)  # its answer to that is not waited for
        secured.unwrap()
    except (OSError, ValueError):
        pass
    secured.close()
