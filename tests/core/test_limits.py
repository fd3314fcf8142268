"""Limits: their names, and what they may be."""

import pytest
from twisted.internet.task import Clock

from sockserve import BaseRequestHandler, ConfigurationError
from sockserve.core.limits import LIMITS, LimitKind, check_limit, set_limits
from sockserve.listeners.datagrams import DatagramServer
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.sql import SQLServer, SQLSource


class Coroutine(BaseRequestHandler):
    async def handle(self):
        pass


SERVERS = {
    LimitKind.STREAMS: StreamFactory,
    LimitKind.DATAGRAMS: DatagramServer,
    LimitKind.ROWS: SQLServer,
}


def make(cls, **options):
    if issubclass(cls, SQLServer):
        return cls(Coroutine, source=SQLSource(Clock(), "sqlite:///jobs.db"), **options)
    return cls(Coroutine, reactor=Clock(), **options)


def server_of(name, **limits):
    return make(SERVERS[LIMITS[name].kind], limits=limits)


@pytest.mark.parametrize("name", LIMITS)
def test_each_is_an_attribute_of_its_kind_of_server(name):
    assert hasattr(SERVERS[LIMITS[name].kind], name)
    assert getattr(server_of(name, **{name: 1000}), name) == 1000


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [-1, 1.5, "10", True, [], 2**40])
def test_what_cannot_be_is_told_by_name(name, value):
    if value == 2**40 and LIMITS[name].most is None:
        check_limit(name, value)
        return
    with pytest.raises(ConfigurationError, match=f"{name}: .* is not a number of "):
        check_limit(name, value)
    with pytest.raises(ConfigurationError, match=f"{name}: .* is not a number of "):
        server_of(name, **{name: value})
    cls = type("Server", (SERVERS[LIMITS[name].kind],), {name: value})
    with pytest.raises(ConfigurationError, match=f"{name}: .* is not a number of "):
        make(cls)


@pytest.mark.parametrize("name", LIMITS)
def test_none_is_for_those_that_a_server_can_be_without(name):
    if name in ("max_body_bytes", "max_datagrams", "max_rows", "request_queue_size"):
        assert getattr(server_of(name, **{name: None}), name) is None
    else:
        with pytest.raises(ConfigurationError, match=f"{name}: None is not a number of "):
            server_of(name, **{name: None})


@pytest.mark.parametrize("name", ["max_bodies", "max_datagrams"])
def test_a_server_has_no_others(name):
    with pytest.raises(ConfigurationError, match=f"{name}: StreamFactory has no such limit"):
        set_limits(StreamFactory(Coroutine, reactor=Clock()), {name: 1})
