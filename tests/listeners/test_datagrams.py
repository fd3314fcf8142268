"""One packet's way through the server object of datagram listeners, in memory."""

import socketserver
import threading
import types

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from sockserve import (
    BaseRequestHandler,
    ConfigurationError,
    DatagramRequestHandler,
    DeadlineExpired,
    Deadlines,
)
from sockserve.core.admission import Admission, parse_network
from sockserve.interfaces import Phase
from sockserve.listeners.datagrams import DatagramServer

PEER = ("192.0.2.7", 5300)


class MemoryPort:
    """A datagram port that keeps what is sent and whether it reads."""

    def __init__(self):
        self.sent = []
        self.reading = True
        self.replying = threading.local()
        self.socket = self

    def reply_maker(self):
        return lambda arrived_at, client_address: MemoryReply(self, arrived_at)

    def sendto(self, data, address):
        self.sent.append((data, address, getattr(self.replying, "arrived_at", None)))
        return len(data)

    def stopReading(self):
        self.reading = False

    def startReading(self):
        self.reading = True


class MemoryReply:
    """The second half of a request of a coroutine."""

    def __init__(self, port, arrived_at):
        self.port = port
        self.arrived_at = arrived_at
        self.sent = 0

    def sendto(self, data, address):
        self.port.sent.append((data, address, self.arrived_at))
        self.sent += len(data)
        return len(data)


class MemoryExecutor:
    """An executor whose jobs run when the test says so."""

    def __init__(self, limit=1000):
        self.limit = limit
        self.waiting = []
        self.running = []
        self.killed = []

    def run(self, job):
        self.waiting.append(job)

    def start(self):
        """Find a place for the job that waits longest."""
        job = self.waiting.pop(0)
        self.running.append(job)
        job.started()

    def end(self):
        """Let the job that runs longest serve its request."""
        job = self.running.pop(0)
        job.ended(job.serve())

    def withdraw(self, job):
        if job in self.waiting:
            self.waiting.remove(job)
            return True
        return False

    def kill(self, job):
        self.killed.append(job)
        return False


class Listener:
    """A server over a memory port and a clock."""

    def __init__(self, handler, factory=DatagramServer, **options):
        self.clock = Clock()
        self.port = MemoryPort()
        self.server = factory(handler, reactor=self.clock, **options)
        self.server.makeConnection(self.port)
        self.statistics = self.server.statistics
        self.records = []
        self.server.observers.append(self.records.append)

    def receive(self, *packets, peer=PEER, arrived_at=None):
        """Deliver packets as the port does: until it is told that there is no more to be."""
        for number, data in enumerate(packets, 1):
            if not self.server.received(data, peer, arrived_at) or not self.port.reading:
                return number
        return len(packets)

    @property
    def outcomes(self):
        return [record.outcome for record in self.records]

    @property
    def answers(self):
        return [data for data, _, _ in self.port.sent]


class Upper(DatagramRequestHandler):
    async def handle(self):
        self.wfile.write(self.rfile.read().upper())


class BlockingUpper(DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read().upper())


class StdlibUpper(socketserver.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read().upper())


class Waiting(BaseRequestHandler):
    """Answers when the test fires the Deferred it waits for."""

    waits: list

    async def handle(self):
        data, transport = self.request
        waited = Deferred()
        self.waits.append(waited)
        await waited
        transport.sendto(data, self.client_address)


@pytest.fixture
def waiting():
    """A fresh Waiting, with its own list."""
    return type("Waiting", (Waiting,), {"waits": []})


# What is answered


def test_a_coroutine_handler_answers_from_where_the_request_came_to():
    listener = Listener(Upper)
    listener.receive(b"one", arrived_at="here")
    assert listener.port.sent == [(b"ONE", PEER, "here")]
    assert listener.outcomes == ["ok"]


@pytest.mark.parametrize("handler", [BlockingUpper, StdlibUpper])
def test_so_does_a_blocking_one_and_only_while_it_serves(handler):
    executor = MemoryExecutor()
    listener = Listener(handler, concurrency=executor)
    listener.receive(b"one", arrived_at="here")
    listener.receive(b"two")
    for _ in range(2):
        executor.start()
        executor.end()
    assert listener.port.sent == [(b"ONE", PEER, "here"), (b"TWO", PEER, None)]


@pytest.mark.parametrize("handler", [Upper, BlockingUpper, StdlibUpper])
def test_an_empty_datagram_is_a_request_and_an_untouched_wfile_an_empty_answer(handler):
    executor = None if handler is Upper else MemoryExecutor()
    listener = Listener(handler, concurrency=executor)
    listener.receive(b"")
    if executor is not None:
        executor.start()
        executor.end()
    assert listener.answers == [b""]
    assert listener.outcomes == ["ok"]


@pytest.mark.parametrize("handler", [Upper, BlockingUpper])
def test_answer_empty_turns_that_off(handler):
    silent = type("Silent", (handler,), {"answer_empty": False})
    executor = None if handler is Upper else MemoryExecutor()
    listener = Listener(silent, concurrency=executor)
    listener.receive(b"", b"a")
    for _ in executor.waiting[:] if executor else ():
        executor.start()
        executor.end()
    assert listener.answers == [b"A"]


def test_bytes_are_counted_both_ways():
    class Twice(DatagramRequestHandler):
        async def handle(self):
            self.socket.sendto(b"12", self.client_address)
            self.wfile.write(b"345")

    listener = Listener(Twice)
    listener.receive(b"abcdefg")
    (record,) = listener.records
    assert (record.peer, record.received, record.sent) == (PEER, 7, 5)
    assert (listener.statistics.received, listener.statistics.sent) == (7, 5)
    assert listener.statistics.requests == 1


# The order of calls


class Traced(DatagramServer):
    trace: list

    def verify_request(self, request, client_address):
        self.trace.append("verify_request")
        return request[0] != b"refuse"

    def process_request(self, request, client_address):
        self.trace.append("process_request")
        super().process_request(request, client_address)

    def finish_request(self, request, client_address):
        self.trace.append("finish_request")
        return super().finish_request(request, client_address)

    def handle_error(self, request, client_address):
        self.trace.append("handle_error")

    def shutdown_request(self, request):
        self.trace.append("shutdown_request")
        super().shutdown_request(request)

    def close_request(self, request):
        self.trace.append("close_request")


def traced_handler(trace, raising, coroutine):
    def step(name):
        def blocking(self):
            trace.append(name)
            if name == raising:
                raise ValueError(name)

        async def waiting(self):
            blocking(self)

        return waiting if coroutine else blocking

    methods = {name: step(name) for name in ("setup", "handle", "finish")}
    return type("Handler", (BaseRequestHandler,), methods)


BEGUN = ["verify_request", "process_request", "finish_request"]
ENDED = ["shutdown_request", "close_request"]


@pytest.mark.parametrize("coroutine", [True, False], ids=["coroutine", "blocking"])
@pytest.mark.parametrize(
    ("raising", "called"),
    [
        (None, ["setup", "handle", "finish"]),
        ("setup", ["setup", "handle_error"]),
        ("handle", ["setup", "handle", "finish", "handle_error"]),
        ("finish", ["setup", "handle", "finish", "handle_error"]),
    ],
)
def test_lifecycle(raising, called, coroutine):
    trace = []
    executor = None if coroutine else MemoryExecutor()
    listener = Listener(
        traced_handler(trace, raising, coroutine),
        type("Server", (Traced,), {"trace": trace}),
        concurrency=executor,
    )
    listener.receive(b"data")
    if executor:
        executor.start()
        executor.end()
    assert trace == BEGUN + called + ENDED
    assert listener.outcomes == ["ok" if raising is None else "error"]
    assert listener.statistics.errors == (0 if raising is None else 1)
    assert listener.statistics.active == 0


def test_a_refused_request_is_closed_and_counted_and_not_served():
    trace = []
    listener = Listener(
        traced_handler(trace, None, True), type("Server", (Traced,), {"trace": trace})
    )
    listener.receive(b"refuse")
    assert trace == ["verify_request", *ENDED]
    assert listener.statistics.refused == {"verify": 1}
    assert (listener.statistics.accepted, listener.statistics.requests) == (1, 0)
    assert listener.statistics.active == 0


@pytest.mark.parametrize("method", ["verify_request", "process_request"])
def test_an_override_that_raises_costs_its_own_request_only(method):
    def broken(self, request, client_address):
        if request[0] == b"bad":
            raise ValueError(method)
        return getattr(DatagramServer, method)(self, request, client_address)

    errors = []
    server = type(
        "Server",
        (DatagramServer,),
        {method: broken, "handle_error": lambda self, request, _: errors.append(request[0])},
    )
    listener = Listener(Upper, server)
    listener.receive(b"bad", b"good")
    assert errors == [b"bad"]
    assert listener.answers == [b"GOOD"]
    assert listener.statistics.active == 0


def test_an_exception_in_a_handler_is_logged_with_its_traceback(caplog_events):
    class Broken(DatagramRequestHandler):
        async def handle(self):
            raise ValueError("not today")

    Listener(Broken).receive(b"x")
    (event,) = caplog_events
    assert event["log_failure"].type is ValueError
    assert "raise ValueError" in event["log_failure"].getTraceback()
    assert event["client_address"] == PEER


@pytest.fixture
def caplog_events():
    """What is logged as a failure meanwhile."""
    from twisted.logger import globalLogPublisher

    events = []

    def observe(event):
        if "log_failure" in event:
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


# What is not served


def test_a_packet_longer_than_it_may_be_is_dropped_and_counted():
    server = type("Server", (DatagramServer,), {"max_packet_size": 4})
    listener = Listener(Upper, server)
    listener.receive(b"four", b"five!", b"next")
    assert listener.answers == [b"FOUR", b"NEXT"]
    assert listener.statistics.refused == {"truncated": 1}


def test_networks():
    admission = Admission(
        allow=[parse_network("192.0.2.0/24"), parse_network("2001:db8::/32")],
        deny=[parse_network("192.0.2.66")],
    )
    listener = Listener(Upper, admission=admission)
    peers = [
        ("192.0.2.7", 1),
        ("192.0.2.66", 1),
        ("198.51.100.1", 1),
        ("2001:db8::1", 1, 0, 0),
        ("::ffff:192.0.2.8", 1, 0, 0),
    ]
    for peer in peers:
        listener.receive(b"x", peer=peer)
    assert [address for _, address, _ in listener.port.sent] == [peers[0], peers[3], peers[4]]
    assert listener.statistics.refused == {"network": 2}


# How many at once


def test_over_the_limit_reading_stops_and_goes_on_when_one_ends(waiting):
    listener = Listener(waiting, limits={"max_datagrams": 2})
    assert listener.receive(b"1", b"2", b"3") == 2
    assert not listener.port.reading
    waiting.waits[0].callback(None)
    assert listener.port.reading
    assert listener.receive(b"3", b"4") == 1
    for waited in waiting.waits[1:]:
        waited.callback(None)
    assert listener.answers == [b"1", b"2", b"3"]
    assert listener.statistics.active == 0


def test_so_it_does_for_requests_that_wait_for_a_worker():
    executor = MemoryExecutor()
    listener = Listener(BlockingUpper, concurrency=executor, limits={"max_datagrams": 2})
    assert listener.receive(b"1", b"2", b"3") == 2
    executor.start()
    assert not listener.port.reading
    executor.end()
    assert listener.port.reading


def test_requests_that_do_not_wait_never_stop_it():
    listener = Listener(Upper, limits={"max_datagrams": 1})
    assert listener.receive(*[b"x"] * 10) == 10
    assert len(listener.answers) == 10


def test_the_limit_has_a_default(waiting):
    listener, limit = Listener(waiting), DatagramServer.max_datagrams
    assert listener.receive(*[b"x"] * (limit + 1)) == limit == 1000
    listener.server.abort()


def test_the_limit_may_be_a_class_attribute_and_none(waiting):
    class Unlimited(DatagramServer):
        max_datagrams = None

    listener = Listener(waiting, factory=Unlimited)
    assert listener.receive(*[b"x"] * 1500) == 1500
    listener.server.abort()


def test_at_the_limit_the_log_says_so_once_in_a_minute(waiting):
    listener = Listener(waiting, limits={"max_datagrams": 1})
    with capturedLogs() as events:
        for _ in range(3):
            listener.receive(b"x")
            listener.server.abort()
    assert [formatEvent(event) for event in events] == [
        f"{waiting.__qualname__}: 1 datagrams are under way, which is max_datagrams; others wait in"
        " the system's buffer, and are lost if that is full"
    ]


def test_a_packet_that_is_too_long_is_told_by_the_name_of_the_limit():
    """In the log once, in the access log each."""
    listener = Listener(Upper, limits={"max_packet_size": 3})
    with capturedLogs() as events:
        listener.receive(b"abc", b"abcd", b"abcd")
    assert listener.answers == [b"ABC"]
    assert listener.statistics.refused == {"truncated": 2}
    assert [(each.outcome, each.reason) for each in listener.records] == [
        ("ok", None),
        ("refused: truncated", "max_packet_size"),
        ("refused: truncated", "max_packet_size"),
    ]
    assert [formatEvent(event) for event in events] == [
        "Upper: refused the client 192.0.2.7:5300: more than max_packet_size allows, which is 3;"
        " raise that if it is to be served"
    ]


# Deadlines


def test_a_coroutine_that_takes_too_long_sees_the_deadline_raised():
    seen = []

    class Slow(DatagramRequestHandler):
        async def handle(self):
            try:
                await Deferred()
            except TimeoutError as error:
                seen.append(error)
                self.wfile.write(b"late")

    listener = Listener(Slow, deadlines=Deadlines(handle=3))
    listener.receive(b"x")
    listener.clock.advance(2.9)
    assert seen == []
    listener.clock.advance(0.1)  # 2.9 + 0.1 = 3, the handle deadline
    (error,) = seen
    assert isinstance(error, DeadlineExpired)
    assert error.phase is Phase.HANDLE
    assert listener.answers == [b"late"]
    assert listener.outcomes == ["expired: handle"]
    assert listener.statistics.expiries == {Phase.HANDLE: 1}
    assert listener.clock.getDelayedCalls() == []


def test_the_lifetime_deadline_is_kept_as_well(waiting):
    listener = Listener(waiting, deadlines=Deadlines(handle=60, lifetime=5))
    listener.receive(b"x")
    listener.clock.advance(5)  # lifetime, before handle at 60
    assert listener.outcomes == ["expired: lifetime"]


def test_a_request_in_time_leaves_no_timer(waiting):
    listener = Listener(waiting, deadlines=Deadlines(handle=3, lifetime=5))
    listener.receive(b"x")
    listener.clock.advance(2)  # of 3
    waiting.waits[0].callback(None)
    assert listener.outcomes == ["ok"]
    assert listener.clock.getDelayedCalls() == []


def test_without_those_deadlines_no_timer_is_made(waiting):
    listener = Listener(waiting)
    listener.receive(b"x")
    assert listener.clock.getDelayedCalls() == []
    listener.server.abort()


def test_a_coroutine_that_does_not_end_is_abandoned():
    class Stubborn(BaseRequestHandler):
        async def handle(self):
            while True:
                try:
                    await Deferred()
                except TimeoutError:
                    pass

    listener = Listener(Stubborn, deadlines=Deadlines(handle=3))
    listener.receive(b"x")
    listener.clock.advance(3)  # the deadline: it catches that and waits on
    assert listener.statistics.active == 1
    listener.clock.advance(Deadlines().abandon)  # its last chance
    assert listener.statistics.active == 0
    assert listener.outcomes == ["expired: handle"]
    assert listener.clock.getDelayedCalls() == []


def test_a_thread_that_does_not_end_counts_as_abandoned_until_it_does():
    executor = MemoryExecutor()
    listener = Listener(
        BlockingUpper,
        concurrency=executor,
        limits={"max_datagrams": 1},
        deadlines=Deadlines(handle=3),
    )
    listener.receive(b"x")
    listener.clock.advance(100)  # the handle deadline is not for waiting
    executor.start()
    listener.clock.advance(3)
    assert len(executor.killed) == 1
    assert (listener.statistics.active, listener.statistics.abandoned) == (1, 0)
    listener.clock.advance(Deadlines().abandon)
    assert (listener.statistics.active, listener.statistics.abandoned) == (0, 1)
    assert listener.port.reading
    executor.end()
    assert (listener.statistics.active, listener.statistics.abandoned) == (0, 0)
    assert listener.outcomes == ["expired: handle"]


# Silence


def test_handle_timeout_after_each_span_of_silence():
    times = []

    class Impatient(DatagramServer):
        timeout = 10

        def handle_timeout(self):
            times.append(self.reactor.seconds())

    listener = Listener(Upper, Impatient)
    listener.clock.advance(6)
    listener.receive(b"x")  # at 6: silence from now on, until 16 and 26
    listener.clock.pump([10, 10])
    assert times == [16, 26]
    listener.server.stopProtocol()
    assert listener.clock.getDelayedCalls() == []


# Suspending and stopping


def test_suspended_it_reads_nothing_though_a_request_ends(waiting):
    listener = Listener(waiting, limits={"max_datagrams": 1})
    listener.receive(b"x")
    listener.server.suspend()
    waiting.waits[0].callback(None)
    assert not listener.port.reading
    listener.server.resume()
    assert listener.port.reading


def test_resuming_keeps_to_the_limit(waiting):
    listener = Listener(waiting, limits={"max_datagrams": 1})
    listener.receive(b"x")
    listener.server.suspend()
    listener.server.resume()
    assert not listener.port.reading
    waiting.waits[0].callback(None)
    assert listener.port.reading


def test_started_again_after_a_stop_it_still_reads_on_when_there_is_room_again(waiting):
    listener = Listener(waiting, limits={"max_datagrams": 1})
    listener.server.suspend()  # as stopping does
    listener.server.doStop()
    listener.port = MemoryPort()
    listener.server.makeConnection(listener.port)
    listener.receive(b"x")
    assert not listener.port.reading
    waiting.waits[0].callback(None)
    assert listener.port.reading


def test_draining_waits_for_requests(waiting):
    listener = Listener(waiting)
    listener.receive(b"1", b"2")
    drained = listener.server.drain()
    waiting.waits[0].callback(None)
    assert not drained.called
    waiting.waits[1].callback(None)
    assert drained.called
    assert listener.answers == [b"1", b"2"]


def test_draining_gives_up_at_its_deadline(waiting):
    listener = Listener(waiting, deadlines=Deadlines(drain=10))
    listener.receive(b"1")
    drained = listener.server.drain()
    listener.clock.advance(9.9)
    assert not drained.called
    listener.clock.advance(0.1)  # 9.9 + 0.1 = 10, the drain deadline
    assert drained.called
    assert listener.outcomes == ["expired: drain"]


def test_draining_takes_back_what_waits_for_a_worker():
    executor = MemoryExecutor()
    listener = Listener(BlockingUpper, concurrency=executor, deadlines=Deadlines(drain=10))
    listener.receive(b"1", b"2")
    executor.start()
    drained = listener.server.drain()
    listener.clock.advance(10)  # the drain deadline
    assert executor.waiting == []
    executor.end()
    assert drained.called
    assert listener.answers == [b"1"]
    assert listener.statistics.active == 0


def test_nothing_open_is_drained_at_once():
    assert Listener(Upper).server.drain().called


def test_aborting_gives_all_up_at_once(waiting):
    listener = Listener(waiting)
    listener.receive(b"1", b"2")
    listener.server.abort()
    assert listener.statistics.active == 0
    assert listener.answers == []


def test_a_coroutine_handler_takes_no_concurrency():
    with pytest.raises(ConfigurationError, match=r"handler Upper is async def"):
        DatagramServer(Upper, reactor=Clock(), concurrency=MemoryExecutor())


def test_the_server_object_has_what_socketservers_has():
    server = Listener(Upper).server
    expected = types.SimpleNamespace(
        RequestHandlerClass=Upper, socket_type=socketserver.UDPServer.socket_type
    )
    assert {name: getattr(server, name) for name in vars(expected)} == vars(expected)
    assert server.max_packet_size == socketserver.UDPServer.max_packet_size


def test_a_cap_on_connections_is_not_one_on_datagrams():
    admission = Admission(max_connections_per_peer=1)
    admission.admit(PEER)  # a stream listener's, which shares it
    listener = Listener(Upper, admission=admission)
    listener.receive(b"hello")
    assert [data for data, *_ in listener.port.sent] == [b"HELLO"]
