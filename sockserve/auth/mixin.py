"""
The base of the mix-ins: the identity of a handler's client, and the portal that is asked for it.

This room owns C{self.identity}, its beginning and its end.  It must not know by what means a client
shows who it is. (handler's thread)
"""

from __future__ import annotations

import socket
import socketserver
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials
from twisted.cred.portal import Portal
from zope.interface import Interface

from sockserve.auth.checkers import IUser, UserRealm
from sockserve.auth.door import (
    BlockingWaits,
    Client,
    CoroutineWaits,
    Door,
    Waits,
    door_of,
)
from sockserve.auth.identity import Identity
from sockserve.auth.throttle import peer_key
from sockserve.core.handler_kinds import provides
from sockserve.core.tls_facts import TLSFacts
from sockserve.core.unsuspended import run_unsuspended
from sockserve.interfaces import ConfigurationError, IRequestHandler, NotAuthenticated

if TYPE_CHECKING:
    # For type checkers: a mix-in goes before a handler class, of sockserve's or the stdlib's.
    from sockserve.handlers import StreamRequestHandler

    HandlerClass: TypeAlias = StreamRequestHandler[Any, Any, Any, Any]
else:
    HandlerClass = object

__all__ = ["AuthMixIn", "HandlerClass"]


def _is_handler_class(cls: type) -> bool:
    return issubclass(cls, socketserver.BaseRequestHandler) or provides(cls, IRequestHandler)


class AuthMixIn(HandlerClass):
    """
    A handler with the identity of its client.

    @ivar identity: who the client has shown to be; None as long as it has not.
    @cvar avatar_interfaces: what to ask the portal's realm for; what it gives is
        C{identity.avatar}.
    """

    identity: Identity | None = None
    avatar_interfaces: ClassVar[tuple[type[Interface], ...]] = (IUser,)
    #: What logs out of the portal, at the end.
    _log_out: Callable[[], object] | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for base in cls.__mro__[: cls.__mro__.index(AuthMixIn)]:
            if not issubclass(base, AuthMixIn) and _is_handler_class(base):
                # What the mix-in does before C{handle} would never happen.
                raise ConfigurationError(
                    f"handler {cls.__qualname__}: its mix-ins come behind {base.__qualname__};"
                    f" write them before it, as in class {cls.__name__}(SASLMixIn, {base.__name__})"
                )

    @classmethod
    def prepare_server(cls, server: Any) -> None:
        """
        Get ready for the requests of a server object.

        @raise ConfigurationError: what the class says cannot be.
        """
        prepare = getattr(super(), "prepare_server", None)
        if prepare is not None:
            prepare(server)

    def finish(self) -> Any:
        """Clean up, and log out of the portal."""
        try:
            return super().finish()
        finally:
            self.forget_identity()

    @property
    def tls(self) -> TLSFacts | None:
        """The facts of the connection's TLS; None as long as that is plain."""
        facts: TLSFacts | None = getattr(self.request, "tls", None)
        if facts is None and isinstance(self.request, ssl.SSLSocket):  # another's
            facts = TLSFacts(self.request.getpeercert(True), None)
        return facts

    @property
    def portal(self) -> Portal | None:
        """The portal of the server object, if it has one."""
        return getattr(self.server, "portal", None)

    def forget_identity(self) -> None:
        """Log out of the portal, if the client has been logged in."""
        self.identity = None
        log_out, self._log_out = self._log_out, None
        if log_out is not None:
            log_out()

    # For mix-ins

    @property
    def _is_blocking(self) -> bool:
        return isinstance(self.request, socket.socket)

    def _waits(self) -> Waits:
        if self._is_blocking:
            return BlockingWaits(self.server, self.request)
        return CoroutineWaits(self.server)

    def _door(self) -> Door:
        return door_of(self.portal or self.server)

    def _peer_key(self) -> object:
        return peer_key(self.client_address) or ("connection", id(self))

    def _portal_for(
        self, interface: type[Interface], checker: ICredentialsChecker | None
    ) -> Portal | None:
        """
        The portal to log in at: the server's, if that can check such credentials; or one for its
        realm with a checker of the handler's own.
        """
        portal = self.portal
        if portal is not None and interface in portal.checkers:
            return portal
        if checker is None:
            return None
        return Portal(UserRealm() if portal is None else portal.realm, [checker])

    async def _log_in(
        self, portal: Portal, credentials: ICredentials, method: str, waits: Waits, name: str
    ) -> Identity:
        """
        Log the client in, as slowly as it deserves.

        @param name: its name, where the avatar has none.
        @raise NotAuthenticated: that is counted where it is handled.
        """
        door, interfaces = self._door(), self.avatar_interfaces
        client = Client(self._peer_key(), self._count)
        login = await door.log_in(portal, credentials, interfaces, waits, client)
        return self._logged_in(login, method, name)

    def _log_in_now(
        self, portal: Portal, credentials: ICredentials, method: str, name: str
    ) -> Identity:
        """
        Log the client in without waiting, in C{setup}: a coroutine's checker has to answer at once.

        @raise NotAuthenticated: that is counted where it is handled.
        """
        waits = BlockingWaits(self.server, None)
        logging_in = self._door().log_in(portal, credentials, self.avatar_interfaces, waits)
        login = run_unsuspended(logging_in, "a login waits where it may not")
        return self._logged_in(login, method, name)

    def _logged_in(self, login: Any, method: str, name: str) -> Identity:
        self.forget_identity()
        _, avatar, self._log_out = login
        self.identity = Identity(str(getattr(avatar, "name", name)), method, avatar=avatar)
        return self.identity

    def _undo_setup(self) -> None:
        """Close what C{setup} has opened: when it raises, C{finish} is not called."""
        if self._is_blocking:
            for stream in (self.rfile, self.wfile):
                stream.close()

    def _count(self, failure: NotAuthenticated) -> None:
        """Have a failure counted and logged, once, where the server object does so."""
        if failure.is_counted:
            return
        failure.is_counted = True
        self._tell_server("count_failure", "authentication", str(failure).partition(": ")[2])

    def _tell_server(self, method: str, *arguments: object) -> None:
        """Call a method of the server object's with the client's address, if it has that."""
        tell = getattr(self.server, method, None)
        if tell is not None:
            tell(self.client_address, *arguments)
