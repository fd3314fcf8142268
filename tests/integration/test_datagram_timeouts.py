"""Datagrams where the process has a default timeout for sockets."""

import socket

import pytest

from tests.integration.servers import PATIENCE_SECONDS, in_thread
from tests.integration.test_datagrams_real import (
    KINDS,
    Blocking,
    Coroutine,
    CoroutineSendto,
    ask,
    client_for,
    serving,
)

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


@pytest.mark.parametrize("kind", ["udp", "udp6", "unixgram"])
@pytest.mark.parametrize(
    ("handler", "concurrency"),
    [(Coroutine, None), (CoroutineSendto, None), (Blocking, "threads")],
)
async def test_a_listener_does_not_wait_for_packets(kind, handler, concurrency, tmp_path):
    default = socket.getdefaulttimeout()
    # A server that waited so long would answer after the client's patience.
    socket.setdefaulttimeout(2 * PATIENCE_SECONDS)
    try:
        async with serving(handler, KINDS[kind].format(tmp_path), concurrency) as server:

            def talk():
                with client_for(server, tmp_path) as client:
                    return [ask(client, b"%d-abc" % n, server.server_address)[0] for n in range(2)]

            assert await in_thread(talk) == [b"0-ABC", b"1-ABC"]
    finally:
        socket.setdefaulttimeout(default)
