"""
Moves between sockserve's files on the way of one request: ``python -m benchmarks.moves [TRIP]``.

A move is execution passing from a function in one file to a function in another, by a call or
by a return, within a thread; frames between the two (Twisted's, the standard library's, the
handler's) do not count.  The server is warm, and all its threads are watched until they rest.
Of several runs the median is printed, and between what they lie.

Knows a request of each kind and its client; must not know which files sockserve has.
"""

import argparse
import contextlib
import http.server
import multiprocessing
import signal
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any, NamedTuple, TypeAlias

import sockserve
import sockserve.http.server
import sockserve.socketserver
from sockserve.http import HTTPRequestHandler
from sockserve.service import RequestService

PACKAGE = str(Path(sockserve.__file__).parent) + "/"
LOOPBACK = "127.0.0.1"
WARM_UP_RUNS, RUNS = 2, 5
REST_SECONDS = 0.1  # without a step: a request is over
TRIP_SECONDS = 60  # by then something has failed
LINE = b"Hello, world!\n"
ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
ASK_ONCE = ASK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


class Step(NamedTuple):
    thread: str
    nesting: int  # of files
    place: str  # the file within the package; empty for the handler
    function: str
    is_call: bool  # or a coroutine's resumption
    is_move: bool


Counted: TypeAlias = Callable[[], contextlib.AbstractContextManager[None]]
Load: TypeAlias = Callable[[Any], None]


class Trace:
    """The steps of the thread that makes it, and of all that are started later."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._thread = threading.local()
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def wait_for_rest(self) -> None:
        count = -1
        while count != len(self.steps):
            count = len(self.steps)
            time.sleep(REST_SECONDS)

    @contextlib.contextmanager
    def counted(self, steps: list[Step]) -> Iterator[None]:
        """Add the steps taken for what the client does meanwhile."""
        self.wait_for_rest()
        start = len(self.steps)
        yield
        self.wait_for_rest()
        steps += self.steps[start:]

    def _profile(self, frame: FrameType, event: str, arg: object) -> None:
        place = place_of(frame)
        if event == "call" and place is not None:
            self._enter(frame, place, is_call=True)
        elif event == "return":
            if place == "":
                self._enter(frame, place, is_call=False)
            if frame.f_back is not None and (place := place_of(frame.f_back)):
                self._enter(frame.f_back, place, is_call=False)

    def _enter(self, frame: FrameType, place: str, is_call: bool) -> None:
        before = getattr(self._thread, "place", place)
        is_move = place not in ("", before)
        self._thread.place = place or before
        if is_call or is_move or not place:
            thread, function = threading.current_thread().name, frame.f_code.co_qualname
            self.steps.append(Step(thread, nesting(frame), place, function, is_call, is_move))


def place_of(frame: FrameType) -> str | None:
    """The file within the package; empty for a handler of ours, C{None} for what does not count."""
    code = frame.f_code
    if code.co_filename.startswith(PACKAGE):
        return code.co_filename.removeprefix(PACKAGE)
    return "" if frame.f_globals is globals() and code.co_name in ("handle", "do_GET") else None


def nesting(frame: FrameType | None) -> int:
    places = []
    while frame is not None:
        places.append(place_of(frame))
        frame = frame.f_back
    return len([*groupby(place for place in places if place is not None)]) - 1


class CoroutineEcho(sockserve.StreamRequestHandler):
    async def handle(self) -> None:
        async for line in self.rfile:
            self.wfile.write(line)
            await self.wfile.drain()


class BlockingEcho(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


class CoroutineHello(HTTPRequestHandler):
    async def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(LINE)


class BlockingHello(HTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(LINE)


class StdlibHello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(LINE)))
        self.end_headers()
        self.wfile.write(LINE)

    def log_message(self, format: str, *args: object) -> None:
        """No access log here."""


def service(handler: type, load: Load) -> None:
    from twisted.internet import reactor, threads

    made: Any = RequestService.from_description(reactor, f"tcp:0:interface={LOOPBACK}", handler)
    made.privilegedStartService()
    made.startService()
    failures: list[Any] = []

    def begin() -> None:
        loaded = threads.deferToThread(load, made.server.server_address)
        loaded.addErrback(failures.append).addCallback(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    threading.current_thread().name = "reactor"
    reactor.run()
    for failure in failures:
        failure.raiseException()


def drop_in(server_class: Any, handler: type, load: Load) -> None:
    with server_class((LOOPBACK, 0), handler) as server:
        threading.Thread(target=server.serve_forever, name="serve_forever").start()
        try:
            load(server.server_address)
        finally:
            server.shutdown()


def ask(sock: socket.socket, request: bytes) -> None:
    """Send a request; each of the handlers ends its answer with the same line."""
    sock.sendall(request)
    answer = b""
    while not answer.endswith(LINE):
        data = sock.recv(65536)
        assert data, answer
        answer += data


def connection(request: bytes, address: Any, counted: Counted) -> None:
    """A connection for one request, from accept to end."""
    with counted(), socket.create_connection(address) as sock:
        ask(sock, request)
        if request == ASK_ONCE:
            assert not sock.recv(1), "the server does not close"


def kept_alive(address: Any, counted: Counted) -> None:
    """One request of several on a connection."""
    with socket.create_connection(address) as sock:
        ask(sock, ASK)
        with counted():
            ask(sock, ASK)


def around(address: Any, counted: Counted) -> None:
    """A connection's opening and closing, without its request."""
    with counted():
        sock = socket.create_connection(address)
    ask(sock, ASK)
    with counted():
        sock.close()


class Trip(NamedTuple):
    title: str
    serve: Callable[[type, Load], None]
    handler: type
    client: Callable[[Any, Counted], None]


drop_in_tcp = partial(drop_in, sockserve.socketserver.ThreadingTCPServer)
drop_in_http = partial(drop_in, sockserve.http.server.ThreadingHTTPServer)
echo, get_once = partial(connection, LINE), partial(connection, ASK_ONCE)
TRIPS = {
    "tcp": Trip("TCP, a line and the end", service, CoroutineEcho, echo),
    "tcp-threads": Trip("the same on a thread", service, BlockingEcho, echo),
    "tcp-dropin": Trip("the same, ThreadingTCPServer", drop_in_tcp, BlockingEcho, echo),
    "http-connection": Trip("HTTP, opening and closing", service, CoroutineHello, around),
    "http": Trip("HTTP GET, kept alive", service, CoroutineHello, kept_alive),
    "http-threads": Trip("the same on a thread", service, BlockingHello, kept_alive),
    "http-dropin": Trip("the same, ThreadingHTTPServer", drop_in_http, StdlibHello, kept_alive),
    "http-dropin-close": Trip("with its connection", drop_in_http, StdlibHello, get_once),
}


def run(name: str) -> list[list[Step]]:
    """Make a trip several times, in a process of its own: a reactor runs once."""
    signal.alarm(TRIP_SECONDS)
    trip, trace, runs = TRIPS[name], Trace(), []

    def load(address: Any) -> None:
        for _ in range(WARM_UP_RUNS + RUNS):
            steps: list[Step] = []
            trip.client(address, partial(trace.counted, steps))
            runs.append(steps)

    trip.serve(trip.handler, load)
    sys.setprofile(None)
    return runs[WARM_UP_RUNS:]


def figures(steps: list[Step]) -> dict[str, int]:
    ends = [at for at, step in enumerate(steps) if not step.place and not step.is_call]
    calls = [step for step in steps if step.place and step.is_call]
    closing = steps[ends[-1] :] if ends else []
    return {
        "moves": sum(step.is_move for step in steps),
        "by calls": sum(step.is_move for step in calls),
        "after the handler": sum(step.is_move for step in closing),
        "files": len({step.place for step in calls}),
        "calls": len(calls),
        "is_overridden": sum(step.function.endswith("is_overridden") for step in calls),
    }


def spread(values: list[int]) -> str:
    least, most = min(values), max(values)
    return f"{median(values):.0f}" + (f" ({least}–{most})" if least < most else "")


def show(steps: list[Step]) -> None:
    """Print the calls, nested by file, each with the moves until then."""
    moves = 0
    for thread, together in groupby(steps, lambda step: step.thread):
        print(f"\n[{thread}]")
        for step in together:
            moves += step.is_move
            if step.is_call or not step.place:
                line = f"{'  ' * step.nesting}{step.place or 'handler'}  {step.function}"
                print(f"{moves:4} {line}{'' if step.is_call else ' waits or ends'}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.moves", description=__doc__)
    parser.add_argument(
        "trips", nargs="*", metavar="TRIP", help=", ".join(TRIPS) + " (default: all)"
    )
    parser.add_argument("--show", metavar="TRIP", help="print this one, call by call")
    options = parser.parse_args()
    names = [options.show] if options.show else options.trips or [*TRIPS]
    if unknown := set(names).difference(TRIPS):
        parser.error(f"no trip {', '.join(sorted(unknown))}; there are {', '.join(TRIPS)}")
    spawn, rows = multiprocessing.get_context("spawn"), []
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as processes:
        for name, runs in zip(names, processes.map(run, names), strict=True):
            measured = [figures(steps) for steps in runs]
            cells = {key: spread([each[key] for each in measured]) for key in measured[0]}
            rows.append({"trip": name, "": TRIPS[name].title} | cells)
            if options.show:
                show(sorted(runs, key=lambda steps: figures(steps)["moves"])[RUNS // 2])
                print()
    for cells in [dict(zip(rows[0], rows[0], strict=True)), *rows]:
        widths = [max(len(row[key]) for row in [*rows, {key: key}]) for key in cells]
        print("  ".join(map(str.ljust, cells.values(), widths)).rstrip())


if __name__ == "__main__":
    main()
