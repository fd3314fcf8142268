"""Deadlines on connections whose handler runs in a child, where no reactor keeps them."""

import pytest

from sockserve import Deadlines
from sockserve.executors.fork import ForkExecutor
from tests.integration.handlers import BlockingEcho
from tests.integration.servers import connect, in_thread, is_ended, serving

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")


@pytest.mark.parametrize("said", [b"", b"half a li"])
async def test_a_silent_client_does_not_keep_a_child(said):
    from twisted.internet import reactor

    def client(address):
        with connect(address) as sock:
            sock.sendall(said)
            return is_ended(sock)

    async with serving(
        BlockingEcho,
        deadlines=Deadlines(idle=0.5),
        concurrency=ForkExecutor(reactor),
    ) as server:
        assert await in_thread(client, server.server_address)
