"""The connection in memory that the kits for streams and HTTP share."""

import pytest
from twisted.internet.defer import Deferred

from sockserve import Deadlines, Phase, StreamRequestHandler
from sockserve.testing import LIFECYCLE, StreamExchange, run_stream

pytestmark = pytest.mark.usefixtures("no_leaks")


class Echo(StreamRequestHandler):
    async def handle(self):
        async for line in self.rfile:
            self.wfile.write(line)
            await self.wfile.drain()


def test_the_server_is_the_one_that_is_shipped():
    class Numbers(StreamRequestHandler):
        async def handle(self):
            statistics = self.server.statistics
            self.wfile.write(b"%d %d" % (statistics.accepted, statistics.active))

    assert run_stream(Numbers).sent == b"1 1"


@pytest.mark.parametrize("address", [("192.0.2.1", 7), ("2001:db8::1", 7, 0, 0), "/run/client", ""])
def test_a_handler_sees_the_clients_address_as_it_was_given(address):
    seen = []

    class Peer(StreamRequestHandler):
        async def handle(self):
            seen.extend([self.client_address, self.request.getpeername()])

    run_stream(Peer, client_address=address)
    assert seen == [address, address]


def test_tls_cannot_be_started_in_memory():
    class Secret(StreamRequestHandler):
        async def handle(self):
            await self.start_tls(None)

    exchange = StreamExchange(Secret)
    assert exchange.done
    assert isinstance(exchange.error, RuntimeError)
    assert "no TLS in memory" in str(exchange.error)


def test_an_error_past_handle_error_is_told():
    class Exits(StreamRequestHandler):
        async def handle(self):
            raise SystemExit(3)

    exchange = StreamExchange(Exits)
    assert exchange.done
    assert isinstance(exchange.error, SystemExit)
    assert exchange.trace == LIFECYCLE


def test_what_a_handler_does_when_something_of_the_tests_fires_is_seen_at_once():
    fired = Deferred()

    class Waits(StreamRequestHandler):
        async def handle(self):
            self.wfile.write(await fired)

    exchange = StreamExchange(Waits)
    assert not exchange.done
    fired.callback(b"now")
    assert exchange.done
    assert exchange.sent == b"now"


def test_a_client_that_sends_after_the_end_is_not_heard():
    class Brief(StreamRequestHandler):
        async def handle(self):
            self.wfile.write(b"bye")

    exchange = StreamExchange(Brief)
    exchange.receive(b"hello?")
    exchange.end()
    exchange.lose()
    assert exchange.take_sent() == b"bye"
    assert (exchange.done, exchange.error) == (True, None)


def test_a_handler_that_does_not_end_after_its_deadline_is_abandoned():
    class Stubborn(StreamRequestHandler):
        async def handle(self):
            while True:
                try:
                    await Deferred()
                except TimeoutError:
                    continue

    exchange = StreamExchange(Stubborn, deadlines=Deadlines(handle=5))
    exchange.advance(5)
    assert (exchange.done, exchange.expired) == (False, Phase.HANDLE)
    exchange.advance(120)
    assert (exchange.done, exchange.expired) == (True, Phase.HANDLE)
