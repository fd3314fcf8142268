"""
The uvloop reactor: Twisted's interfaces on libuv's loop, C{--reactor=uvloop}.

This room owns the loop, when timed calls and calls of other threads are made, and signals.  The
streams' transports are in L{sockserve.reactors.uvloop_streams}.  It must not know servers.

It is the epoll reactor with another middle.  All that has a descriptor and is no TCP or UNIX stream
(ports, datagrams, pipes of processes, connections that are being made) waits in an C{epoll} of its
own, as there; the loop watches that as one descriptor.  Streams are the loop's own.
(reactor thread, but for L{UVLoopReactor.wakeUp} and C{callFromThread})
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from math import inf
from types import FrameType
from typing import Any, cast

from attrs import frozen
from twisted.internet import process
from twisted.internet._signals import SignalHandling, _MultiSignalHandling
from twisted.internet.abstract import FileDescriptor
from twisted.internet.base import DelayedCall, ReactorBase
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import UnsupportedAddressFamily
from twisted.internet.interfaces import IConnector, IListeningPort, IProtocolFactory
from twisted.internet.main import CONNECTION_DONE, installReactor
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.logs import Topic, logger
from sockserve.reactors.uvloop_ports import (
    StreamReactor,
    TCPConnector,
    TCPPort,
    TCPServer,
    UNIXConnector,
    UNIXPort,
    UNIXServer,
)

try:
    import uvloop
except ImportError as error:
    raise ImportError("it needs uvloop: pip install 'sockserve[uvloop]'") from error

__all__ = ["UVLoopReactor", "install"]

_log = logger(Topic.REACTOR)

#: How many timed calls wait unsorted at most while nothing else is due: cancelled ones go when they
#: are sorted, and a server makes and cancels some for each request.
_UNSORTED_CALLS = 512


class UVLoopReactor(StreamReactor, EPollReactor):
    """
    A reactor that runs on uvloop's event loop.

    @ivar unix_server_transport: the transport that a C{unix.Port} makes for a connection here.
    """

    unix_server_transport = UNIXServer

    def __init__(self, eventloop: asyncio.AbstractEventLoop | None = None) -> None:
        """
        @param eventloop: uvloop's loop; by default, a new one, which is set as the thread's.
        """
        if eventloop is None:
            eventloop = uvloop.new_event_loop()
            asyncio.set_event_loop(eventloop)
        #: Whether L{_turn} is about to be called.
        self._turn_is_due = False
        #: What calls it next when time has passed, and when, by C{seconds()}.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_time = inf
        super().__init__(eventloop)
        eventloop.add_reader(self._poller.fileno(), self._poll_descriptors)

    # The loop

    @override
    def mainLoop(self) -> None:
        """As C{ReactorBase.mainLoop}."""
        self._turn_soon()
        while self._started:
            with _log.failuresHandled("Unexpected error in main loop"):
                self._asyncioEventloop.run_forever()
        # What was closed last is closed when the loop has come round once more.
        self.doIteration(0)
        _log.debug("Main loop terminated.")

    @override
    def crash(self) -> None:
        """As C{IReactorCore.crash}."""
        super().crash()
        if self._asyncioEventloop.is_running():
            self._asyncioEventloop.stop()

    @override
    def stop(self) -> None:
        """As C{IReactorCore.stop}."""
        super().stop()
        # What this turn has yet to send is sent before the shutdown, which begins when
        # C{runUntilCurrent} finds this set.
        self._justStopped = False
        self._asyncioEventloop.call_soon(self._shut_down)

    def _shut_down(self) -> None:
        """Have L{stop} take effect."""
        self._justStopped = True
        self._turn_soon()

    @override
    def doIteration(self, delay: float | None) -> None:
        """
        Run the loop for C{delay} seconds.

        @raise RuntimeError: it is running.
        """
        loop = self._asyncioEventloop
        if delay:
            loop.call_later(delay, loop.stop)
        else:
            loop.call_soon(loop.stop)
        loop.run_forever()

    def _poll_descriptors(self) -> None:
        """Something has happened to a descriptor."""
        if self._selectables:
            self.doPoll(0)

    # Timed calls, and calls from other threads

    def _turn_soon(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self._asyncioEventloop.call_soon(self._turn)

    def _turn(self) -> None:
        """Make the calls that are due, and have the loop come back for the next."""
        self._turn_is_due = False
        self.runUntilCurrent()
        delay = self.timeout()
        if delay == 0:
            self._turn_soon()
        elif delay is not None:
            due = self._pendingTimedCalls[0].time
            # One that comes before is as good: it asks again.
            if due < self._timer_time:
                if self._timer is not None:
                    self._timer.cancel()
                self._timer_time = due
                # Never before it is due: the loop counts in milliseconds, and rounds.
                milliseconds = int(delay * 1000) + 1
                later = self._asyncioEventloop.call_later
                self._timer = later(milliseconds / 1000, self._time_passed)

    def _time_passed(self) -> None:
        self._timer = None
        self._timer_time = inf
        self._turn_soon()  # at the end of this turn of libuv's, before the next of which it listens

    @override
    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> DelayedCall:
        """As C{IReactorTime.callLater}."""
        call = ReactorBase.callLater(self, delay, callable, *args, **kw)
        if not self._turn_is_due and (
            call.time < self._timer_time or len(self._newTimedCalls) > _UNSORTED_CALLS
        ):
            self._turn_is_due = True
            self._asyncioEventloop.call_soon(self._turn)
        return call

    @override
    def _moveCallLaterSooner(self, delayedCall: DelayedCall) -> None:
        super()._moveCallLaterSooner(delayedCall)
        if delayedCall.time < self._timer_time:
            self._turn_soon()

    @override
    def installWaker(self) -> None:
        """The loop has its own."""

    @override
    def wakeUp(self) -> None:
        """Have calls from other threads made. (any thread)"""
        # Whoever finds a turn due has entered its call before that: a turn first takes back that
        # it is due, and then looks for calls.
        if not self._turn_is_due:
            self._turn_is_due = True
            self._asyncioEventloop.call_soon_threadsafe(self._turn)

    # Signals

    @override
    def _signalsFactory(self) -> SignalHandling:
        # Not Twisted's for children: it has signals written to a pipe, and the loop does so, too.
        return _MultiSignalHandling((ReactorBase._signalsFactory(self), _ChildSignals(self)))

    # Processes

    @override
    def spawnProcess(self, processProtocol: Any, *args: Any, **kwargs: Any) -> Any:
        """As C{IReactorProcess.spawnProcess}."""
        spawned = super().spawnProcess(processProtocol, *args, **kwargs)
        if spawned.pid is not None:
            try:
                _ChildWatch(self, spawned.pid)
            except OSError:  # it has been waited for, or there is no descriptor to be had
                pass
        return spawned

    # Streams

    @override
    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """As C{IReactorTCP.listenTCP}."""
        listening = TCPPort(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    @override
    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float = 30.0,
        bindAddress: Any = None,
    ) -> IConnector:
        """As C{IReactorTCP.connectTCP}."""
        connector = TCPConnector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    @override
    def listenUNIX(
        self,
        address: Any,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: int = 0,
    ) -> IListeningPort:
        """As C{IReactorUNIX.listenUNIX}."""
        listening = UNIXPort(address, factory, backlog, mode, self, wantPID)
        listening.startListening()
        return listening

    @override
    def connectUNIX(
        self, address: Any, factory: ClientFactory[Any], timeout: float = 30, checkPID: int = 0
    ) -> IConnector:
        """As C{IReactorUNIX.connectUNIX}."""
        connector = UNIXConnector(address, factory, timeout, self, checkPID)
        connector.connect()
        return connector

    @override
    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> IListeningPort:
        """As C{IReactorSocket.adoptStreamPort}."""
        self._check_family(addressFamily)
        if addressFamily == socket.AF_UNIX:
            listening = UNIXPort._fromListeningDescriptor(self, fileDescriptor, factory)
        else:
            listening = TCPPort._fromListeningDescriptor(
                self, fileDescriptor, addressFamily, factory
            )
        listening.startListening()
        return cast(IListeningPort, listening)

    @override
    def adoptStreamConnection(
        self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> Any:
        """As C{IReactorSocket.adoptStreamConnection}."""
        self._check_family(addressFamily)
        if addressFamily == socket.AF_UNIX:
            return UNIXServer._fromConnectedSocket(fileDescriptor, factory, self)
        return TCPServer._fromConnectedSocket(fileDescriptor, addressFamily, factory, self)

    def _check_family(self, family: int) -> None:
        if family not in self._supportedAddressFamilies:
            raise UnsupportedAddressFamily(family)


class _ChildWatch(FileDescriptor):
    """
    A child whose end is seen without signals: while asyncio has children of its own on this loop,
    and from then on, libuv has SIGCHLD for itself.
    """

    reactor: UVLoopReactor

    def __init__(self, reactor: UVLoopReactor, pid: int) -> None:
        """
        @raise OSError: the kernel does not tell of this child in this way.
        """
        super().__init__(reactor)
        self._descriptor = os.pidfd_open(pid)
        reactor._addInternalReader(self)

    @override
    def fileno(self) -> int:
        return self._descriptor

    @override
    def doRead(self) -> None:
        self.reactor._removeInternalReader(self)
        self.connectionLost(Failure(CONNECTION_DONE))
        process.reapAllProcesses()

    @override
    def connectionLost(self, reason: Failure) -> None:
        if self._descriptor >= 0:
            super().connectionLost(reason)
            os.close(self._descriptor)
            self._descriptor = -1


@frozen
class _ChildSignals:
    """Twisted's processes are asked about when a child has ended."""

    _reactor: UVLoopReactor

    def install(self) -> None:
        """As C{SignalHandling.install}."""
        signal.signal(signal.SIGCHLD, self._child_ended)
        signal.siginterrupt(signal.SIGCHLD, False)
        process.reapAllProcesses()  # which have ended before

    def _child_ended(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(process.reapAllProcesses)

    def uninstall(self) -> None:
        """As C{SignalHandling.uninstall}."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def install(eventloop: asyncio.AbstractEventLoop | None = None) -> None:
    """
    Make it the reactor of this process.

    @param eventloop: uvloop's loop; by default, a new one.
    """
    installReactor(UVLoopReactor(eventloop))
