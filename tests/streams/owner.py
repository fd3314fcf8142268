"""Who owns a channel in memory: a connection without a protocol, on a reactor that is stepped."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.core.drain_notice import DrainNotice
from sockserve.core.statistics import RequestRecord
from sockserve.executors.base import serve_logged
from sockserve.interfaces import IExecutor, IJob, Outcome, Phase
from sockserve.listeners.server import RequestServer
from sockserve.listeners.ways import WAYS
from sockserve.sockets.hangups import HangupWatch
from sockserve.streams.channel import Channel, ChannelOwner
from tests.transports import KernelTransport, SteppedReactor

CLIENT = ("192.0.2.1", 50000)
SERVER = ("192.0.2.2", 7000)

MakeChannel = Callable[[ChannelOwner], Channel]


@implementer(IExecutor)
class SteppedExecutor:
    """
    Runs blocking handlers where they are, when a test says so.

    @ivar limit: with 0 all jobs wait.
    @ivar killable: whether it can do that, as one that forks can.
    """

    running = waiting = 0

    def __init__(self, limit: int = 1, *, killable: bool = False) -> None:
        self.limit = limit
        self.killable = killable
        self.killed: list[IJob] = []
        self.jobs: list[IJob] = []

    def run(self, job: IJob) -> None:
        self.jobs.append(job)
        if self.limit:
            job.started()

    def step(self) -> None:
        """The handler runs, and finishes."""
        (job,) = self.jobs
        self.jobs.remove(job)
        job.ended(serve_logged(job))

    def withdraw(self, job: IJob) -> bool:
        if self.limit or job not in self.jobs:
            return False
        self.jobs.remove(job)
        return True

    def kill(self, job: IJob) -> bool:
        if self.killable:
            self.killed.append(job)
        return self.killable

    def stop(self) -> None:
        raise NotImplementedError


class Server(RequestServer):
    """
    A server of one connection.

    @ivar raised: what handlers raised.
    """

    channel: Channel

    def __init__(self, handler: Any, **options: Any) -> None:
        super().__init__(handler, **options)
        self.hangups = HangupWatch()
        self.drain_notice = DrainNotice(self.deadlines)
        self.raised: list[BaseException | None] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        import sys

        self.raised.append(sys.exc_info()[1])

    def finish_request(self, request: Any, client_address: Any) -> Any:
        if not self.kind.is_coroutine:
            return super().finish_request(request, client_address)
        run = WAYS[self.kind].make_and_run
        return run(self.RequestHandlerClass, request, client_address, self)

    def close_request(self, request: Any) -> None:
        self.channel.request_closing()
        super().close_request(request)


@implementer(IHalfCloseableProtocol)
class Owner:
    """
    A connection that owns a channel.

    @ivar client: the other end of a plain connection.
    @ivar outcomes: what it was told that handlers came to, with the seconds they took.
    @ivar expired: deadlines of which the channel said that they apply.
    """

    client: socket.socket | None = None

    def __init__(
        self,
        handler: Any,
        make_channel: MakeChannel,
        *,
        plain: bool = True,
        sockets: Callable[[], tuple[socket.socket, socket.socket]] = socket.socketpair,
        executor: SteppedExecutor | None = None,
        **deadlines: Any,
    ) -> None:
        """
        @param plain: whether the transport is nothing but a socket, or one in memory with
            something in between.
        """
        self.reactor = SteppedReactor()
        self.timer = DeadlineTimer(self.reactor, self._deadline_passed)
        self.factory = Server(
            handler, reactor=self.reactor, deadlines=Deadlines(**deadlines), concurrency=executor
        )
        self.client_address = CLIENT
        self.record = RequestRecord(CLIENT, "handler")
        self.is_finished = False
        self.outcomes: list[tuple[float, Outcome]] = []
        self.expired: list[Phase] = []
        self.transport: Any
        if plain:
            self._socket, self.client = sockets()
            self._socket.setblocking(False)
            self.client.settimeout(10)
            self.transport = tcp.Connection(self._socket, self, self.reactor)
            self.transport.connected = True
            self.transport.startReading()
        else:
            self.transport = KernelTransport()
        #: The transport, also of a channel that lets go of it.
        self.below = self.transport
        self.channel = self.factory.channel = make_channel(self)

    # What the channel calls

    def set_receiver(self, receive: Callable[[bytes], object]) -> None:
        self.dataReceived = receive

    def handler_finished(self, seconds: float, outcome: Outcome) -> None:
        self.outcomes.append((seconds, outcome))

    def finish(self) -> None:
        # Of an abandoned one it hears again.
        self.is_finished = True
        self.timer.stop()

    def is_gone(self) -> bool:
        return self.is_finished

    # What the transport calls

    def readConnectionLost(self) -> None:
        self.channel.eof_received()

    def writeConnectionLost(self) -> None:
        """This side's own doing."""

    def connectionLost(self, reason: Failure) -> None:
        self.channel.connection_lost(reason)

    def _deadline_passed(self, phase: Phase) -> None:
        if self.channel.deadline_applies(phase):
            self.expired.append(phase)
            self.channel.deadline_passed(phase)

    # What a test does

    def turn(self) -> None:
        """Let everything happen that can."""
        self.reactor.turn()
        if self.client is None:
            self.below.make_room(0)
            self.reactor.turn()

    def advance(self, seconds: float) -> None:
        self.reactor.advance(seconds)
        self.turn()

    def sent(self, size: int = 65536) -> bytes:
        """What the client can read now; empty at the end of it."""
        self.turn()
        if self.client is None:
            return bytes(self.below.sent)
        return self.client.recv(size)

    def close(self) -> None:
        self.timer.stop()
        if self.client is not None:
            self.client.close()
        self.turn()
        if self.client is not None and not self.below.disconnected:
            self._socket.close()
            self.reactor.readers.discard(self.below)
            self.reactor.writers.discard(self.below)


def owners() -> Iterator[Callable[..., Owner]]:
    """Makes owners, and lets go of all they have."""
    made: list[Owner] = []

    def make(*arguments: Any, **options: Any) -> Owner:
        made.append(Owner(*arguments, **options))
        return made[-1]

    yield make
    for owner in made:
        owner.close()
