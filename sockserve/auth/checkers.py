"""
Checkers of credentials, and portals with them, as options describe them.

This room owns the checkers that Twisted has not, a realm for those who have none, and the portal
that a user's descriptions come to.  It must not know handlers, or how credentials come.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, TypeAlias

import attrs
from twisted.cred.checkers import ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.cred.strcred import (
    ICheckerFactory,
    InvalidAuthArgumentString,
    findCheckerFactories,
)
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from zope.interface import Attribute, Interface, implementer

from sockserve.auth.credentials import (
    IAddressCredentials,
    ICertificateCredentials,
)
from sockserve.core.admission import Admission, parse_network
from sockserve.core.messages import nearest
from sockserve.interfaces import ConfigurationError

__all__ = [
    "AddressChecker",
    "CertificateChecker",
    "IUser",
    "User",
    "UserRealm",
    "make_portal",
]

_AvatarID: TypeAlias = Deferred[bytes | tuple[()]]

#: The kinds of credentials that clients can show here.
_CREDENTIALS: tuple[type[Interface], ...] = (
    IUsernamePassword,
    IUsernameHashedPassword,
    ICertificateCredentials,
    IAddressCredentials,
)


#: The file with the passwords of the system's users; Twisted reads it by the module C{spwd}.
_SHADOW_PATH = "/etc/shadow"


class IUser(Interface):
    """A user, as handlers ask a realm for one."""

    name: str = Attribute("The user's name.")


@implementer(IUser)
@attrs.frozen
class User:
    """
    A user of whom no more than the name is known.

    @ivar name: the name.
    """

    name: str


def _log_out() -> None:
    """Nothing is to be done when a L{User} has gone."""


@implementer(IRealm)
class UserRealm:
    """A realm for those who need none: its avatars are L{User}s."""

    def requestAvatar(
        self, avatarId: bytes | str | tuple[()], mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], object, Callable[[], None]]:
        """
        The user of a name.

        @raise NotImplementedError: L{IUser} is not among C{interfaces}, or there is no name.
        """
        if IUser not in interfaces or not avatarId:
            raise NotImplementedError("only IUser, and only of those with a name")
        if isinstance(avatarId, bytes):
            name = avatarId.decode("utf-8", "backslashreplace")
        else:
            name = str(avatarId)  # of Twisted's checker of the system's users
        return IUser, User(name), _log_out


@implementer(ICredentialsChecker)
class CertificateChecker:
    """
    The checker of certificates where there is no other: each that TLS has verified is good.  Its
    user is the subject's common name, or else the first of the other names; or who the client says
    it is, if that is one of them.
    """

    credentialInterfaces = (ICertificateCredentials,)

    def requestAvatarId(self, credentials: ICertificateCredentials) -> _AvatarID:
        """
        The name of a certificate's user.

        @return: a Deferred that has fired with it; or has failed with C{UnauthorizedLogin}, if
            there is no name, or not the one that the client wants.
        """
        found = credentials.names
        names = [each for each in (found.common_name, *found.names) if each]
        if not names or (credentials.wanted and credentials.wanted not in names):
            return fail(UnauthorizedLogin())
        return succeed((credentials.wanted or names[0]).encode())


@implementer(ICredentialsChecker)
class AddressChecker:
    """The checker of clients' addresses: who is in a network is its user."""

    credentialInterfaces = (IAddressCredentials,)

    def __init__(self, networks: Mapping[str, str]) -> None:
        """
        @param networks: the users by network: an address or ADDRESS/PREFIX.  Of several that an
            address is in, the longest prefix counts.
        @raise ConfigurationError: a network is none, or has no name.
        """
        if not isinstance(networks, Mapping):
            raise ConfigurationError(
                f"networks: {networks!r} is no mapping, as {{'10.0.0.0/8': 'office'}} is one"
            )
        for network, user in networks.items():
            if not isinstance(user, str):
                raise ConfigurationError(f"network {network!r}: {user!r} is no user's name")
        found = [(parse_network(network), user) for network, user in networks.items()]
        found.sort(key=lambda each: each[0].prefixlen, reverse=True)
        self._users = [(Admission(allow=[network]), user) for network, user in found]

    def requestAvatarId(self, credentials: IAddressCredentials) -> _AvatarID:
        """
        The name of an address' user.

        @return: a Deferred that has fired with it; or has failed with C{UnauthorizedLogin}, if
            it is in none of the networks, or no IP address.
        """
        if isinstance(credentials.client_address, tuple):  # those of UNIX sockets are in none
            for network, user in self._users:
                if network.allows(credentials.client_address):
                    return succeed(user.encode())
        return fail(UnauthorizedLogin())


@implementer(ICredentialsChecker)
class _FirstOf:
    """Several checkers of the same credentials, asked one after the other."""

    def __init__(self, interface: type[Interface], checkers: Sequence[ICredentialsChecker]) -> None:
        self.credentialInterfaces = (interface,)
        self._checkers = checkers

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._ask(credentials))

    async def _ask(self, credentials: Any) -> Any:
        for checker in self._checkers:
            try:
                return await maybeDeferred(checker.requestAvatarId, credentials)
            except LoginFailed:
                pass
        raise UnauthorizedLogin


def make_portal(
    descriptions: Iterable[str], realm: IRealm | None = None, word: str = "auth"
) -> Portal:
    """
    Make a portal whose checkers are described as C{twisted.cred.strcred} has it: C{file:PATH},
    C{memory:NAME:PASSWORD}, C{unix}, or a plugin's.  Several that check the same are asked one
    after the other.

    @param realm: by default a L{UserRealm}.
    @param word: the option's name, for messages.
    @raise ConfigurationError: one of them is none.  The message does not have what may be secret in
        it.
    """
    by_interface: dict[type[Interface], list[ICredentialsChecker]] = {}
    for description in descriptions:
        checker = _make_checker(description, word)
        for interface in checker.credentialInterfaces:
            by_interface.setdefault(interface, []).append(checker)
    portal = Portal(UserRealm() if realm is None else realm)
    for interface, checkers in by_interface.items():
        one = checkers[0] if len(checkers) == 1 else _FirstOf(interface, checkers)
        portal.registerChecker(one, interface)
    return portal


def _make_checker(description: str, word: str) -> ICredentialsChecker:
    kind, _, argument = description.partition(":")
    factories = {str(each.authType): each for each in findCheckerFactories()}
    usable = sorted(name for name, each in factories.items() if _can_be_shown(each))
    factory = factories.get(kind)
    if factory is None:
        kinds = ", ".join(usable)
        raise ConfigurationError(f"{word}: {kind!r} is not one of {kinds}{nearest(kind, usable)}")
    if kind not in usable:
        raise ConfigurationError(
            f"{word} {kind}: no client can show here what it checks; {', '.join(usable)} will do"
        )
    if kind == "file":
        _check_file(argument, word)
    elif kind == "unix":
        _check_unix(argument, word)
    try:
        checker = factory.generateChecker(argument)
    except InvalidAuthArgumentString:
        checker = None
    except Exception as error:
        raise ConfigurationError(f"{word} {kind}: it raised {type(error).__name__}") from None
    if checker is None:
        raise ConfigurationError(
            f"{word} {kind}: what follows it is wrong; it takes: {factory.argStringFormat}"
        )
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        # Those of a description are text, which no client's name, in bytes, is equal to.
        checker.users = {_bytes(name): _bytes(secret) for name, secret in checker.users.items()}
        if not any(name and secret for name, secret in checker.users.items()):
            raise ConfigurationError(
                f"{word} {kind}: nobody can log in by it; write {kind}:NAME:PASSWORD"
            )
    found: ICredentialsChecker = checker
    return found


def _can_be_shown(factory: ICheckerFactory) -> bool:
    """Whether a client can show something here that the factory's checkers take."""
    return not set(_CREDENTIALS).isdisjoint(factory.credentialInterfaces)


def _bytes(text: str | bytes) -> bytes:
    return os.fsencode(text) if isinstance(text, str) else text


def _check_file(path: str, word: str) -> None:
    """
    Check that a file of passwords can be read, as Twisted does only when the first client comes,
    and that it has a user.

    @raise ConfigurationError: it cannot, or has none.
    """
    if not path.strip():
        raise ConfigurationError(f"{word} file: write file:PATH")
    where = f"{word} file {path!r}"
    try:
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # it is read for each client anew
            raise ConfigurationError(f"{where}: it is no regular file")
        with open(path, "rb") as file:
            has_user = any(_names_user(line) for line in file)
    except OSError as error:
        raise ConfigurationError(f"{where}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    if not has_user:
        raise ConfigurationError(f"{where}: nobody can log in by it; no line is NAME:PASSWORD")


def _names_user(line: bytes) -> bool:
    name, _, rest = line.rstrip().partition(b":")
    return bool(name and rest.partition(b":")[0])


def _check_unix(argument: str, word: str) -> None:
    """
    Check that the system's passwords can be checked.

    @raise ConfigurationError: they cannot.
    """
    if argument:
        raise ConfigurationError(f"{word} unix: nothing belongs behind it")
    if find_spec("crypt") is None:
        raise ConfigurationError(
            f"{word} unix: this Python has no module crypt, which it takes to check passwords"
        )
    try:
        with open(_SHADOW_PATH, "rb"):
            pass
    except FileNotFoundError:  # the system has them elsewhere
        pass
    except OSError as error:
        raise ConfigurationError(
            f"{word} unix: {_SHADOW_PATH}: {error.strerror}; whoever checks the system's passwords"
            " has to be allowed to read it, as root is"
        ) from None
