"""Admission: who may connect, how many at once, and a listening socket that keeps to it."""

import ipaddress
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
    ],
)
def test_an_address_or_a_network(text: str, network: str) -> None:
    assert parse_network(text) == ipaddress.ip_network(network)


@pytest.mark.parametrize("text", ["", "localhost", "192.0.2.1/24", "192.0.2.0/33", "::/129", "*"])
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
    ],
)
def test_networks(allow: str, deny: str, admitted: str, refused: str) -> None:
    admission = Admission(allow=networks(allow), deny=networks(deny))
    for host in admitted.split():
        assert admission.refusal((host, 1234)) is None, host
        assert admission.refusal((host, 1234, 0, 0)) is None, host
    for host in refused.split():
        assert admission.refusal((host, 1234)) == "network", host


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
