"""The table of ways: a further protocol comes by a line of it, with its limits."""

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from sockserve import StreamRequestHandler
from sockserve.core.addresses import Addresses
from sockserve.core.handler_kinds import HandlerKind
from sockserve.core.lifecycle import make_and_run_coroutine
from sockserve.core.limits import LIMITS, LimitKind
from sockserve.http.limits import HTTPLimits
from sockserve.interfaces import IStreamServer
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.listeners.stream_protocol import StreamServer
from sockserve.listeners.ways import WAYS, ProtocolLimits, Way
from sockserve.streams.channel import ChannelOwner, MakeChannel
from sockserve.streams.coroutine import CoroutineChannel
from tests.streams.owner import CLIENT, SERVER, Owner, owners

pytestmark = pytest.mark.usefixtures("no_leaks")

own = pytest.fixture(owners)


class QueryLimits:
    """The limits of a further protocol."""

    max_query_bytes: int = 1000


class QueryChannel(CoroutineChannel):
    """A connection on which it is spoken."""

    def __init__(self, protocol: ChannelOwner, addresses: Addresses, most: int) -> None:
        super().__init__(protocol, addresses)
        self.most = most

    @classmethod
    def maker(cls, server: IStreamServer) -> MakeChannel:
        assert isinstance(server, QueryLimits)
        most = server.max_query_bytes
        return lambda protocol, addresses: cls(protocol, addresses, most)


class QueryFactory(QueryLimits, StreamFactory):
    """A server object with a line more in its table."""

    ways = {**WAYS, HandlerKind.COROUTINE: Way(QueryChannel.maker, make_and_run_coroutine)}


class Query(StreamRequestHandler):
    async def handle(self) -> None:  # type: ignore[override]
        pass


@pytest.mark.parametrize(("given", "most"), [({}, 1000), ({"max_query_bytes": 10}, 10)])
def test_a_further_protocol_is_a_line_with_limits_of_its_own(
    own: Callable[..., Owner], given: dict[str, int], most: int
) -> None:
    factory = type("Factory", (QueryFactory,), given)(Query, reactor=Clock())
    channel: Any = own(Query, lambda owner: factory.make_channel(owner, (CLIENT, SERVER))).channel
    assert (type(channel), channel.most) == (QueryChannel, most)


def test_the_limits_of_protocols_are_those_that_can_be_set_for_streams() -> None:
    """But for the length of a queue, which each port has, whatever is spoken there."""
    for_streams = {name for name in LIMITS if LIMITS[name].kind is LimitKind.STREAMS}
    of_protocols = {name for name in dir(ProtocolLimits) if not name.startswith("_")}
    assert of_protocols == for_streams - {"request_queue_size"}


@pytest.mark.parametrize("name", HTTPLimits.__annotations__)
def test_what_connections_know_of_a_server_object_has_no_protocols_limits(name: str) -> None:
    assert hasattr(StreamFactory, name)
    assert not hasattr(StreamServer, name)
    assert name not in IStreamServer.names(all=True)
