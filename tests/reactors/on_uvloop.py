"""A plugin of pytest: all tests run on the uvloop reactor, by C{-p tests.reactors.on_uvloop}."""

import asyncio
import socket

from twisted.internet.main import installReactor

from sockserve.reactors import uvloop


async def _open_stream(loop: asyncio.AbstractEventLoop) -> None:
    one, other = socket.socketpair()
    transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, one)
    transport.close()
    other.close()
    await asyncio.sleep(0)


reactor = uvloop.UVLoopReactor()
# With its first stream the loop opens a descriptor that it keeps, which is no leak.
reactor._asyncioEventloop.run_until_complete(_open_stream(reactor._asyncioEventloop))
installReactor(reactor)
