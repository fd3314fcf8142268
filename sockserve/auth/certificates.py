"""
Identity by certificate: the mix-in of handlers that ask clients for one, over TLS.

This room owns what becomes of a client's certificate.  It must not know how TLS verifies it, or
what has begun that. (handler's thread)
"""

from __future__ import annotations

from os import PathLike
from typing import Any, ClassVar

import attrs
from twisted.cred.portal import Portal

from sockserve.auth.checkers import CertificateChecker
from sockserve.auth.credentials import CertificateCredentials, ICertificateCredentials
from sockserve.auth.door import Waits
from sockserve.auth.identity import CertificateNames, Identity, certificate_names
from sockserve.auth.mixin import AuthMixIn
from sockserve.interfaces import ConfigurationError, NotAuthenticated, Refusal
from sockserve.streams.tls import load_client_authority

__all__ = ["CertificateLogin", "TLSClientAuthMixIn"]


class CertificateLogin(AuthMixIn):
    """The login of a client by the certificate that it has shown: the part that mix-ins share."""

    def _certificate(self, wanted: str = "") -> tuple[Portal, CertificateCredentials]:
        """
        The client's certificate, and the portal that it is shown to.

        @raise NotAuthenticated: there is none, or it cannot be read.
        """
        certificate = None if self.tls is None else self.tls.certificate
        if certificate is None:
            raise NotAuthenticated(Refusal.CREDENTIALS, "no client certificate")
        names = fault = None
        try:
            names = certificate_names(certificate)
        except ValueError as error:
            fault = str(error)
        if names is None:
            raise NotAuthenticated(Refusal.CREDENTIALS, fault or "")
        portal = self._portal_for(ICertificateCredentials, CertificateChecker())
        assert portal is not None
        return portal, CertificateCredentials(certificate, names, wanted)

    def _named(self, names: CertificateNames) -> Identity:
        """Complete the identity of a client that has been logged in by its certificate."""
        assert self.identity is not None
        self.identity = attrs.evolve(self.identity, subject=names.subject, names=names.names)
        return self.identity

    def _log_in_by_certificate(self) -> Identity:
        """
        Log the client in without waiting.

        @raise NotAuthenticated: it has no certificate, or the portal does not let it in.
        """
        portal, credentials = self._certificate()
        self._log_in_now(portal, credentials, "certificate", credentials.names.common_name)
        return self._named(credentials.names)

    async def _log_in_external(self, wanted: str, waits: Waits) -> Identity:
        """
        Log the client in as who it says that it is.

        @raise NotAuthenticated: likewise.
        """
        portal, credentials = self._certificate(wanted)
        name = credentials.names.common_name
        await self._log_in(portal, credentials, "EXTERNAL", waits, name)
        return self._named(credentials.names)


class TLSClientAuthMixIn(CertificateLogin):
    """
    A handler that asks its clients for a certificate, and knows them by that: before C{handle}
    begins, or after STARTTLS (L{StartTLSMixIn}).

    TLS asks for the certificate and verifies it, over listeners of C{ssl:} and C{tls:} and after
    STARTTLS; a client without a good one fails in the handshake.  One whose handshake somebody else
    has made (an endpoint of a program's own) is refused here.

    @cvar client_authority: the name of a PEM file with the certificates of those who sign clients'.
    @cvar requires_certificate: whether a client has to have one; else its C{identity} is None.
    """

    client_authority: ClassVar[str | PathLike[str] | None] = None
    requires_certificate: ClassVar[bool] = True

    @classmethod
    def prepare_server(cls, server: Any) -> None:
        """
        Have TLS listeners ask for certificates, and others refused, unless the handler can do
        without one, or turn to TLS.

        @raise ConfigurationError: there is no authority, or it cannot be read.
        """
        super().prepare_server(server)
        if cls.client_authority is None:
            raise ConfigurationError(
                f"handler {cls.__qualname__}: client_authority is to name the PEM file of those who"
                " sign clients' certificates"
            )
        server.client_authority = load_client_authority(
            cls.client_authority, cls.requires_certificate
        )
        can_start_tls = getattr(cls, "tls_certificate", None) is not None
        server.requires_tls = cls.requires_certificate and not can_start_tls

    def setup(self) -> Any:
        """
        Find out whose certificate it is; of a connection that is plain yet, once it is not.

        @raise NotAuthenticated: there is none, or the portal does not let its owner in.
        """
        result = super().setup()
        if self.tls is not None or not getattr(self, "can_start_tls", False):
            try:
                self.identify_by_certificate()
            except NotAuthenticated:
                self._undo_setup()
                raise
        return result

    def identify_by_certificate(self) -> None:
        """
        Find out whose certificate it is, now that there is TLS.

        @raise NotAuthenticated: there is none, or the portal does not let its owner in.
        """
        is_there = self.tls is not None and self.tls.certificate is not None
        if not is_there and not self.requires_certificate:
            return
        try:
            self._log_in_by_certificate()
        except NotAuthenticated as failure:
            self._count(failure)
            raise
