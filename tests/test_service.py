"""Listeners as parts of an application: their life in any order, and their descriptions."""

import os
import socket
import stat
import threading

import pytest
from twisted.application.service import Application, IService, MultiService
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import MemoryReactorClock

from sockserve import (
    BaseRequestHandler,
    ConfigurationError,
    DatagramRequestHandler,
    Deadlines,
    StreamRequestHandler,
)
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.service import (
    DEFAULT_REQUEST_QUEUE_SIZE,
    DatagramRequestService,
    ListenError,
    RequestService,
    is_datagram_description,
    service_from_description,
)

pytestmark = pytest.mark.usefixtures("no_leaks")

TCP = "tcp:0:interface=127.0.0.1"
UDP = "udp:0:interface=127.0.0.1"
#: A Twisted port that cannot bind leaves closing its socket to the garbage collector.
TWISTED_LEAVES_SOCKETS = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
BOTH = pytest.mark.parametrize("description", [TCP, UDP])


class Echo(BaseRequestHandler):
    """Answers one message over either kind of socket."""

    async def handle(self):
        if isinstance(self.request, tuple):
            data, transport = self.request
            transport.sendto(data, self.client_address)
        else:
            self.request.wfile.write(await self.request.rfile.read(100))


def service_for(description, handler=Echo, **options):
    from twisted.internet import reactor

    return service_from_description(reactor, description, handler, **options)


class Client:
    """Sends one message when it is made, and looks for the echo without waiting."""

    def __init__(self, service, data=b"hello"):
        self.data = data
        self.socket = socket.socket(service.server.address_family, service.server.socket_type)
        self.socket.connect(service.server.server_address)
        self.socket.send(data)
        self.socket.setblocking(False)

    @property
    def answered(self):
        try:
            return self.socket.recv(100) == self.data
        except BlockingIOError:
            return False

    async def answer(self):
        while not self.answered:
            await turn()
        self.socket.close()
        return True

    async def stays_unanswered(self):
        """For as many turns of the reactor as an answer would need many times over."""
        for _ in range(20):
            await turn()
            if self.answered:
                return False
        return True


def turn():
    from twisted.internet import reactor

    return deferLater(reactor, 0.001)


def listens(address, kind=socket.SOCK_STREAM):
    """Whether somebody has the address."""
    with socket.socket(type=kind) as probe:
        if kind == socket.SOCK_STREAM:  # what is left of closed connections does not count
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            if kind == socket.SOCK_STREAM:
                probe.listen()
        except OSError:
            return True
        return False


# The machine


@BOTH
async def test_start_suspend_resume_stop(description):
    service = service_for(description)
    service.startService()
    assert await Client(service).answer()
    service.suspend()
    client = Client(service)
    assert await client.stays_unanswered()
    service.resume()
    assert await client.answer()
    await service.stopService()
    assert not listens(service.server.server_address, service.server.socket_type)


@BOTH
async def test_each_twice_is_as_once(description):
    service = service_for(description)
    service.startService()
    service.privilegedStartService()
    service.suspend()
    service.suspend()
    service.resume()
    service.resume()
    assert await Client(service).answer()
    one, two = service.stopService(), service.stopService()
    await one
    await two
    await service.stopService()


@BOTH
async def test_before_the_start_and_after_the_stop_nothing_happens(description):
    service = service_for(description)
    service.suspend()
    service.resume()
    await service.stopService()
    service.startService()
    assert await Client(service).answer()
    await service.stopService()
    service.suspend()
    service.resume()
    await service.stopService()


@BOTH
async def test_stopping_while_suspended(description):
    service = service_for(description)
    service.startService()
    service.suspend()
    await service.stopService()
    assert not listens(service.server.server_address, service.server.socket_type)


@BOTH
async def test_what_is_asked_while_it_drains_has_no_effect(description):
    service = service_for(description)
    service.startService()
    stopped = service.stopService()
    service.suspend()
    service.resume()
    await stopped
    assert not listens(service.server.server_address, service.server.socket_type)


@BOTH
async def test_it_starts_again_after_a_stop(description):
    service = service_for(description)
    for _ in range(3):
        service.startService()
        assert await Client(service).answer()
        await service.stopService()


@BOTH
async def test_suspended_before_a_stop_it_is_not_suspended_after_the_next_start(description):
    service = service_for(description)
    service.startService()
    service.suspend()
    await service.stopService()
    service.startService()
    assert await Client(service).answer()
    await service.stopService()


@BOTH
async def test_started_while_it_drains_it_refuses_and_leaves_nothing_open(description):
    """The Deferred of stopService is there to be waited for."""
    waits = []
    service = service_for(description, waiting_handler(waits))
    service.startService()
    Client(service).socket.close()
    while not waits:
        await turn()
    stopped = service.stopService()
    with pytest.raises(ListenError, match="stopping still; wait for what stopService returned"):
        service.startService()
    waits[0].callback(None)
    await stopped


def waiting_handler(waits):
    class Waiting(BaseRequestHandler):
        async def handle(self):
            waits.append(Deferred())
            await waits[-1]

    return Waiting


@BOTH
async def test_stopping_waits_for_a_request_but_not_longer_than_drain(description):
    waits = []
    service = service_for(description, waiting_handler(waits), deadlines=Deadlines(drain=0.05))
    service.startService()
    client = Client(service)
    while not waits:
        await turn()
    await service.stopService()  # would not come to its end without the deadline
    client.socket.close()
    assert service.server.statistics.expiries == {"drain": 1}
    assert service.server.statistics.active == 0


@BOTH
async def test_a_request_under_way_ends_in_peace(description):
    waits = []

    class Slow(Echo):
        async def handle(self):
            waits.append(Deferred())
            await waits[-1]
            await super().handle()

    service = service_for(description, Slow)
    service.startService()
    client = Client(service)
    while not waits:
        await turn()
    stopped = service.stopService()
    assert await client.stays_unanswered()
    assert not stopped.called
    waits[0].callback(None)
    assert await client.answer()
    await stopped
    assert service.server.statistics.expiries == {}


@BOTH
async def test_a_thread_that_does_not_end_is_not_waited_for(description):
    release = threading.Event()
    began = threading.Event()

    class Stubborn(BaseRequestHandler):
        def handle(self):
            began.set()
            release.wait()

    service = service_for(description, Stubborn, deadlines=Deadlines(drain=0.05, abandon=0.05))
    service.startService()
    client = Client(service)
    while not began.is_set():
        await turn()
    try:
        await service.stopService()  # drain, then abandon
        assert service.server.statistics.abandoned == 1
    finally:
        release.set()
        client.socket.close()
    while service.server.statistics.abandoned:
        await turn()
    await service.server.concurrency.stop()


# Starting


@BOTH
async def test_privileged_start_listens_already(description):
    service = service_for(description)
    service.privilegedStartService()
    assert listens(service.server.server_address, service.server.socket_type)
    service.startService()
    assert await Client(service).answer()
    await service.stopService()


@BOTH
async def test_stopped_between_the_two_starts_it_is_closed(description):
    service = service_for(description)
    service.privilegedStartService()
    await service.stopService()
    assert not listens(service.server.server_address, service.server.socket_type)


@TWISTED_LEAVES_SOCKETS
@BOTH
@pytest.mark.parametrize("start", ["privilegedStartService", "startService"])
async def test_a_busy_address_is_named_and_later_it_can_start(description, start):
    first = service_for(description)
    first.startService()
    port = first.server.server_address[1]
    second = service_for(f"{description[:3]}:{port}:interface=127.0.0.1")
    with pytest.raises(ListenError) as caught:
        getattr(second, start)()
    assert str(caught.value) == (
        f"listen '{description[:3]}:{port}:interface=127.0.0.1': Address already in use"
    )
    await second.stopService()
    await first.stopService()
    getattr(second, start)()
    second.startService()
    assert await Client(second).answer()
    await second.stopService()


@TWISTED_LEAVES_SOCKETS
@pytest.mark.parametrize(
    ("description", "reason"),
    [
        ("tcp:0:interface=192.0.2.1", "Cannot assign requested address"),
        ("udp:0:interface=192.0.2.1", "Cannot assign requested address"),
        ("unix:{folder}/no/socket", "No such file or directory"),
        ("unixgram:{folder}/no/socket", "No such file or directory"),
        ("unix:{folder}/file", "Address already in use"),
        ("unixgram:{folder}/file", "Address already in use"),
    ],
)
async def test_what_cannot_be_listened_on_is_named(tmp_path, description, reason):
    (tmp_path / "file").write_text("mine")
    description = description.format(folder=tmp_path)
    service = service_for(description)
    with pytest.raises(ListenError) as caught:
        service.startService()
    assert str(caught.value) == f"listen {description!r}: {reason}"
    await service.stopService()
    assert (tmp_path / "file").read_text() == "mine"


async def test_an_endpoint_that_fails_later_is_logged(logged_failures):
    class LateEndpoint:
        def listen(self, factory):
            self.listening = Deferred()
            return self.listening

    from twisted.internet import reactor

    endpoint = LateEndpoint()
    service = RequestService(endpoint, StreamFactory(Echo, reactor=reactor), "late")
    service.startService()
    endpoint.listening.errback(OSError("too late"))
    assert [failure.getErrorMessage() for failure in logged_failures] == ["too late"]
    await service.stopService()


async def test_stopped_before_an_endpoint_is_through_it_is_cancelled(logged_failures):
    cancelled = []

    class LateEndpoint:
        def listen(self, factory):
            return Deferred(cancelled.append)

    from twisted.internet import reactor

    service = RequestService(LateEndpoint(), StreamFactory(Echo, reactor=reactor), "late")
    service.startService()
    await service.stopService()
    assert len(cancelled) == 1
    assert logged_failures == []


@pytest.fixture
def logged_failures():
    from twisted.logger import globalLogPublisher

    failures = []

    def observe(event):
        if "log_failure" in event:
            failures.append(event["log_failure"])

    globalLogPublisher.addObserver(observe)
    yield failures
    globalLogPublisher.removeObserver(observe)


@pytest.mark.parametrize(
    ("answer", "message"), [(OSError(1, "no"), "no"), (ValueError("odd"), "odd")]
)
def test_any_endpoints_failure_is_one_line(answer, message):
    class BrokenEndpoint:
        def listen(self, factory):
            return fail(answer)

    service = RequestService(BrokenEndpoint(), StreamFactory(Echo, reactor=Clock()), "broken")
    with pytest.raises(ListenError) as caught:
        service.startService()
    assert str(caught.value) == f"listen 'broken': {message}"


# As a part of something larger


async def test_several_in_an_application(tmp_path):
    application = Application("several")
    services = [service_for(TCP), service_for(UDP)]
    for service in services:
        service.setServiceParent(application)
    whole = IService(application)
    whole.privilegedStartService()
    whole.startService()
    for service in services:
        assert await Client(service).answer()
    await whole.stopService()
    for service in services:
        assert not listens(service.server.server_address, service.server.socket_type)


@BOTH
async def test_added_to_what_runs_it_starts_and_disowned_it_stops(description):
    parent = MultiService()
    parent.startService()
    service = service_for(description)
    service.setServiceParent(parent)
    assert await Client(service).answer()
    await service.disownServiceParent()
    assert not listens(service.server.server_address, service.server.socket_type)
    await parent.stopService()


# Descriptions


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("udp:53", True),
        ("udp6:53", True),
        ("unixgram:/run/x", True),
        ("tcp:53", False),
        ("unix:udp", False),
        ("haproxy:udp:1", False),
    ],
)
def test_is_datagram_description(description, expected):
    assert is_datagram_description(description) is expected


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("udp", "it takes one port; write udp:PORT[:interface=ADDRESS]"),
        ("udp:", "it takes one port; write udp:PORT"),
        ("udp:domain", "port 'domain' is not a number; write udp:PORT"),
        ("udp:65536", "port 65536 is not within 0 to 65535; write udp:PORT"),
        ("udp:-1", "port -1 is not within 0 to 65535"),
        ("udp:53:54", "it takes one port; write udp:PORT"),
        ("udp:53:interfaec=127.0.0.1", "unknown word 'interfaec'; write udp:PORT[:interface="),
        ("udp:53:interface=localhost", "; write udp:PORT[:interface=ADDRESS]"),
        ("udp6:53:interface=\\:\\:x", "; write udp6:PORT[:interface=ADDRESS]"),
        ("unixgram", "it takes one path; write unixgram:PATH[:mode=OCTAL]"),
        ("unixgram:", "it takes one path; write unixgram:PATH[:mode=OCTAL]"),
        ("unixgram:/run/x:mode=rw", "mode 'rw' is not an octal number; write unixgram:"),
        ("unixgram:/run/x:mdoe=600", "unknown word 'mdoe'; write unixgram:"),
        ("unixgram:/run/x:y", "it takes one path; write unixgram:PATH"),
        ("tcp", ""),
        ("tcp:http:", ""),
        ("tpc:80", "tpc"),
        ("nonsense", "nonsense"),
        ("", ""),
        ("tcp:80:interfaec=127.0.0.1", "interfaec"),
        ("haproxy:tpc:80", "tpc"),
        ("fd:x", "write fd:NUMBER, the number of a descriptor"),
        ("fd:", "write fd:NUMBER"),
        ("fd:-1", ""),
        ("fd:99999", "Bad file descriptor"),
        ("systemd:domain=INET:index=0", ""),
        ("ssl:443", "server.pem"),
        ("ssl:443:privateKey=no.pem", "no.pem"),
        ("tls:443:/no/such", "certificates in '/no/such': No such file or directory"),
        ("tls:443", "certificates in"),
        ("tls:", "certificates in"),
    ],
)
def test_a_wrong_description_is_one_line_that_names_it(description, message):
    with pytest.raises(ConfigurationError) as caught:
        service_from_description(MemoryReactorClock(), description, Echo)
    assert str(caught.value).startswith("listen ")
    assert repr(description.removeprefix("haproxy:"))[1:-1] in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "unpack" not in str(caught.value)


def test_a_descriptor_that_does_not_listen(tmp_path):
    with socket.socket() as sock, (tmp_path / "file").open("w") as file:
        with pytest.raises(ConfigurationError, match="that socket does not listen"):
            service_for(f"fd:{sock.fileno()}")
        with pytest.raises(ConfigurationError, match="Socket operation on non-socket"):
            service_for(f"fd:{file.fileno()}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no *.pem file in"),
        ({"x.pem": b"garbage"}, "x.pem is not a PEM file"),
        ({"x.crt": b"-----BEGIN"}, "no *.pem file in"),
        ({"x.pem": b"-----BEGIN CERTIFICATE-----\n"}, "no private key in"),
        ({"x.pem": b"-----BEGIN PRIVATE KEY-----\n"}, "no certificate in"),
    ],
)
def test_certificates_are_looked_at_before_the_first_client_comes(tmp_path, content, message):
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    for description in (f"tls:0:{tmp_path}", f"tls:{tmp_path}:0"):
        with pytest.raises(ConfigurationError) as caught:
            service_for(description)
        assert str(caught.value).startswith(f"listen {description!r}: ")
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "quoted", "name"),
    [
        (kind, quoted, name)
        for kind in ("unix", "unixgram")
        for quoted, name in [
            ("a\\:b", "a:b"),
            ("a\\\\b", "a\\b"),
            ("a=b", None),
            ("a\\=b", "a=b"),
            ("two words", "two words"),
        ]
    ],
)
async def test_twisteds_quoting(tmp_path, monkeypatch, kind, quoted, name):
    """In either kind of description a path has the same form."""
    monkeypatch.chdir(tmp_path)
    if name is None:  # a=b is a word of its own then
        with pytest.raises(ConfigurationError):
            service_for(f"{kind}:{quoted}")
        return
    service = service_for(f"{kind}:{quoted}")
    service.startService()
    assert stat.S_ISSOCK((tmp_path / name).stat().st_mode)
    await service.stopService()
    assert not (tmp_path / name).exists()


async def test_the_interface_of_udp6_is_quoted():
    service = service_for("udp6:0:interface=\\:\\:1")
    service.startService()
    assert service.server.server_address[0] == "::1"
    assert service.server.address_family == socket.AF_INET6
    assert await Client(service).answer()
    await service.stopService()


async def test_udp_and_udp6_share_a_port():
    one = service_for("udp:0")
    one.startService()
    two = service_for(f"udp6:{one.server.server_address[1]}")
    two.startService()
    assert (one.server.server_address[0], two.server.server_address[0]) == ("0.0.0.0", "::")
    await one.stopService()
    await two.stopService()


@pytest.mark.parametrize(
    ("option", "mode"), [("", 0o666), (":mode=600", 0o600), (":mode=0660", 0o660)]
)
async def test_a_unix_datagram_sockets_mode(tmp_path, option, mode):
    service = service_for(f"unixgram:{tmp_path}/socket{option}")
    service.startService()
    assert stat.S_IMODE((tmp_path / "socket").stat().st_mode) == mode
    await service.stopService()


async def test_a_unix_datagram_socket_left_behind_is_replaced(tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(path))
    service = service_for(f"unixgram:{path}")
    service.startService()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.connect(str(path))
        client.bind("")  # any name
        client.send(b"hello")
        client.setblocking(False)
        while not service.server.statistics.requests:
            await turn()
        assert client.recv(100) == b"hello"
    await service.stopService()
    assert not path.exists()


@pytest.mark.parametrize("holder", ["1", "this one", "2147483647"])
async def test_a_unix_socket_left_behind_is_replaced_whoever_has_the_number_in_its_lock(
    tmp_path, holder
):
    """After a boot, or in the next container, another process has it, perhaps this one."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
    os.symlink(str(os.getpid()) if holder == "this one" else holder, f"{path}.lock")
    service = service_for(f"unix:{path}")
    service.startService()
    assert os.readlink(f"{path}.lock") == str(os.getpid())
    assert await Client(service).answer()
    await service.stopService()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("unix", "Cannot acquire lock '{folder}/socket.lock': process {pid} holds it"),
        ("unixgram", "Address already in use"),
    ],
)
async def test_but_not_one_that_somebody_listens_on(tmp_path, kind, reason):
    description = f"{kind}:{tmp_path}/socket"
    first = service_for(description)
    first.startService()
    second = service_for(description)
    with pytest.raises(ListenError) as refused:
        second.startService()
    reason = reason.format(folder=tmp_path, pid=os.getpid())
    assert str(refused.value) == f"listen {description!r}: {reason}"
    await second.stopService()
    assert (tmp_path / "socket").exists()
    client = Client(first) if kind == "unix" else None
    assert client is None or await client.answer()
    await first.stopService()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("description", "size"), [(TCP, DEFAULT_REQUEST_QUEUE_SIZE), (TCP + ":backlog=7", None)]
)
def test_request_queue_size(description, size):
    assert service_for(description).server.request_queue_size == size


def test_the_backlog_of_a_server_class_of_ones_own_counts():
    class Short(StreamFactory):
        request_queue_size = 3

    assert service_for(TCP, factory=Short).server.request_queue_size == 3


def test_each_kind_of_service():
    assert isinstance(service_for(TCP, StreamRequestHandler), RequestService)
    assert isinstance(service_for(UDP, DatagramRequestHandler), DatagramRequestService)
    assert service_for(TCP).server.statistics.listener == TCP
