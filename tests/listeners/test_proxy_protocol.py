"""Connections that begin with a PROXY header, in memory."""

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocolNegotiationFactory,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from sockserve.listeners.proxy_protocol import IProxyHeaderListener, ProxyEndpoint

PROXY = IPv4Address("TCP", "192.0.2.1", 40000)
V1 = b"PROXY TCP4 198.51.100.7 203.0.113.1 56324 443\r\n"
#: Signature, version 2 and PROXY, TCP over IPv4, 12 bytes of addresses.
V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x07\xcb\x00\x71\x01\xdc\x04\x01\xbb"


@implementer(IProxyHeaderListener, IHalfCloseableProtocol, IHandshakeListener)
class Recorder(Protocol):
    """Notes what it is told."""

    def __init__(self):
        self.events = []

    def proxy_header_received(self):
        self.events.append(("header", self.transport.getPeer().host))

    def proxy_header_failed(self, fault):
        self.events.append(("no header", fault))

    def dataReceived(self, data):
        self.events.append(("data", data))

    def readConnectionLost(self):
        self.events.append("read ended")

    def writeConnectionLost(self):
        self.events.append("write ended")

    def handshakeCompleted(self):
        self.events.append("handshake")


class Plain(Protocol):
    """Is told of nothing but data."""

    def __init__(self):
        self.events = []

    def dataReceived(self, data):
        self.events.append(data)


@implementer(IProtocolNegotiationFactory)
class Negotiating(Factory):
    def acceptableProtocols(self):
        return [b"http/1.1"]


class Endpoint:
    """Keeps the factory it is to listen with."""

    def listen(self, factory):
        self.factory = factory
        return "listening"


def wrapping_factory(factory, trusted=lambda address: True):
    endpoint = Endpoint()
    assert ProxyEndpoint(endpoint, trusted).listen(factory) == "listening"
    return endpoint.factory


def connect(protocol=Recorder):
    """
    A connection through the wrapper.

    @return: what the transport calls, what is behind, and the transport.
    """
    factory = wrapping_factory(Factory.forProtocol(protocol))
    wrapper = factory.buildProtocol(PROXY)
    transport = StringTransport(peerAddress=PROXY)
    wrapper.makeConnection(transport)
    return wrapper, wrapper.wrappedProtocol, transport


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_header_is_told_before_the_data_that_came_with_it(header):
    wrapper, behind, _ = connect()
    wrapper.dataReceived(header + b"GET /")
    assert behind.events == [("header", "198.51.100.7"), ("data", b"GET /")]


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_header_may_come_byte_by_byte(header):
    wrapper, behind, transport = connect()
    for byte in header[:-1]:
        wrapper.dataReceived(bytes([byte]))
    assert behind.events == []
    wrapper.dataReceived(header[-1:])
    assert [event[0] for event in behind.events] == ["header"]
    wrapper.dataReceived(b"more")
    assert behind.events[1:] == [("data", b"more")]
    assert not transport.disconnecting


def test_unknown_without_addresses_is_a_header_and_tells_of_the_proxy():
    wrapper, behind, _ = connect()
    wrapper.dataReceived(b"PROXY UNKNOWN\r\n")
    assert behind.events == [("header", PROXY.host)]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "no header"),
        (
            b"PROXY TCP4 198.51.100.300 203.0.113.1 56324 443\r\n",
            "an address that is none of TCP4",
        ),
        (b"PROXY TCP4 nonsense 203.0.113.1 56324 443\r\n", "an address that is none of TCP4"),
        (b"PROXY TCP4 198.51.100.7 203.0.113.1 many 443\r\n", "a port that is none of 0 to 65535"),
    ],
)
def test_a_connection_without_a_right_header_is_closed(data, fault):
    wrapper, behind, transport = connect()
    wrapper.dataReceived(data)
    assert transport.disconnecting
    assert behind.events == [("no header", fault)]


def test_a_protocol_that_does_not_listen_for_the_header_gets_the_data():
    wrapper, behind, _ = connect(Plain)
    wrapper.dataReceived(V1 + b"hello")
    assert behind.events == [b"hello"]


def test_a_half_close_after_the_header_is_passed_on():
    wrapper, behind, transport = connect()
    wrapper.dataReceived(V1)
    del behind.events[:]
    wrapper.readConnectionLost()
    wrapper.writeConnectionLost()
    assert behind.events == ["read ended", "write ended"]
    assert not transport.disconnecting


def test_a_half_close_before_the_header_ends_the_connection():
    wrapper, behind, transport = connect()
    wrapper.readConnectionLost()
    assert behind.events == []
    assert transport.disconnecting


def test_a_half_close_ends_the_connection_of_a_protocol_that_knows_none():
    wrapper, _, transport = connect(Plain)
    wrapper.dataReceived(V1)
    wrapper.writeConnectionLost()
    assert not transport.disconnecting
    wrapper.readConnectionLost()
    assert transport.disconnecting


def test_only_a_handshake_after_the_header_is_passed_on():
    wrapper, behind, _ = connect()
    wrapper.handshakeCompleted()  # of the TLS below the header
    assert behind.events == []
    wrapper.dataReceived(V1)
    wrapper.handshakeCompleted()
    assert behind.events[1:] == ["handshake"]


def test_clients_that_are_not_trusted_are_dropped():
    trusted = []
    factory = wrapping_factory(
        Factory.forProtocol(Recorder), lambda address: trusted.append(address) or False
    )
    assert factory.buildProtocol(PROXY) is None
    assert trusted == [PROXY]
    assert factory.buildProtocol(None) is None  # no address to trust


def test_alpn_is_the_wrapped_factorys():
    assert wrapping_factory(Factory()).acceptableProtocols() == []
    assert wrapping_factory(Negotiating()).acceptableProtocols() == [b"http/1.1"]
