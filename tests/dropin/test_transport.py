"""Whom an accepted connection is from."""

import socket

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactor

from sockserve.dropin.transport import AdoptedConnection


@pytest.fixture
def connection():
    """A TCP connection: the client's end, and the one that was accepted."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
        listening.accept()[0] as accepted,
    ):
        yield client, accepted


@pytest.mark.parametrize("name", [("192.0.2.1", 5), ("192.0.2.1", 0)])
def test_a_program_may_say_whom_it_is_from(connection, name):
    """It has read a PROXY header, for one."""
    transport = AdoptedConnection(connection[1], name, Protocol(), MemoryReactor(), "test")
    assert transport.getPeer() == IPv4Address("TCP", *name)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("2001:db8::1", 5), IPv6Address("TCP", "2001:db8::1", 5)),
        (("::ffff:192.0.2.1", 5, 0, 0), IPv6Address("TCP", "::ffff:192.0.2.1", 5)),
        (("fe80::1%lo", 5, 0, 1), IPv6Address("TCP", "fe80::1%lo", 5, 0, 1)),
    ],
)
def test_also_an_address_of_the_other_version_that_a_proxy_has_said(connection, name, address):
    transport = AdoptedConnection(connection[1], name, Protocol(), MemoryReactor(), "test")
    assert transport.getPeer() == address
    assert transport.getHost() == IPv4Address("TCP", *connection[1].getsockname())


@pytest.mark.parametrize(
    "name",
    [
        *(None, "somebody", ("somebody", 5), ("192.0.2.1",), ("192.0.2.1", "x"), ()),
        *(["192.0.2.1", 5], (5, 5), ("010.0.0.1", 5), ("::g", 5)),
    ],
)
def test_what_is_no_address_does_not_count(connection, name):
    client, accepted = connection
    transport = AdoptedConnection(accepted, name, Protocol(), MemoryReactor(), "test")
    assert transport.client_address == name
    assert transport.getPeer() == IPv4Address("TCP", *client.getsockname())
    assert transport.getHost() == IPv4Address("TCP", *accepted.getsockname())


@pytest.mark.parametrize(
    ("name", "address"), [("", None), (b"", None), (None, None), ("a.sock", b"a.sock")]
)
def test_a_unix_socket(name, address):
    near, far = socket.socketpair()
    with near, far:
        transport = AdoptedConnection(near, name, Protocol(), MemoryReactor(), "test")
        assert transport.getPeer() == UNIXAddress(address)


def test_one_that_is_closed():
    near, far = socket.socketpair()
    near.close()
    with far, pytest.raises(OSError, match="descriptor"):
        AdoptedConnection(near, "", Protocol(), MemoryReactor(), "test")
