"""Addresses: Twisted's as a socket gives them."""

import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress

from sockserve.core.addresses import canonical_address, scope_of, socket_address, twisted_address


@pytest.mark.parametrize(
    ("address", "given"),
    [
        (IPv4Address("TCP", "192.0.2.1", 80), ("192.0.2.1", 80)),
        (IPv4Address("UDP", "192.0.2.1", 53), ("192.0.2.1", 53)),
        (IPv6Address("TCP", "2001:db8::1", 80), ("2001:db8::1", 80, 0, 0)),
        (IPv6Address("TCP", "fe80::1", 80, 5, 2), ("fe80::1", 80, 5, 2)),
        (IPv6Address("TCP", "fe80::1%lo", 80, 0, 2), ("fe80::1", 80, 0, 2)),  # as Twisted has it
        (IPv6Address("TCP", "::ffff:192.0.2.1", 80), ("192.0.2.1", 80)),
        (IPv6Address("TCP", "0:0:0:0:0:ffff:c000:201", 80), ("192.0.2.1", 80)),
        (UNIXAddress("/run/echo"), "/run/echo"),
        (UNIXAddress(b"/run/\xff"), "/run/\udcff"),  # as os.fsdecode: not all names are text
        (UNIXAddress(b"\0abstract"), b"\0abstract"),
        (UNIXAddress(None), ""),  # a client that has bound none
        (None, ""),
        (HostnameAddress(b"example.org", 80), ""),  # no socket has one
    ],
    ids=repr,
)
def test_an_address_is_written_as_a_socket_gives_it(address: Any, given: Any) -> None:
    assert socket_address(address) == given


def test_a_unix_address_is_what_the_socket_itself_says(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)
        assert socket_address(UNIXAddress(path)) == bound.getsockname()


@pytest.mark.parametrize(
    ("given", "address"),
    [
        (("192.0.2.1", 80), IPv4Address("TCP", "192.0.2.1", 80)),
        (("2001:db8::1", 80, 5, 2), IPv6Address("TCP", "2001:db8::1", 80, 5, 2)),
        (("2001:db8::1", 80), IPv6Address("TCP", "2001:db8::1", 80)),  # a program's, perhaps
        ("/run/\udcff", UNIXAddress(b"/run/\xff")),
        (b"\0abstract", UNIXAddress(b"\0abstract")),
        ("", UNIXAddress(None)),
        (b"", UNIXAddress(None)),
    ],
    ids=repr,
)
def test_an_address_of_a_socket_is_written_as_twisted_has_it(given: Any, address: Any) -> None:
    assert twisted_address(given) == address
    assert type(twisted_address(given)) is type(address)


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        # IPv4 in any spelling is one address.
        (("192.0.2.1", 80), ("192.0.2.1", 80)),
        (("::ffff:192.0.2.1", 80, 0, 0), ("192.0.2.1", 80)),
        (("::FFFF:192.0.2.1", 80), ("192.0.2.1", 80)),
        (("::ffff:c000:201", 80, 7, 0), ("192.0.2.1", 80)),
        (("0:0:0:0:0:ffff:c000:0201", 80), ("192.0.2.1", 80)),
        # So is IPv6.
        (("2001:DB8:0:0:0:0:0:1", 80), ("2001:db8::1", 80, 0, 0)),
        (("2001:db8::1", 80, 5, 0), ("2001:db8::1", 80, 5, 0)),
        (("::", 80), ("::", 80, 0, 0)),
        # These are no mapped ones (RFC 4291, 2.5.5.1; RFC 6052).
        (("::192.0.2.1", 80, 0, 0), ("::192.0.2.1", 80, 0, 0)),
        (("64:ff9b::192.0.2.1", 80), ("64:ff9b::c000:201", 80, 0, 0)),
        # A zone is the scope id.
        (("fe80::1%lo", 80, 0, 0), ("fe80::1", 80, 0, socket.if_nametoindex("lo"))),
        (("fe80::1%7", 80), ("fe80::1", 80, 0, 7)),
        (("fe80::1%lo", 80, 0, 7), ("fe80::1", 80, 0, 7)),
        (("fe80::1", 80, 0, "lo"), ("fe80::1", 80, 0, socket.if_nametoindex("lo"))),
        (("fe80::1%lo", 80, 0, None), ("fe80::1", 80, 0, socket.if_nametoindex("lo"))),
        (("fe80::1", 80, 5, None), ("fe80::1", 80, 5, 0)),
        (("fe80::1", 80, 5), ("fe80::1", 80, 5, 0)),
        (("fe80::1%no such", 80), ("fe80::1", 80, 0, 0)),
        # What is no IP address stays.
        ("", ""),
        (None, None),
        ("/run/client", "/run/client"),
        (b"\0abstract", b"\0abstract"),
        (("somebody", 80), ("somebody", 80)),
        (("not:one", 80), ("not:one", 80)),
        ((":\0:", 80), (":\0:", 80)),
        (("::1",), ("::1",)),
        ((1, 2), (1, 2)),
        ((), ()),
    ],
    ids=repr,
)
def test_each_address_has_one_spelling(given: Any, canonical: Any) -> None:
    assert canonical_address(given) == canonical
    assert canonical_address(canonical) == canonical


def test_a_zone_is_an_interfaces_name_or_number() -> None:
    assert scope_of("lo") == socket.if_nametoindex("lo")
    assert scope_of("12") == 12
    for zone in ("", "no such", "\u0661"):
        with pytest.raises(OSError, match="interface"):
            scope_of(zone)
