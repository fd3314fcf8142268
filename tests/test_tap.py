"""
The command line without a program: options, what is wrong with them, and the service made.

What a user sees of each mistake is in L{tests.integration.test_twistd}.
"""

import contextlib
import errno
import os
import signal
import socket
import socketserver
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import IService, MultiService
from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger, LoggingFile, LogLevel, capturedLogs, formatEvent
from twisted.python.usage import UsageError

from sockserve import BaseRequestHandler, ConfigurationError, Deadlines
from sockserve.core.admission import parse_network
from sockserve.http import HTTPRequestHandler
from sockserve.run.server_config import ServerConfig
from sockserve.service import DatagramRequestService, RequestService, SocketServerService
from sockserve.sql import schema
from sockserve.tap import Options, makeService

pytestmark = pytest.mark.usefixtures("no_leaks")

TCP = "tcp:0:interface=127.0.0.1"
UDP = "udp:0:interface=127.0.0.1"


class Either(BaseRequestHandler):
    """Serves streams and datagrams alike."""

    async def handle(self) -> None:
        """Nothing to do."""


class Web(HTTPRequestHandler):
    async def do_GET(self) -> None:
        """Nothing to do."""


class Threads(socketserver.StreamRequestHandler):
    """Blocks."""


#: The server objects that were made for C{--server}.
made: list[socketserver.BaseServer] = []


def make_server() -> socketserver.BaseServer:
    made.append(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Threads))
    return made[-1]


@pytest.fixture
def servers() -> Iterator[list[Any]]:
    """The server objects that a test has had made."""
    yield made
    for server in made:
        server.server_close()
    made.clear()


def here(name: str) -> str:
    return f"{__name__}:{name}"


def parse(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(arguments)
    return options


# Options


def test_nothing_is_one_server_of_the_current_folder() -> None:
    (server,) = parse().servers
    assert server.listen == ("tcp:8000:interface=127.0.0.1",)
    assert server.handler.keywords == {"directory": os.getcwd()}  # type: ignore[attr-defined]


def test_each_option_sets_its_word() -> None:
    options = parse(
        *("--handler", here("Threads"), "--concurrency", "threads", "--threads", "7"),
        *("--listen", "tcp:7000", "--max-connections", "100"),
        *("--max-connections-per-peer", "3", "--access-log", "-", "--log-format", "json"),
        *("--timeout", "idle=2.5", "--timeout", "write=none"),
        *("--allow", "192.0.2.0/24", "--deny", "192.0.2.1", "--proxy-from", "10.0.0.0/8"),
    )
    assert options.servers == [
        ServerConfig(
            listen=("tcp:7000",),
            handler=Threads,
            concurrency="threads",
            threads=7,
            deadlines=Deadlines(idle=2.5, write=None),
            max_connections=100,
            max_connections_per_peer=3,
            allow=(parse_network("192.0.2.0/24"),),
            deny=(parse_network("192.0.2.1"),),
            proxy_from=(parse_network("10.0.0.0/8"),),
            access_log="-",
            log_format="json",
        )
    ]


def test_short_options_are_the_long_ones(tmp_path: Path) -> None:
    short = parse("-H", here("Either"), "-l", TCP, "-l", UDP).servers
    assert short == parse("--handler", here("Either"), "--listen", TCP, "--listen", UDP).servers
    (folder,) = parse("-p", str(tmp_path)).servers
    assert folder.handler.keywords == {"directory": str(tmp_path)}  # type: ignore[attr-defined]


def test_options_that_may_come_again_are_all_of_them() -> None:
    (server,) = parse(
        *("-H", here("Either"), "-l", "tcp:1", "-l", "udp:2", "-l", "tcp:3"),
        *("--allow", "192.0.2.0/24", "--allow", "2001:db8::/32"),
    ).servers
    assert server.listen == ("tcp:1", "udp:2", "tcp:3")
    assert server.allow == (parse_network("192.0.2.0/24"), parse_network("2001:db8::/32"))


def test_the_last_of_an_option_that_counts_once_counts() -> None:
    (server,) = parse("-H", here("Threads"), "--threads", "2", "--threads", "3").servers
    assert server.threads == 3


def test_a_file_has_the_words_of_several_servers(tmp_path: Path) -> None:
    file = tmp_path / "servers.toml"
    file.write_text(
        f"[[server]]\nhandler = '{here('Either')}'\nlisten = '{TCP}'\n"
        f"[[server]]\nhandler = '{here('Threads')}'\nlisten = 'tcp:1'\nthreads = 4\n"
    )
    either, threads = parse("--config", str(file)).servers
    assert (either.handler, either.listen) == (Either, (TCP,))
    assert (threads.handler, threads.threads) == (Threads, 4)


def test_all_options_are_known_by_their_names() -> None:
    names = Options().known_options()
    assert {"listen", "timeout", "handler", "config", "check", "help"} <= set(names)
    assert not [name for name in names if "=" in name]


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lisen=tcp:0"], "option --lisen not recognized; did you mean '--listen'?"),
        (["-x"], "option -x not recognized"),
        (["--qqq"], "option --qqq not recognized"),
        (["--check=yes"], "option --check must not have an argument"),
        (["echo"], "'echo' belongs to no option; see --help"),
        (
            ["--auth=memory:alice"],
            "auth memory: what follows it is wrong; it takes: A colon-separated"
            " list (name:password:...)",
        ),
        (["--auth=file:/no/such"], "auth file '/no/such': No such file or directory"),
        (["-c", "servers.toml"], "config 'servers.toml': No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_and_the_end(
    capfd: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """On the standard error of the process: C{sys.stderr} is a part of twistd's log by then."""
    with pytest.raises(SystemExit) as end:
        parse(*arguments)
    assert end.value.code == 1
    assert capfd.readouterr() == ("", f"sockserve: {message}\n")


def test_an_argument_is_twisteds_kind_of_mistake() -> None:
    with pytest.raises(UsageError, match="'echo' belongs to no option"):
        Options().parseArgs("echo", "more")


# What would run


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("fd:{0}", "fd:{0}"),
        ("fd:{0}", "haproxy:fd:{0}"),
        ("fd:{0}", "systemd:domain=INET:index=0"),
        ("systemd:domain=INET:name=web", "systemd:domain=INET:index=0"),
        ("systemd:INET:0", "SYSTEMD:INET:0"),
    ],
)
@pytest.mark.parametrize("in_one", [True, False])
def test_a_socket_that_was_handed_over_is_listened_on_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: str, second: str, in_one: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as handed:
        number = handed.fileno()
        monkeypatch.setattr(
            "sockserve.listeners.endpoints.handed_descriptor", lambda *which: number
        )
        first, second = first.format(number), second.format(number)
        between = ", " if in_one else "]\n[[server]]\nlisten = ["
        file = tmp_path / "both.toml"
        file.write_text(f"[[server]]\nlisten = ['{first}'{between}'{second}']\n")
        options = Options()
        options.parseOptions(["--config", str(file)])
        with pytest.raises(ConfigurationError) as caught:
            makeService(options)
    place = f"2:{len(first) + 15}" if in_one else "4:11"
    assert str(caught.value) == (
        f"{file}:{place}: listen {second!r}: {first!r} has this socket already; name it once"
    )


def test_check_looks_at_what_only_making_the_service_finds(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        parse("--check", "-H", here("Either"), "-l", "tcp:0:interfaec=::1")
    assert end.value.code == 1
    out, error = capfd.readouterr()
    assert out == ""
    assert error.startswith("sockserve: listen 'tcp:0:interfaec=::1': ")


def test_a_server_object_that_is_only_checked_is_closed(
    capsys: pytest.CaptureFixture[str], servers: list[Any]
) -> None:
    with pytest.raises(SystemExit):
        parse("--check", "--server", here("make_server"))
    assert capsys.readouterr().out.startswith("server ThreadingTCPServer: Threads on ('127.0.0.1',")
    (server,) = servers
    assert server.fileno() == -1


# The service


def listeners(service: IService) -> list[Any]:
    """All listeners below a service, in their order."""
    if not isinstance(service, MultiService):
        return [service]
    return [listener for child in service for listener in listeners(child)]


def test_a_listener_for_each_description_and_each_server(
    tmp_path: Path, servers: list[Any]
) -> None:
    file = tmp_path / "servers.toml"
    file.write_text(
        f"[[server]]\nhandler = '{here('Either')}'\nlisten = ['{TCP}', '{UDP}']\n"
        f"[[server]]\nserver = '{here('make_server')}'\n"
    )
    service = makeService(parse("-c", str(file)))
    found = listeners(service)
    assert [type(each) for each in found] == [
        RequestService,
        DatagramRequestService,
        SocketServerService,
    ]
    assert [each.description for each in found[:2]] == [TCP, UDP]
    assert found[0].server.RequestHandlerClass is Either
    assert found[2].description.startswith("ThreadingTCPServer on ")
    assert not service.running


def test_in_an_application_a_mistake_is_raised() -> None:
    """There it is not this program's to end."""
    options = parse("-l", "tcp:0:interfaec=::1")
    with pytest.raises(ConfigurationError, match=r"^listen 'tcp:0:interfaec=::1': "):
        makeService(options)


def test_under_twistd_a_mistake_is_the_programs_end(capfd: pytest.CaptureFixture[str]) -> None:
    options = parse("-l", "tcp:0:interfaec=::1")
    options.parent = {"nodaemon": True}
    with pytest.raises(SystemExit) as end:
        makeService(options)
    assert end.value.code == 1
    assert capfd.readouterr().err.startswith("sockserve: listen 'tcp:0:interfaec=::1': ")


class Reactor:
    """
    The reactor, but for what would end this process, or all that is due in it.

    @ivar stops: how often it was stopped.
    @ivar turns: how often it was to do what was due.
    """

    def __init__(self) -> None:
        from twisted.internet import reactor

        self._reactor = reactor
        self.stops = self.turns = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def stop(self) -> None:
        self.stops += 1

    def runUntilCurrent(self) -> None:
        self.turns += 1


@pytest.fixture
def reactor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reactor]:
    """What C{twistd} has installed, in a process that is not to heed signals after the test."""
    reactor = Reactor()
    monkeypatch.setattr("twisted.internet.reactor", reactor)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    yield reactor
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def busy() -> Iterator[str]:
    """A description of what somebody has."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"


def started(service: IService) -> list[str]:
    """Start a service, and give what it says of its listeners."""
    with capturedLogs() as logged:
        service.privilegedStartService()
        service.startService()
    return [text for event in logged if ": serving " in (text := formatEvent(event))]


async def stop(service: IService) -> None:
    await maybeDeferred(service.stopService)


async def test_each_listener_says_where_it_is(tmp_path: Path) -> None:
    """A browser can open what speaks HTTP; of another port 0 one wants to know what it became."""
    path = tmp_path / "sock"
    web = makeService(parse("-H", here("Web"), "-l", TCP, "-l", f"unix:{path}"))
    other = makeService(parse("-H", here("Either"), "-l", TCP, "-l", UDP, "-l", f"unix:{path}.2"))
    said = started(web) + started(other)
    ports = [each.server.server_address[1] for each in listeners(web) + listeners(other)]
    assert said == [
        f"Web: serving http://127.0.0.1:{ports[0]}/",
        f"Web: serving unix:{path}",
        f"Either: serving {TCP} (port {ports[2]})",
        f"Either: serving {UDP} (port {ports[3]})",
        f"Either: serving unix:{path}.2",
    ]
    await stop(web)
    await stop(other)


async def test_an_ipv6_address_is_in_brackets() -> None:
    service = makeService(parse("-H", here("Web"), "-l", "tcp6:0:interface=\\:\\:1"))
    try:
        (said,) = started(service)
    except ConfigurationError:
        pytest.skip("needs IPv6")
    (listener,) = listeners(service)
    assert said == f"Web: serving http://[::1]:{listener.server.server_address[1]}/"
    await stop(service)


#: Twisted before 26.10 leaves the socket of a port that it could not bind to the collector.
leaves_socket = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)


def fail_to_listen(busy: str, **twistd: Any) -> IService:
    """A service one of whose listeners cannot listen."""
    options = parse("-H", here("Either"), "-l", TCP, "-l", busy)
    options.parent = twistd
    service = makeService(options)
    service.privilegedStartService()
    return service


@leaves_socket
async def test_a_port_that_is_taken_ends_the_program_and_leaves_nothing(
    reactor: Reactor, busy: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pidfile = tmp_path / "twistd.pid"
    pidfile.write_text("1")
    with pytest.raises(SystemExit) as end:
        fail_to_listen(busy, nodaemon=True, pidfile=str(pidfile))
    assert end.value.code == 1
    assert capfd.readouterr().err == (
        f"sockserve: listen '{busy}': {os.strerror(errno.EADDRINUSE)}\n"
    )
    assert not pidfile.exists(), "nobody else removes it"
    assert reactor.turns == 1, "which closes the port that is open"


@leaves_socket
@pytest.mark.parametrize("pidfile", ["", "nowhere/twistd.pid"])
async def test_there_need_be_no_pidfile(reactor: Reactor, busy: str, pidfile: str) -> None:
    with pytest.raises(SystemExit):
        fail_to_listen(busy, nodaemon=True, pidfile=pidfile)


@leaves_socket
async def test_of_a_daemon_the_process_that_waits_for_it_hears_it(
    reactor: Reactor,
    busy: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pidfile = tmp_path / "twistd.pid"
    pidfile.write_text("1")
    monkeypatch.setattr(sys, "__stderr__", sys.__stderr__)  # which it replaces
    reading, writing = os.pipe()
    with open(reading, "rb") as status, open(writing, "wb") as pipe:
        with pytest.raises(SystemExit) as end:
            fail_to_listen(busy, nodaemon=False, pidfile=str(pidfile), statusPipe=pipe.fileno())
        pipe.close()
        told = status.read()
    assert end.value.code == 1
    assert not pidfile.exists()
    assert told.startswith(b"1 ")
    # What twistd says of it there is not said a second time.
    print(f"An error has occurred: {told[2:]!r}", file=sys.__stderr__, end="")
    print("and this", file=sys.__stderr__)
    assert capfd.readouterr().err == (
        f"sockserve: listen '{busy}': {os.strerror(errno.EADDRINUSE)}\nand this\n"
    )


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in an application"])
async def test_when_all_its_server_objects_have_shut_down_the_program_ends(
    reactor: Reactor, servers: list[Any], alone: bool
) -> None:
    options = parse("--server", here("make_server"))
    options.parent = {"nodaemon": True} if alone else None
    service = makeService(options)
    (said,) = started(service)
    (listener,) = listeners(service)
    assert said == f"Threads: serving {listener.description}"
    servers[0].shutdown()
    await listener.shut_down
    assert reactor.stops == alone
    await stop(service)


async def test_a_program_that_is_being_stopped_is_not_stopped_once_more(
    reactor: Reactor, servers: list[Any]
) -> None:
    options = parse("--server", here("make_server"))
    options.parent = {"nodaemon": True}
    service = makeService(options)
    started(service)
    (listener,) = listeners(service)
    servers[0].shutdown()
    await stop(service)
    await listener.shut_down
    assert reactor.stops == 0


async def test_a_server_object_beside_other_listeners_ends_alone(
    reactor: Reactor, servers: list[Any], tmp_path: Path
) -> None:
    file = tmp_path / "servers.toml"
    file.write_text(
        f"[[server]]\nhandler = '{here('Either')}'\nlisten = '{TCP}'\n"
        f"[[server]]\nserver = '{here('make_server')}'\n"
    )
    options = parse("-c", str(file))
    options.parent = {"nodaemon": True}
    service = makeService(options)
    started(service)
    servers[0].shutdown()
    await listeners(service)[1].shut_down
    assert reactor.stops == 0
    await stop(service)


async def test_what_handlers_print_on_standard_error_is_information(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As C{http.server} does with each request; twistd would log it as an error."""
    file = LoggingFile(Logger(), LogLevel.error)
    monkeypatch.setattr("sys.stderr", file)
    service = makeService(parse("-H", here("Either"), "-l", TCP))
    started(service)
    assert file.level is LogLevel.info
    await stop(service)


async def test_a_database_that_goes_while_it_starts_is_told_in_a_line(
    reactor: Reactor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It was there when it was looked at, before anything was served."""
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as database:
        database.executescript(schema("sqlite", "jobs"))
    url = f"sqlite:///{tmp_path}/jobs.db?table=jobs"
    options = parse("--source", url, "-H", here("Either"))
    options.parent = {"nodaemon": True}
    service = makeService(options)
    service.privilegedStartService()
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as database:
        database.execute("DROP TABLE jobs")
    with pytest.raises(SystemExit) as ended:
        service.startService()
    assert ended.value.code == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("sockserve: source ")
    assert "jobs" in line
