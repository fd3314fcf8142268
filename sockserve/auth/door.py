"""
The door of a portal: how one handler, of either kind, logs a client in.

This room owns how a portal is asked from a coroutine and from a thread, what becomes of a failure,
and how that is slowed and counted.  It must not know mechanisms, nor what is spoken.

What takes several steps is written once, as a coroutine; on a thread it is run to its end in one
go, as what it waits for there blocks (L{run_unsuspended
<sockserve.core.unsuspended.run_unsuspended>}).
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Awaitable, Callable
from secrets import token_bytes
from typing import Any, NamedTuple, Protocol, TypeVar
from weakref import WeakKeyDictionary

from twisted.cred.credentials import ICredentials
from twisted.cred.error import LoginFailed, UnhandledCredentials
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread
from twisted.python.failure import Failure
from zope.interface import Interface

from sockserve.auth.throttle import LoginThrottle
from sockserve.core.clock import clock_of
from sockserve.core.forking import ThreadRole, is_child, this_thread
from sockserve.core.logs import Topic, logger
from sockserve.interfaces import ClientGone, IExecutor, NotAuthenticated, Refusal, SockserveError

__all__ = [
    "BlockingWaits",
    "Client",
    "ClockOwner",
    "CoroutineWaits",
    "Door",
    "Waits",
    "at_once",
    "door_of",
]

_log = logger(Topic.HANDLERS)

_T = TypeVar("_T")

#: What C{Portal.login} gives: the interface, the avatar, and what logs out.
Login = tuple[type[Interface], object, Callable[[], object]]


class Waits(Protocol):
    """The ways in which a handler waits."""

    def seconds(self) -> float:
        """The time. (handler's thread)"""

    async def pause(self, seconds: float) -> None:
        """
        Let time pass.

        @raise ConnectionError: the client has not waited. (handler's thread)
        """

    async def login(
        self, portal: Portal, credentials: ICredentials, *interfaces: type[Interface]
    ) -> Login:
        """Log in at a portal. (handler's thread)"""

    async def call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method of a stream of the handler's. (handler's thread)"""


class ClockOwner(Protocol):
    """A server object of sockserve's, as far as a coroutine waits by it."""

    clock: IReactorTime


class CoroutineWaits:
    """The ways of a coroutine. (reactor thread)"""

    def __init__(self, server: ClockOwner) -> None:
        self._clock = server.clock

    def seconds(self) -> float:
        """The time."""
        return self._clock.seconds()

    async def pause(self, seconds: float) -> None:
        """Let time pass; a client that goes meanwhile ends the handler, as anywhere."""
        await deferLater(self._clock, seconds)

    async def login(
        self, portal: Portal, credentials: ICredentials, *interfaces: type[Interface]
    ) -> Login:
        """Log in at a portal."""
        return await portal.login(credentials, None, *interfaces)

    async def call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method, and wait for what it gives if that is to be waited for."""
        result = method(*arguments)
        return await result if isinstance(result, Awaitable) else result


class BlockingWaits:
    """The ways of a blocking handler: none of these ever suspends. (handler's thread)"""

    def __init__(self, server: object, sock: socket.socket | None) -> None:
        """
        @param server: the server object, of sockserve's or the standard library's.
        @param sock: the handler's connection, if it has one.
        """
        self._reactor: Any = getattr(server, "reactor", None)
        self._clock = None if self._reactor is None else clock_of(self._reactor)
        self._executor: IExecutor | None = getattr(server, "concurrency", None)
        self._socket = sock

    def seconds(self) -> float:
        """The time."""
        return time.monotonic() if self._clock is None else self._clock.seconds()

    async def pause(self, seconds: float) -> None:
        """
        Let time pass, no longer than the client, or a deadline, lets the connection be.  A thread
        that others wait for is not kept for that.

        @raise ClientGone: the connection has ended before.
        @raise NotAuthenticated: others wait.
        """
        if seconds > 0 and self._executor is not None and self._executor.waiting:
            raise NotAuthenticated(Refusal.TOO_MANY)
        poll = select.poll()
        if self._socket is not None:
            poll.register(self._socket, getattr(select, "POLLRDHUP", 0))  # Linux has it
        if poll.poll(seconds * 1000):
            raise ClientGone("it has closed the connection")

    async def login(
        self, portal: Portal, credentials: ICredentials, *interfaces: type[Interface]
    ) -> Login:
        """
        Log in at a portal: on the reactor's thread, where checkers live; where there is none, as in
        a child, here.

        @raise RuntimeError: the checker does not answer at once, there.
        """
        is_worker = this_thread.role is ThreadRole.WORKER and not is_child()
        if is_worker and self._reactor is not None:
            ask: Callable[[], Any] = lambda: portal.login(credentials, None, *interfaces)  # noqa: E731
            login: Login = blockingCallFromThread(self._reactor, ask)
            return login
        return at_once(portal.login(credentials, None, *interfaces))

    async def call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method."""
        return method(*arguments)


def at_once(deferred: Deferred[_T]) -> _T:
    """
    The result of a Deferred that has fired.

    @raise RuntimeError: it has not.
    """
    results: list[Any] = []
    deferred.addBoth(results.append)
    if not results:
        deferred.cancel()
        raise RuntimeError("the checker does not answer at once, and cannot be waited for here")
    if isinstance(results[0], Failure):
        results[0].raiseException()
    result: _T = results[0]
    return result


class Client(NamedTuple):
    """
    The client of a handler, who may fail to log in.

    @ivar key: what it is known by.
    @ivar count_failure: counts a failure, once.
    """

    key: object
    count_failure: Callable[[NotAuthenticated], None]


class Door:
    """
    The door of a portal, which all handlers that ask it share.

    @ivar throttle: slows clients whose logins fail.
    @ivar secret: what is made of it is the same as long as the process runs, and nobody's to guess.
    """

    def __init__(self) -> None:
        self.throttle = LoginThrottle()
        self.secret = token_bytes(32)

    async def wait_turn(self, key: object, waits: Waits) -> None:
        """
        Let a client wait before it may log in, as long as it deserves.

        @param key: what it is known by.
        @raise NotAuthenticated: that would be too long. (handler's thread)
        """
        seconds = self.throttle.begin(key, waits.seconds())
        if seconds is None:
            raise NotAuthenticated(Refusal.TOO_MANY)
        if seconds > 0:
            await waits.pause(seconds)

    async def log_in(
        self,
        portal: Portal,
        credentials: ICredentials,
        interfaces: tuple[type[Interface], ...],
        waits: Waits,
        client: Client | None = None,
    ) -> Login:
        """
        Log a client in.

        @param client: whom to tell later that it may not, if so.
        @raise NotAuthenticated: the portal does not let it in, or cannot say. (handler's thread)
        """
        refusal = Refusal.CREDENTIALS
        began = waits.seconds()
        try:
            login = await waits.login(portal, credentials, *interfaces)
        except UnhandledCredentials:
            refusal = Refusal.MECHANISM
        except LoginFailed:
            pass
        except SockserveError:  # the client is gone, or a deadline has passed
            raise
        except Exception as error:
            refusal = Refusal.UNAVAILABLE
            _log_fault(error)
        else:
            if client is not None:
                self.throttle.succeeded(client.key, waits.seconds())
            return login
        # Not from within: what was raised may have credentials in it.
        failure = NotAuthenticated(refusal)
        if client is not None and refusal is Refusal.CREDENTIALS:
            client.count_failure(failure)  # now: it may not wait for the answer
            delay = self.throttle.failed(client.key, waits.seconds())
            # From the beginning, so that nobody sees how long it took to find out.
            try:
                await waits.pause(max(0.0, began + delay - waits.seconds()))
            except NotAuthenticated as another:
                another.is_counted = True
                raise
        raise failure


def _log_fault(error: Exception) -> None:
    """Log that a checker has failed: where, but not its words, which may be secret."""
    where = "an unknown place"
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        where = f"{code.co_filename}:{traceback.tb_lineno} in {code.co_name}"
        traceback = traceback.tb_next
    _log.error(
        "authentication: a checker or realm raised {kind} at {where}",
        kind=type(error).__name__,
        where=where,
    )


#: By portal, or by server object where there is no portal.
_doors: WeakKeyDictionary[object, Door] = WeakKeyDictionary()


def door_of(portal: object) -> Door:
    """The door of a portal, or of a server object without one. (any thread)"""
    door = _doors.get(portal)
    return _doors.setdefault(portal, Door()) if door is None else door
