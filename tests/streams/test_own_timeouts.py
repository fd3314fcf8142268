"""A handler's own timeout (the C{timeout} of its class) in the middle of a message."""

from asyncio import LimitOverrunError

import pytest
from twisted.internet.defer import Deferred

from sockserve import Deadlines, StreamRequestHandler
from sockserve.interfaces import Phase
from sockserve.testing import StreamExchange


class Patient(StreamRequestHandler):
    """Says so when nothing comes, and goes on reading."""

    timeout = 5
    reads = None

    async def handle(self):
        while True:
            try:
                message = await type(self).reads(self.rfile)
            except TimeoutError:
                self.wfile.write(b"well?")
            else:
                self.wfile.write(b"<" + message + b">")
                return


READS = pytest.mark.parametrize(
    ("reads", "rest"),
    [
        pytest.param(lambda rfile: rfile.readline(), b"def\n", id="readline"),
        pytest.param(lambda rfile: rfile.readuntil(b";"), b"def;", id="readuntil"),
        pytest.param(lambda rfile: rfile.readexactly(7), b"defg", id="readexactly"),
    ],
)


def exchange(reads, **deadlines):
    handler = type("Handler", (Patient,), {"reads": staticmethod(reads)})
    # No least rate: it would end the counted read after 5 s.
    return StreamExchange(handler, deadlines=Deadlines(body_rate=None, **deadlines))


@READS
def test_it_ends_the_read_but_neither_the_connection_nor_what_has_come(reads, rest):
    served = exchange(reads)
    served.receive(b"a")
    served.advance(4)
    served.receive(b"bc")  # each wait for a byte lasts 5 s anew: until 9
    served.advance(4.9)
    assert served.sent == b""
    served.advance(0.2)  # 9.1
    assert served.take_sent() == b"well?"
    assert (served.done, served.expired) == (False, None)
    served.advance(5.1)  # 14.2: the second read had until 14.1
    assert served.take_sent() == b"well?"
    served.receive(rest)
    assert served.sent == b"<abc" + rest + b">"
    assert (served.done, served.expired, served.error) == (True, None, None)


def test_a_trickle_that_never_meets_it_meets_the_deadline_of_the_message():
    served = exchange(lambda rfile: rfile.readline(), header=30)
    for _ in range(7):
        served.receive(b"a")
        served.advance(4)
    assert served.expired is None  # 28 s
    served.receive(b"a")
    served.advance(4)  # 32 s: past header's 30, 4 after the last byte
    assert served.expired is Phase.HEADER


def test_a_handler_that_has_given_up_a_line_does_not_expire_while_it_works():
    work = Deferred()

    class Handler(StreamRequestHandler):
        async def handle(self):
            self.rfile.limit = 10
            with pytest.raises(LimitOverrunError):
                await self.rfile.readline()
            await work
            self.wfile.write(b"done")

    served = StreamExchange(Handler, deadlines=Deadlines(header=3))
    served.receive(b"abc")
    served.receive(b"d" * 20)  # over the limit
    served.advance(4)  # header began at 0 and had until 3
    assert (served.done, served.expired) == (False, None)
    work.callback(None)
    assert served.sent == b"done"
    assert (served.done, served.expired, served.error) == (True, None, None)
