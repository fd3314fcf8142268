"""
SCRAM: the exchange in which a client proves that it knows a password without showing it
(RFC 5802, RFC 7677), by the library C{scramp}.

This room owns how that library is asked, and what of it C{twisted.cred} has to know.  It must not
know connections, or how messages travel.

The library wants a user's keys before it answers the first message, while a checker of
C{twisted.cred} only says yes or no to credentials, the last thing of all.  So the first messages go
by keys that nobody has, under a salt that we choose; and when the checker has found the password,
the exchange is done again with the keys that belong to it.  A user that does not exist is answered
like any other until then.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from hmac import digest
from importlib.util import find_spec
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import MD5, SHA1, SHA256, Hash
from twisted.cred.credentials import IUsernameHashedPassword
from zope.interface import implementer

from sockserve.interfaces import NotAuthenticated, Refusal

if TYPE_CHECKING:
    from scramp.core import ScramServer  # type: ignore[import-untyped]

__all__ = ["ScramCredentials", "ScramExchange", "channel_binding", "has_scram"]

#: The rounds of the hash.  4096: the least that RFC 7677 allows.  Those who see an exchange have to
#: go through them for each guess; the stored passwords are plain anyhow.
ITERATIONS = 4096

_BINDING = "tls-server-end-point"

#: The salt, the two keys, and the rounds of the hash.
_Keys = tuple[bytes, bytes, bytes, int]


def has_scram() -> bool:
    """Whether the library is there."""
    return find_spec("scramp") is not None


def channel_binding(certificate: bytes | None) -> bytes | None:
    """
    What binds an exchange to its TLS: C{tls-server-end-point} (RFC 5929, section 4).

    @param certificate: the server's, in DER.
    @return: None where that is not defined.
    """
    if certificate is None:
        return None
    try:
        algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except Exception:  # one whose signature has no such algorithm, as Ed25519's, or an unknown one
        return None
    if algorithm is None:
        return None
    if isinstance(algorithm, (MD5, SHA1)):
        algorithm = SHA256()
    hashed = Hash(algorithm)
    hashed.update(certificate)
    return hashed.finalize()


class ScramExchange:
    """
    One exchange, as the server has it.

    @ivar username: the client's name.
    @ivar server_first: the answer to its first message.
    """

    def __init__(
        self, mechanism: str, client_first: bytes, binding: bytes | None, secret: bytes
    ) -> None:
        """
        @param mechanism: C{SCRAM-SHA-256} or C{SCRAM-SHA-256-PLUS}.
        @param client_first: the client's first message.
        @param binding: what the connection has of L{channel_binding}.
        @param secret: what salts are made from.
        @raise NotAuthenticated: the message is none.
        """
        self._mechanism = mechanism
        self._client_first = client_first
        self._binding = binding
        self._secret = secret
        self._nonce = token_hex(24)
        self.username = ""
        self._server: ScramServer = _told(lambda: self._begin(self._nobodys_keys))
        self.server_first: str = self._server.get_server_first()

    def __repr__(self) -> str:
        return f"<ScramExchange {self._mechanism}>"

    def _nobodys_keys(self, username: str) -> _Keys:
        self.username = username
        return self._salt(), bytes(32), bytes(32), ITERATIONS

    def _salt(self) -> bytes:
        """The same each time for one name, as it is for a user whose salt is stored."""
        return digest(self._secret, self.username.encode(), sha256)[:16]

    def _begin(self, keys_of: Callable[[str], _Keys]) -> ScramServer:
        from scramp import ScramMechanism  # type: ignore[import-untyped]

        binding = None if self._binding is None else (_BINDING, self._binding)
        server = ScramMechanism(self._mechanism).make_server(
            keys_of, channel_binding=binding, s_nonce=self._nonce
        )
        server.set_client_first(_text(self._client_first))
        return server

    def check_form(self, client_final: bytes) -> None:
        """
        Check all of the client's last message but the proof in it: what is wrong with that must
        not depend on whether there is such a user.

        @raise NotAuthenticated: it is no such message, or binds the exchange to another
            connection.
        """
        try:
            _told(lambda: self._server.set_client_final(_text(client_final)))
        except NotAuthenticated as failure:
            if failure.refusal is not Refusal.CREDENTIALS:
                raise

    def finish(self, client_final: bytes, password: bytes) -> bytes | None:
        """
        Check the proof in the client's last message.

        @return: the answer, which proves that the server knows the password; None if the client
            does not.
        """
        from scramp import ScramMechanism

        mechanism = ScramMechanism(self._mechanism)
        salt = self._salt()
        try:
            secret = _text(password)
            keys: _Keys = _told(lambda: mechanism.make_auth_info(secret, ITERATIONS, salt))
            server = self._begin(lambda username: keys)
            server.get_server_first()
            _told(lambda: server.set_client_final(_text(client_final)))
        except NotAuthenticated:  # or the password is one that nobody can have
            return None
        answer: str = server.get_server_final()
        return answer.encode()


@implementer(IUsernameHashedPassword)
class ScramCredentials:
    """
    The proof that a client has given of its password.

    @ivar username: its name.
    @ivar server_final: the server's own proof, once the password is found to be right.
    """

    def __init__(self, exchange: ScramExchange, client_final: bytes) -> None:
        self.username = exchange.username.encode()
        self.server_final: bytes | None = None
        self._exchange = exchange
        self._client_final = client_final

    def __repr__(self) -> str:
        return f"<ScramCredentials {self.username!r}>"

    def checkPassword(self, password: bytes) -> bool:
        """Whether C{password} is the one that the client has proved to know."""
        self.server_final = self._exchange.finish(self._client_final, password)
        return self.server_final is not None


def _text(message: bytes) -> str:
    """
    The text of a message, or of a password.

    @raise NotAuthenticated: it is not in UTF-8.
    """
    text = message.decode("utf-8", "replace")
    if text.encode() != message:
        raise NotAuthenticated(Refusal.MALFORMED)
    return text


def _told(call: Callable[[], Any]) -> Any:
    """
    Call the library.

    @raise NotAuthenticated: what it raises says so.  That is not passed on, as it may have a
        message in it.
    """
    from scramp import ScramException

    refusal = Refusal.MALFORMED
    detail = ""
    try:
        return call()
    except ScramException as error:
        code = getattr(error.server_error, "value", None)
        if code == "invalid-proof":
            refusal = Refusal.CREDENTIALS
        elif code is not None and "channel-binding" in code:
            detail = code.replace("-", " ")
    except Exception:  # what else it makes of garbage
        pass
    raise NotAuthenticated(refusal, detail)
