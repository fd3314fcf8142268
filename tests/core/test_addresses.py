"""Addresses: Twisted's as a socket gives them."""

import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress

from sockserve.core.addresses import socket_address


@pytest.mark.parametrize(
    ("address", "given"),
    [
        (IPv4Address("TCP", "192.0.2.1", 80), ("192.0.2.1", 80)),
        (IPv4Address("UDP", "192.0.2.1", 53), ("192.0.2.1", 53)),
        (IPv6Address("TCP", "2001:db8::1", 80), ("2001:db8::1", 80, 0, 0)),
        (IPv6Address("TCP", "fe80::1", 80, 5, 2), ("fe80::1", 80, 5, 2)),
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
