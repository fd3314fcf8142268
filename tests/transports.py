"""What streams are tested on: a transport of Twisted's with a make-believe kernel below it."""

import select
from collections.abc import Coroutine
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure

from sockserve.core.deadline_timer import DeadlineTimer
from sockserve.core.deadlines import Deadlines
from sockserve.core.tasks import Cork, Task
from sockserve.interfaces import DeadlineExpired, Phase
from sockserve.streams.outbox import Outbox
from sockserve.streams.reader import StreamReader
from sockserve.streams.writer import StreamWriter


class KernelTransport(FileDescriptor):
    """
    Twisted's own buffering over a socket buffer with as much room as a test gives it.

    @ivar room: how many bytes the kernel takes for now.
    @ivar sent: what it took.
    @ivar packets: the same, by system call.
    @ivar broken: what a send comes to instead, when set.
    """

    connected = 1

    def __init__(self, room: int = 1 << 30) -> None:
        super().__init__(MemoryReactor())
        self.room = room
        self.packets: list[bytes] = []
        self.broken: OSError | None = None
        self.aborted = False
        self.write_ended = False
        self.startReading()

    @property
    def sent(self) -> bytes:
        return b"".join(self.packets)

    @property
    def reading(self) -> bool:
        return self in self.reactor.readers

    @property
    def buffered(self) -> int:
        return len(self.dataBuffer) - self.offset + self._tempDataLen

    def getHandle(self) -> "KernelTransport":
        return self

    def send(self, data: bytes) -> int:
        """The socket's."""
        if self.broken is not None:
            raise self.broken
        taken = bytes(data[: self.room])
        if data and not taken:
            raise BlockingIOError
        self.room -= len(taken)
        self.packets.append(taken)
        return len(taken)

    def writeSomeData(self, data: bytes) -> int | Exception:
        try:
            return self.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            return error

    def make_room(self, size: int = 1 << 30) -> None:
        """The peer reads; the reactor sends for as long as there is something and room."""
        self.room += size
        while self.room and self in self.reactor.writers:
            self.doWrite()

    def abortConnection(self) -> None:
        self.aborted = True

    def _closeWriteConnection(self) -> None:
        self.write_ended = True


class SteppedReactor(Clock):
    """
    A clock that stands still, and real sockets that are served when a test says so.

    It does with them as Twisted's reactors do that poll.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()
        self.addReader, self.addWriter = self.readers.add, self.writers.add
        self.removeReader, self.removeWriter = self.readers.discard, self.writers.discard

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        self.callLater(0, call, *arguments)

    def turn(self) -> None:
        """Do all that is due now, and all that can be done with sockets without waiting."""
        for _ in range(1000):
            self.advance(0)
            if not self._turn_sockets():
                return
        raise AssertionError("the reactor finds no rest")

    def _turn_sockets(self) -> bool:
        watched = {each.fileno(): each for each in (*self.readers, *self.writers)}
        poll = select.poll()
        for descriptor, each in watched.items():
            wanted = select.POLLIN if each in self.readers else 0
            poll.register(descriptor, wanted | (select.POLLOUT if each in self.writers else 0))
        ready = poll.poll(0)
        for descriptor, events in ready:
            each = watched[descriptor]
            reads = each in self.readers
            why = None
            if events & (select.POLLHUP | select.POLLERR) and not events & select.POLLIN:
                why = ConnectionDone() if reads else ConnectionLost()
            elif events & select.POLLIN:
                why = each.doRead()
            elif events & select.POLLOUT:
                reads = False
                why = each.doWrite()
            if why is not None:
                self._disconnect(each, why, reads)
        return bool(ready)

    def _disconnect(self, selectable: Any, why: Any, reads: bool) -> None:
        self.removeReader(selectable)
        if reads and isinstance(why, ConnectionDone):
            selectable.readConnectionLost(Failure(why))
        else:
            self.removeWriter(selectable)
            selectable.connectionLost(Failure(why))


class Call:
    """A coroutine under way, driven as a handler's is."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], cork: Cork | None = None) -> None:
        self.waiting = True
        self._result: Any = None
        self._error: BaseException | None = None
        self.task = Task(coroutine, self._ended, cork)
        self.task.start()

    def _ended(self, result: Any, error: BaseException | None) -> None:
        assert self.waiting, "it ended twice"
        self.waiting = False
        self._result, self._error = result, error

    def result(self) -> Any:
        """What it returned; raises what it raised."""
        assert not self.waiting, "it still waits"
        if self._error is not None:
            raise self._error
        return self._result


class Connection:
    """
    A reader and a writer as a connection has them, with a clock to turn.

    @ivar expired: what deadlines have passed, with the time.
    """

    def __init__(self, *, room: int = 1 << 30, direct: bool = True, **deadlines: Any) -> None:
        self.clock = Clock()
        self.expired: list[tuple[float, Phase]] = []
        self.timer = DeadlineTimer(self.clock, self._passed)
        self.transport = KernelTransport(room)
        given = Deadlines(**deadlines)
        self.reader = StreamReader(self.transport, given, self.timer)
        self.writer = StreamWriter(self.transport, direct, given, self.timer)
        self.writer.outbox = Outbox(self.clock)

    def _passed(self, phase: Phase) -> None:
        # Reader and writer leave theirs armed; their connection looks whether it holds.
        if phase is Phase.IDLE and not self.reader.between_messages():
            return
        if phase is Phase.WRITE and self.writer.is_empty():
            return
        self.expired.append((self.clock.seconds(), phase))
        self.reader.fail(DeadlineExpired(phase))
        self.writer.discard(DeadlineExpired(phase))

    def advance(self, seconds: float) -> None:
        """Turn the clock second by second, so that expiries are told their time."""
        self.clock.pump([1] * int(seconds))
