"""Clients that are known by their addresses."""

import socketserver
from typing import Any

import pytest
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from sockserve import ConfigurationError, DatagramRequestHandler, StreamRequestHandler
from sockserve.auth import (
    AddressAuthMixIn,
    AddressChecker,
    IAddressCredentials,
    NotAuthenticated,
    SASLMixIn,
    StartTLSMixIn,
    TLSClientAuthMixIn,
    UserRealm,
)
from sockserve.http import HTTPRequestHandler
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.testing import StreamExchange, run_datagram, run_stream

INSIDE = ("10.1.2.3", 4711)
OUTSIDE = ("192.0.2.1", 4711)
NETWORKS = {"10.0.0.0/8": "office"}


class Who(AddressAuthMixIn, StreamRequestHandler):
    networks = NETWORKS

    async def handle(self) -> None:
        self.wfile.write(repr(self.identity and self.identity.name).encode())


class BlockingWho(AddressAuthMixIn, StreamRequestHandler):
    networks = NETWORKS

    def handle(self) -> None:
        self.wfile.write(repr(self.identity and self.identity.name).encode())


class Lenient(Who):
    requires_address = False


class DatagramWho(AddressAuthMixIn, DatagramRequestHandler):
    networks = NETWORKS

    def handle(self) -> None:
        assert self.identity is not None
        self.wfile.write(self.identity.name.encode())


@pytest.mark.parametrize("handler", [Who, BlockingWho])
def test_a_client_has_the_name_of_its_network(handler: type) -> None:
    assert run_stream(handler, client_address=INSIDE).sent == b"'office'"


@pytest.mark.parametrize("handler", [Who, BlockingWho])
def test_a_client_from_elsewhere_is_refused_before_its_handler_begins(handler: type) -> None:
    exchange = run_stream(handler, client_address=OUTSIDE)
    assert exchange.sent == b""
    assert "handle" not in exchange.trace
    assert isinstance(exchange.error, NotAuthenticated)


def test_a_client_from_elsewhere_is_counted() -> None:
    exchange = StreamExchange(Who, client_address=OUTSIDE)
    assert exchange.done
    assert exchange._factory.statistics.failures == {"authentication": 1}
    assert exchange._factory.statistics.errors == 0


def test_a_client_from_elsewhere_may_be_nobody() -> None:
    assert run_stream(Lenient, client_address=OUTSIDE).sent == b"None"


def test_datagrams_have_addresses_too() -> None:
    assert run_datagram(DatagramWho, b"", client_address=INSIDE).sent == b"office"
    assert run_datagram(DatagramWho, b"", client_address=OUTSIDE).sent == b""


def test_the_portal_comes_first() -> None:
    portal = Portal(UserRealm(), [AddressChecker({"192.0.2.0/24": "guest"})])
    attributes = {"portal": portal}
    assert run_stream(Who, client_address=OUTSIDE, attributes=attributes).sent == b"'guest'"
    assert run_stream(Who, client_address=INSIDE, attributes=attributes).sent == b""


def test_a_checker_that_takes_its_time_lets_nobody_in() -> None:
    class Slow:
        credentialInterfaces = (IAddressCredentials,)

        def requestAvatarId(self, credentials: Any) -> Deferred[bytes]:
            return Deferred()

    attributes = {"portal": Portal(UserRealm(), [Slow()])}
    for handler in (Who, Lenient, BlockingWho):
        exchange = run_stream(handler, client_address=INSIDE, attributes=attributes)
        assert isinstance(exchange.error, NotAuthenticated)


@pytest.mark.parametrize(
    ("networks", "fault"),
    [
        ({"10.0.0.0/99": "office"}, "network '10.0.0.0/99'"),
        ({"10.0.0.0/8": 5}, "network '10.0.0.0/8': 5 is no user's name"),
        (["10.0.0.0/8"], r"networks: \['10.0.0.0/8'\] is no mapping, as"),
    ],
)
def test_networks_that_are_none_are_told_when_the_server_is_made(networks: Any, fault: str) -> None:
    wrong = type("Wrong", (Who,), {"networks": networks})
    with pytest.raises(ConfigurationError, match=fault):
        StreamFactory(wrong, reactor=Clock())


@pytest.mark.parametrize(
    "base",
    [
        StreamRequestHandler,
        DatagramRequestHandler,
        HTTPRequestHandler,
        socketserver.StreamRequestHandler,
        type("Mine", (StreamRequestHandler,), {}),
    ],
)
@pytest.mark.parametrize("mix_in", [AddressAuthMixIn, SASLMixIn, StartTLSMixIn, TLSClientAuthMixIn])
def test_a_mix_in_behind_its_handler_class_would_ask_nobody_and_is_refused(
    mix_in: type, base: type
) -> None:
    with pytest.raises(ConfigurationError, match="handler Door: its mix-ins come behind"):
        type("Door", (base, mix_in), {})


def test_a_mix_in_between_others_is_refused_when_one_is_behind_the_handler_class() -> None:
    with pytest.raises(ConfigurationError, match="its mix-ins come behind StreamRequestHandler"):
        type("Door", (SASLMixIn, StreamRequestHandler, AddressAuthMixIn), {})


def test_a_class_with_a_mix_in_may_get_another() -> None:
    class Both(BlockingWho, SASLMixIn):
        pass

    assert run_stream(Both, client_address=INSIDE).sent == b"'office'"
