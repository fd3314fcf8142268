"""
The test kit: request handlers run without a network, for users' own tests.

This page names what users import; its rooms must not know services or options.

In a test module::

    from sockserve.testing import run_http, run_stream

    def test_echo():
        exchange = run_stream(Echo, b"one\\ntwo\\n")
        assert exchange.sent == b"one\\ntwo\\n"
        assert exchange.trace == LIFECYCLE

    def test_hello():
        response = run_http(Hello, path="/?name=you")
        assert (response.status, response.body) == (200, b"Hello, you!")
"""

from sockserve.testing.exchanges import LIFECYCLE, Exchange, InlineExecutor
from sockserve.testing.http import HTTPExchange, HTTPResponse, run_http
from sockserve.testing.streams import StreamExchange, run_datagram, run_stream

__all__ = [
    "LIFECYCLE",
    "Exchange",
    "HTTPExchange",
    "HTTPResponse",
    "InlineExecutor",
    "StreamExchange",
    "run_datagram",
    "run_http",
    "run_stream",
]
