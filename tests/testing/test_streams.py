"""The kit users test their handlers with."""

from __future__ import annotations

import functools
import http.server
import socketserver

import pytest

from sockserve import (
    BaseRequestHandler,
    DatagramRequestHandler,
    DeadlineExpired,
    Deadlines,
    Phase,
    StreamRequestHandler,
)
from sockserve.testing import LIFECYCLE, StreamExchange, run_datagram, run_stream


class CoroutineEcho(StreamRequestHandler):
    async def handle(self):
        async for line in self.rfile:
            self.wfile.write(line)
            await self.wfile.drain()


class BlockingEcho(StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class StdlibEcho(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


@pytest.mark.parametrize("handler", [CoroutineEcho, BlockingEcho, StdlibEcho])
def test_stream(handler):
    exchange = run_stream(handler, b"one\ntwo")
    assert exchange.sent == b"one\ntwo"
    assert exchange.trace == LIFECYCLE
    assert exchange.error is None


@pytest.mark.parametrize("handler", [CoroutineEcho, BlockingEcho, StdlibEcho])
def test_more_than_any_buffer_holds(handler):
    data = b"x" * 1023 + b"\n"
    assert run_stream(handler, data * 4096).sent == data * 4096


class CoroutineUpper(DatagramRequestHandler):
    async def handle(self):
        self.wfile.write(self.rfile.read().upper())


class StdlibUpper(socketserver.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read().upper())


class CoroutineSendsTwice(BaseRequestHandler):
    async def handle(self):
        data, answer = self.request
        answer.sendto(data, self.client_address)
        answer.sendto(data[::-1], ("192.0.2.9", 9))


@pytest.mark.parametrize("handler", [CoroutineUpper, StdlibUpper])
def test_datagram(handler):
    exchange = run_datagram(handler, b"hello", client_address=("192.0.2.1", 7))
    assert exchange.datagrams == [(b"HELLO", ("192.0.2.1", 7))]
    assert exchange.trace == LIFECYCLE


def test_every_datagram_with_its_destination():
    exchange = run_datagram(CoroutineSendsTwice, b"ab", client_address=("192.0.2.1", 7))
    assert exchange.datagrams == [(b"ab", ("192.0.2.1", 7)), (b"ba", ("192.0.2.9", 9))]


@pytest.mark.parametrize("handler", [CoroutineUpper, StdlibUpper])
def test_a_datagram_of_a_client_without_a_name_is_not_answered(handler):
    exchange = run_datagram(handler, b"hello", client_address=None)
    assert (exchange.datagrams, exchange.error) == ([], None)
    exchange = run_datagram(CoroutineSendsTwice, b"ab", client_address=None)
    assert exchange.datagrams == [(b"ba", ("192.0.2.9", 9))]


class CoroutineRaises(StreamRequestHandler):
    async def handle(self):
        raise KeyError("culprit")


class StdlibRaises(socketserver.StreamRequestHandler):
    def handle(self):
        raise KeyError("culprit")


@pytest.mark.parametrize("handler", [CoroutineRaises, StdlibRaises])
def test_error_is_told(handler):
    exchange = run_stream(handler)
    assert isinstance(exchange.error, KeyError)
    assert exchange.trace == [*LIFECYCLE[:6], "handle_error", *LIFECYCLE[6:]]


def test_handler_sees_attributes_and_address():
    class Who(StreamRequestHandler):
        async def handle(self):
            self.wfile.write(f"{self.server.motto} {self.client_address[0]}".encode())

    exchange = run_stream(Who, client_address=("192.0.2.1", 7), attributes={"motto": "hi"})
    assert exchange.sent == b"hi 192.0.2.1"


def test_partial_of_an_unmodified_http_server_handler(tmp_path):
    (tmp_path / "a.txt").write_text("content")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    exchange = run_stream(handler, b"GET /a.txt HTTP/1.0\r\n\r\n")
    assert exchange.sent.startswith(b"HTTP/1.0 200 OK\r\n")
    assert exchange.sent.endswith(b"\r\n\r\ncontent")
    assert exchange.trace == LIFECYCLE


def test_step_by_step():
    exchange = StreamExchange(CoroutineEcho)
    exchange.receive(b"on")
    assert exchange.take_sent() == b""
    exchange.receive(b"e\ntw")
    assert exchange.take_sent() == b"one\n"
    exchange.end()
    assert exchange.take_sent() == b"tw"
    assert exchange.done


def test_deadline_step_by_step():
    exchange = StreamExchange(CoroutineEcho, deadlines=Deadlines(idle=60, header=5))
    exchange.advance(50)
    exchange.receive(b"slow")
    exchange.advance(4.9)  # the line began at 50 and may last until 55
    assert not exchange.done
    exchange.advance(0.2)
    assert exchange.expired is Phase.HEADER
    assert isinstance(exchange.error, DeadlineExpired)
    assert exchange.error.phase is Phase.HEADER
    assert exchange.done


def test_a_timeout_of_the_handlers_own_ends_only_its_read():
    class Patient(StreamRequestHandler):
        timeout = 5

        async def handle(self):
            while True:
                try:
                    line = await self.rfile.readline()
                except TimeoutError:
                    self.wfile.write(b"still there?\n")
                    continue
                if not line:
                    return
                self.wfile.write(line)

    exchange = StreamExchange(Patient)
    exchange.advance(4.9)
    assert exchange.take_sent() == b""
    exchange.advance(0.2)  # 5.1 without a byte
    exchange.advance(5.1)
    assert exchange.take_sent() == b"still there?\nstill there?\n"
    exchange.receive(b"yes\n")
    assert exchange.take_sent() == b"yes\n"
    exchange.end()
    assert exchange.done
    assert exchange.error is None


def test_a_handler_that_reads_on_after_a_deadline_comes_to_its_end():
    class Stubborn(StreamRequestHandler):
        async def handle(self):
            while True:
                try:
                    line = await self.rfile.readline()
                except TimeoutError:
                    continue
                if not line:
                    return

    exchange = StreamExchange(Stubborn, deadlines=Deadlines(idle=5))
    exchange.advance(5.1)
    assert exchange.expired is Phase.IDLE
    assert exchange.done


def test_connection_that_breaks():
    exchange = StreamExchange(CoroutineEcho)
    exchange.lose()
    assert isinstance(exchange.error, ConnectionResetError)
    assert exchange.trace[-3:] == ["handle_error", "shutdown_request", "close_request"]


def test_coroutine_that_never_ends_is_told():
    class Stuck(StreamRequestHandler):
        async def handle(self):
            from twisted.internet.defer import Deferred

            await Deferred()

    with pytest.raises(AssertionError, match="still waits"):
        run_stream(Stuck)
