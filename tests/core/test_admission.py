"""Admission: who may connect, how many at once, and a listening socket that keeps to it."""

import ipaddress
import socket
from typing import Any

import pytest

from sockserve.core.admission import Admission, parse_network
from sockserve.interfaces import ConfigurationError

pytestmark = pytest.mark.usefixtures("no_leaks")


def networks(text: str) -> list[Any]:
    return [parse_network(word) for word in text.split()]


# Networks


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("192.0.2.0/255.255.255.0", "192.0.2.0/24"),
        # IPv4 that is mapped into IPv6 is IPv4.
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::FFFF:C000:200/120", "192.0.2.0/24"),
        ("0:0:0:0:0:ffff:7f00:0/104", "127.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        # What holds more than that is IPv6.
        ("::/0", "::/0"),
        ("::/95", "::/95"),
        # As an interface has a number.
        ("fe80::%lo/64", f"fe80::%{socket.if_nametoindex('lo')}/64"),
        ("fe80::1%7", "fe80::1%7"),
    ],
)
def test_an_address_or_a_network(text: str, network: str) -> None:
    assert parse_network(text) == ipaddress.ip_network(network)


@pytest.mark.parametrize(
    "text",
    [
        *("", "localhost", "192.0.2.1/24", "192.0.2.0/33", "::/129", "*"),
        # Octal for some.
        *("010.0.0.0/8", "192.0.2.07", "::ffff:010.0.0.1"),
        *("::ffff:192.0.2.1/120", "::ffff:192.0.2.256", "fe80::1/64"),
        # Zones that are none, and that no client would ever have.
        *("fe80::1%", "fe80::%no such/64", "2001:db8::%lo/32", "192.0.2.7%lo"),
        *("::ffff:192.0.2.7%lo", "fe80::%lo/9"),
    ],
)
def test_what_is_no_network_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_network(text)
    assert f"network {text!r}: " in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("allow", "deny", "admitted", "refused"),
    [
        ("", "", "192.0.2.1 2001:db8::1", ""),
        ("192.0.2.0/24", "", "192.0.2.1 192.0.2.255", "192.0.3.1 ::1 2001:db8::1"),
        ("", "192.0.2.0/24", "192.0.3.1 ::1", "192.0.2.1"),
        ("192.0.2.0/24", "192.0.2.7", "192.0.2.6", "192.0.2.7 192.0.3.1"),
        ("192.0.2.7", "192.0.2.0/24", "", "192.0.2.7 192.0.2.6 192.0.3.1"),
        ("2001:db8::/32", "", "2001:db8::1", "2001:db9::1 192.0.2.1"),
        ("192.0.2.1 2001:db8::/32", "", "192.0.2.1 2001:db8::1", "::1"),
        # An IPv4 client of a dual-stack socket is an IPv4 client.
        ("192.0.2.0/24", "", "::ffff:192.0.2.1", "::ffff:192.0.3.1"),
        ("", "192.0.2.0/24", "::ffff:192.0.3.1", "::ffff:192.0.2.1"),
        # A link-local client comes with its interface.
        ("fe80::/10", "", "fe80::1%eth0 fe80::1", "2001:db8::1%eth0"),
        ("", "fe80::/10", "2001:db8::1", "fe80::1%lo"),
        ("fe80::%lo/64", "", "fe80::1%lo fe80::1%1", "fe80::1%7 fe80::1"),
        ("fe80::%7/64", "fe80::1%7", "fe80::2%7", "fe80::1%7 fe80::2%lo"),
        # Whatever way an IPv4 client, or a network, is written in.
        ("", "127.0.0.0/8", "192.0.2.1", "0:0:0:0:0:ffff:7f00:1 ::FFFF:127.0.0.1 ::ffff:7f00:1"),
        ("", "::ffff:127.0.0.0/104", "192.0.2.1 ::ffff:c000:201", "127.0.0.1 ::ffff:127.0.0.1"),
        ("::ffff:0:0/96", "", "192.0.2.1 ::ffff:c000:201", "::1 2001:db8::1"),
        ("", "::ffff:0:0/96", "::1", "192.0.2.1 ::ffff:c000:201"),
        ("", "::/0", "192.0.2.1 ::ffff:192.0.2.1", "::1 ::192.0.2.1"),
        ("", "2001:db8::/32", "::1", "2001:DB8:0:0:0:0:0:1"),
    ],
)
def test_networks(allow: str, deny: str, admitted: str, refused: str) -> None:
    admission = Admission(allow=networks(allow), deny=networks(deny))
    for host in admitted.split():
        assert admission.refusal((host, 1234)) is None, host
        assert admission.refusal((host, 1234, 0, 0)) is None, host
    for host in refused.split():
        assert admission.refusal((host, 1234)) == "network", host


def test_networks_of_the_standard_librarys_own_making() -> None:
    """A program need not write them as text."""
    mapped = ipaddress.ip_network("::ffff:127.0.0.0/104")
    assert Admission(deny=[mapped]).refusal(("127.0.0.1", 1)) == "network"
    assert Admission(allow=[mapped]).refusal(("127.0.0.1", 1)) is None
    nowhere = ipaddress.ip_network("fe80::%no such/64")
    with pytest.raises(ConfigurationError, match="no interface 'no such'"):
        Admission(deny=[nowhere])


def test_clients_of_unix_sockets_have_no_network() -> None:
    admission = Admission(allow=networks("192.0.2.0/24"), max_connections_per_peer=1)
    for address in ("", "/run/client", b"\0abstract"):
        for _ in range(3):
            admission.opened()
            assert admission.refusal(address) is None
            assert admission.admit(address) is None
        admission.closed(address)


# Caps


@pytest.mark.parametrize("cap", [0, -1])
@pytest.mark.parametrize("name", ["max_connections", "max_connections_per_peer"])
def test_a_cap_below_one_is_refused_by_name(name: str, cap: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}: {cap}"):
        Admission(**{name: cap})


def test_full() -> None:
    admission = Admission(max_connections=2)
    admission.opened()
    assert not admission.full()
    admission.opened()
    assert admission.full()
    admission.closed()
    assert not admission.full()
    assert admission.active == 1


def test_without_a_cap_it_is_never_full() -> None:
    admission = Admission()
    for _ in range(1000):
        admission.opened()
    assert not admission.full()


def test_the_cap_counts_a_peer_in_whatever_way_it_is_written() -> None:
    admission = Admission(max_connections_per_peer=1)
    assert admission.admit(("::ffff:192.0.2.1", 1, 0, 0)) is None
    for host in ("192.0.2.1", "0:0:0:0:0:ffff:c000:201", "::ffff:192.0.2.1"):
        assert admission.admit((host, 2)) == "peer"
    admission.closed(("192.0.2.1", 1))
    assert admission.admit(("192.0.2.1", 2)) is None


def test_a_link_local_address_is_another_peer_on_each_interface() -> None:
    admission = Admission(max_connections_per_peer=1)
    assert admission.admit(("fe80::1", 1, 0, 2)) is None
    assert admission.admit(("fe80::1", 1, 0, 3)) is None
    assert admission.admit(("fe80::1", 2, 0, 2)) == "peer"
    assert admission.admit(("fe80::1%3", 2)) == "peer"


def test_the_cap_for_each_peer() -> None:
    admission = Admission(max_connections_per_peer=2)
    ann, bob = ("192.0.2.1", 1), ("192.0.2.2", 1)
    admission.opened()
    admission.admit(ann)
    assert admission.refusal(("192.0.2.1", 2)) is None
    assert admission.admit(("192.0.2.1", 2)) is None
    assert admission.refusal(("192.0.2.1", 3)) == "peer"
    assert admission.admit(("192.0.2.1", 3)) == "peer"  # and is not counted
    assert admission.refusal(bob) is None
    admission.closed(ann)
    assert admission.refusal(("192.0.2.1", 3)) is None


def test_who_is_refused_for_its_network_is_told_so_first() -> None:
    admission = Admission(deny=networks("192.0.2.1"), max_connections_per_peer=1)
    admission.admit(("192.0.2.1", 1))
    assert admission.refusal(("192.0.2.1", 2)) == "network"
