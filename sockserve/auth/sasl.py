"""
SASL: the mix-in of handlers whose protocol has an AUTH command of its kind (RFC 4422), as SMTP's
(RFC 4954), IMAP's and POP3's.

This room owns which mechanisms are offered on a connection, and what each says.  It must not know
the protocol's other commands, or how credentials are checked. (handler's thread)
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar

from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword

from sockserve.auth.certificates import CertificateLogin
from sockserve.auth.credentials import PasswordCredentials
from sockserve.auth.door import Waits
from sockserve.auth.identity import Identity
from sockserve.auth.scram import ScramCredentials, ScramExchange, channel_binding, has_scram
from sockserve.core.messages import nearest
from sockserve.core.unsuspended import run_unsuspended
from sockserve.interfaces import ClientGone, ConfigurationError, NotAuthenticated, Refusal

__all__ = ["MECHANISMS", "SASLMixIn"]

#: The mechanisms that there are, the best first.
MECHANISMS = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "EXTERNAL", "PLAIN")

#: The longest line that a client may send in an exchange: what RFC 4954 (section 4) asks for.
MAX_RESPONSE_BYTES = 12288


class SASLMixIn(CertificateLogin):
    """
    A handler whose clients log in by a mechanism of SASL, coroutine or blocking.

    @cvar sasl_mechanisms: those to offer, as far as the connection and the server's portal have
        what they take.
    @cvar challenge_prefix: what a line begins with that asks the client to go on: C{b"334 "} in
        SMTP, C{b"+ "} in IMAP and POP3.
    """

    sasl_mechanisms: ClassVar[tuple[str, ...]] = MECHANISMS
    challenge_prefix: ClassVar[bytes] = b"334 "

    @classmethod
    def prepare_server(cls, server: Any) -> None:
        """
        Check L{sasl_mechanisms}.

        @raise ConfigurationError: one of them is unknown.
        """
        super().prepare_server(server)
        if isinstance(cls.sasl_mechanisms, str):
            raise ConfigurationError(
                f"handler {cls.__qualname__}: sasl_mechanisms: {cls.sasl_mechanisms!r} is a text;"
                " write a tuple of them, as in ('PLAIN',)"
            )
        for name in cls.sasl_mechanisms:
            if name not in MECHANISMS:
                raise ConfigurationError(
                    f"handler {cls.__qualname__}: sasl_mechanisms: {name!r} is not one of"
                    f" {', '.join(MECHANISMS)}{nearest(name, MECHANISMS)}"
                )

    @property
    def mechanisms(self) -> list[str]:
        """
        The mechanisms that are offered on the connection as it is now, in the order of
        L{sasl_mechanisms}:

          - C{PLAIN}: over TLS only, where the portal has a checker of passwords;
          - C{SCRAM-SHA-256}: where it has one that knows them as they are
            (C{IUsernameHashedPassword}), and the library C{scramp} is there;
          - C{SCRAM-SHA-256-PLUS}: likewise, and over TLS;
          - C{EXTERNAL}: where the client has shown a certificate.
        """
        return [name for name in self.sasl_mechanisms if self._is_offered(name)]

    def _is_offered(self, mechanism: str) -> bool:
        checkers = {} if self.portal is None else self.portal.checkers
        tls = self.tls
        if mechanism == "PLAIN":
            return tls is not None and IUsernamePassword in checkers
        if mechanism == "EXTERNAL":
            return tls is not None and tls.certificate is not None
        if mechanism == "SCRAM-SHA-256-PLUS" and self._binding() is None:
            return False
        return IUsernameHashedPassword in checkers and has_scram()

    def _binding(self) -> bytes | None:
        """What binds an exchange to the connection's TLS; None where that is not offered."""
        is_wanted = "SCRAM-SHA-256-PLUS" in self.sasl_mechanisms
        return (
            None if self.tls is None or not is_wanted else channel_binding(self.tls.own_certificate)
        )

    def authenticate(self, mechanism: str | bytes, initial: str | bytes | None = None) -> Any:
        """
        Log the client in: exchange what the mechanism says, and set C{identity}.  The end is for
        the handler to answer.  A login that fails takes a second, and twice as long each time for
        the same client; a client that comes back too early waits before.

        @param mechanism: its name, as the client has written it.
        @param initial: the initial response, in base64, if the client has sent one.
        @return: the L{Identity}; in a coroutine handler, what is to be awaited for it.
        @raise NotAuthenticated: the client has not shown who it is; that has been counted, and
            logged.
        """
        if isinstance(mechanism, bytes):
            mechanism = mechanism.decode("ascii", "replace")
        if isinstance(initial, str):
            initial = initial.encode("utf-8", "replace")
        exchange = self._authenticate(mechanism.upper(), initial, self._waits())
        if not self._is_blocking:
            return exchange
        return run_unsuspended(exchange, "an exchange waits on a thread")

    async def _authenticate(self, mechanism: str, initial: bytes | None, waits: Waits) -> Identity:
        try:
            if mechanism not in self.mechanisms:
                raise NotAuthenticated(Refusal.MECHANISM)
            await self._door().wait_turn(self._peer_key(), waits)
            return await self._exchanges[mechanism](self, mechanism, initial, waits)
        except NotAuthenticated as failure:
            self.forget_identity()
            if failure.refusal is not Refusal.CANCELLED:
                self._count(failure)
            raise

    async def _plain(self, mechanism: str, initial: bytes | None, waits: Waits) -> Identity:
        """RFC 4616."""
        response = await self._response(initial, waits)
        wanted, *rest = response.split(b"\0")
        if len(rest) != 2 or not all(rest) or not _is_text(response):
            raise NotAuthenticated(Refusal.MALFORMED)
        username, password = rest
        if wanted not in (b"", username):  # nobody may be another
            raise NotAuthenticated(Refusal.MALFORMED, "to act as another user")
        return await self._by_password(PasswordCredentials(username, password), mechanism, waits)

    async def _scram(self, mechanism: str, initial: bytes | None, waits: Waits) -> Identity:
        """RFC 5802 and RFC 7677."""
        client_first = await self._response(initial, waits)
        secret = self._door().secret
        exchange = ScramExchange(mechanism, client_first, self._binding(), secret)
        client_final = await self._challenge(exchange.server_first.encode(), waits)
        exchange.check_form(client_final)
        credentials = ScramCredentials(exchange, client_final)
        identity = await self._by_password(credentials, mechanism, waits)
        if credentials.server_final is None:  # by a checker that has not asked
            raise NotAuthenticated(Refusal.UNAVAILABLE)
        if await self._challenge(credentials.server_final, waits):
            raise NotAuthenticated(Refusal.MALFORMED)
        return identity

    async def _external(self, mechanism: str, initial: bytes | None, waits: Waits) -> Identity:
        """RFC 4422, appendix A."""
        response = await self._response(initial, waits)
        if not _is_text(response):
            raise NotAuthenticated(Refusal.MALFORMED)
        return await self._log_in_external(response.decode(), waits)

    _exchanges: ClassVar[Mapping[str, Callable[..., Coroutine[Any, Any, Identity]]]] = {
        "PLAIN": _plain,
        "SCRAM-SHA-256": _scram,
        "SCRAM-SHA-256-PLUS": _scram,
        "EXTERNAL": _external,
    }

    async def _by_password(
        self, credentials: PasswordCredentials | ScramCredentials, mechanism: str, waits: Waits
    ) -> Identity:
        assert self.portal is not None
        name = credentials.username.decode("utf-8", "backslashreplace")
        return await self._log_in(self.portal, credentials, mechanism, waits, name)

    async def _response(self, initial: bytes | None, waits: Waits) -> bytes:
        """The client's first response, which may have come with the command."""
        if initial is None:
            return await self._challenge(b"", waits)
        return b"" if initial == b"=" else _decoded(initial)

    async def _challenge(self, challenge: bytes, waits: Waits) -> bytes:
        """
        Ask the client to go on.

        @return: its response.
        @raise NotAuthenticated: it does not want to, or what it has sent is no response.
        """
        self.wfile.write(self.challenge_prefix + b64encode(challenge) + b"\r\n")
        self.wfile.flush()
        line: bytes = await waits.call(self.rfile.readline, MAX_RESPONSE_BYTES)
        if not line:
            raise ClientGone("it has ended its side")
        if not line.endswith(b"\n"):
            raise NotAuthenticated(Refusal.MALFORMED, "no line of a response")
        line = line.rstrip(b"\r\n")
        if line == b"*":
            raise NotAuthenticated(Refusal.CANCELLED)
        return _decoded(line)


def _is_text(response: bytes) -> bool:
    """Whether a response is in UTF-8, as all mechanisms ask for."""
    return response.decode("utf-8", "replace").encode() == response


def _decoded(text: bytes) -> bytes:
    """
    What base64 has made a text of.

    @raise NotAuthenticated: it is none.
    """
    try:
        return b64decode(text, validate=True)
    except ValueError:
        pass
    raise NotAuthenticated(Refusal.MALFORMED)
