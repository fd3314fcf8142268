"""Descriptions: the endpoint or port that each makes, and the one line that each mistake gets."""

import os
import socket

import pytest
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock

from sockserve import ConfigurationError, DatagramRequestHandler, Deadlines
from sockserve.listeners.datagram_ports import UDPPort, UNIXDatagramPort, WildcardUDPPort
from sockserve.listeners.datagrams import DatagramServer
from sockserve.listeners.endpoints import datagram_port, is_datagram_description, stream_endpoint
from sockserve.listeners.proxy_protocol import ProxyEndpoint
from sockserve.listeners.unix_ports import InheritedUNIXEndpoint, UNIXEndpoint


def trust(address):
    return True


def endpoint(description):
    return stream_endpoint(MemoryReactorClock(), description, trust, Deadlines())


class Silent(DatagramRequestHandler):
    async def handle(self):
        """Says nothing."""


def port(description, **options):
    reactor = MemoryReactorClock()
    return datagram_port(reactor, description, DatagramServer(Silent, reactor=reactor, **options))


@pytest.mark.parametrize(
    ("description", "is_datagram"),
    [
        ("udp:53", True),
        ("udp6:53", True),
        ("unixgram:/tmp/s", True),
        ("tcp:53", False),
        ("udplite:53", False),
        ("haproxy:udp:53", False),
        ("UDP:53", True),  # as Twisted's kinds
    ],
)
def test_kind_tells_datagrams_from_streams(description, is_datagram):
    assert is_datagram_description(description) is is_datagram


# Streams


def test_twisteds_descriptions_make_twisteds_endpoints():
    assert isinstance(endpoint("tcp:0"), TCP4ServerEndpoint)


@pytest.mark.parametrize(
    ("description", "options"),
    [
        ("unix:{0}/s", "mode=666 lock"),
        ("unix:address={0}/s", "mode=666 lock"),
        ("unix:{0}/s:mode=600:lockfile=0", "mode=600"),
        ("unix:{0}/s:640:50:1", "mode=640 lock"),
        ("UNIX:{0}/s", "mode=666 lock"),
        ("haproxy:unix:{0}/s", "mode=666 lock"),
    ],
)
def test_a_path_has_a_mode_and_a_lock(tmp_path, description, options):
    made = endpoint(description.format(tmp_path))
    port = made.listen(Factory()).result
    mode = os.stat(tmp_path / "s").st_mode & 0o777
    lock = " lock" if os.path.lexists(tmp_path / "s.lock") else ""
    assert f"mode={mode:o}{lock}" == options
    port.connectionLost(None)


@pytest.mark.parametrize("mark", ["@", "\0"])
@pytest.mark.parametrize("form", ["unix:{}", "unix:address={}", "unix:{}:lockfile=1:backlog=5"])
def test_an_abstract_name_is_written_with_at_or_nul(form, mark):
    name = f"sockserve-{os.getpid()}"
    made = endpoint(form.format(mark + name))
    assert isinstance(made, UNIXEndpoint)
    port = made.listen(Factory()).result
    assert port.socket.getsockname() == b"\0" + name.encode()
    port.connectionLost(None)


@pytest.mark.parametrize("description", ["tcp:0", "8080", "tcp6:0", "unix:s", "haproxy:tcp6:0"])
def test_twisteds_plugins_are_asked_about_other_kinds_only(monkeypatch, description):
    """As that writes a list of them into a file, wherever Twisted is installed."""

    def refuse(interface):
        raise AssertionError(interface)

    monkeypatch.setattr("sockserve.listeners.endpoints.getPlugins", refuse)
    monkeypatch.setattr("twisted.internet.endpoints.getPlugins", refuse)
    assert endpoint(description) is not None


@pytest.mark.parametrize("kind", ["haproxy", "HAPROXY"])
def test_haproxy_wraps_the_endpoint_after_it(kind):
    """In any case: Twisted's own would believe any header."""
    wrapped = endpoint(f"{kind}:tcp:0")
    assert isinstance(wrapped, ProxyEndpoint)
    reactor = MemoryReactorClock()
    stream_endpoint(reactor, "haproxy:tcp:7000", trust, Deadlines()).listen(Factory())
    assert reactor.tcpServers[0][0] == 7000


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("udp:53", "udp is for datagrams"),
        ("haproxy:", "write haproxy: and a stream description after it"),
        ("haproxy:udp:53", "write haproxy: and a stream description after it"),
        ("tpc:80", "unknown kind 'tpc'; did you mean 'tcp'?"),
        ("tcp:http", "'http' is not a number; write tcp:PORT"),
        (
            "tcp:80:interfce=lo",
            "unknown word 'interfce'; did you mean 'interface'? Write tcp:PORT",
        ),
        ("tls:443:/nowhere/at/all", "certificates in '/nowhere/at/all': No such file"),
        ("unix:", "it takes a path, or @ and a name"),
        ("unix:@", "it takes a path, or @ and a name"),
        ("unix:/run/\0s", "a path has no NUL within it"),
        ("unix:@s:mode=600", "an abstract name has no mode"),
        ("unix:s:mode=rw", "mode 'rw' is not an octal number"),
        ("unix:s:backlog=many", "backlog 'many' is not a number"),
        ("unix:s:user=www", "unknown word 'user'; write unix:PATH"),
        ("unix", "address is missing; write unix:PATH"),
        ("systemd:index=0", "domain is missing; write systemd:domain=INET"),
        ("systemd:domain=INET", "give index or name, one of them"),
        ("systemd:domain=INET:index=0:name=web", "give index or name, one of them"),
        ("systemd:domain=INET:index=one", "'one' is not a number; write systemd:domain=INET"),
        ("systemd:domain=INET:index=0", "this process was not handed such a socket"),
        ("systemd:domain=INET:name=web", "this process was not handed such a socket"),
        ("fd:three", "write fd:NUMBER, the number of a descriptor"),
        ("fd:99999", "Bad file descriptor; this process was started with none of that number"),
        ("fd:-1", "Bad file descriptor"),
        ("fd:" + "9" * 30, "write fd:NUMBER, the number of a descriptor"),
        ("fd:3:4", "write fd:NUMBER, the number of a descriptor"),
        ("::1:8080", "unknown kind ''; did you mean '[::1]:8080'?"),
        ("http:8080", "unknown kind 'http'; did you mean 'tcp:8080'?"),
        (
            "gopher:8080",
            "unknown kind 'gopher'; the kinds are fd, haproxy, ssl, systemd, tcp, tcp6,",
        ),
        ("https://127.0.0.1:8443/", "https needs a certificate: write tls:8443:FOLDER"),
        ("ftp://127.0.0.1:2121/", "a URL of ftp is no place to listen at"),
        ("http://127.0.0.1:8080/about", "'/about' is no part of where to listen"),
        ("tcp://127.0.0.1", "the port is missing"),
        ("stdio:", "unknown kind 'stdio'"),  # it has no port
        ("tcp", "port is missing; write tcp:PORT"),
        ("tcp:", "port '' is not a number; write tcp:PORT"),
        ("tcp:-1", "port -1 is not within 0 to 65535"),
        ("tcp:65536", "port 65536 is not within 0 to 65535"),
        ("TCP:65536", "port 65536 is not within 0 to 65535"),
        ("tcp6:65536", "port 65536 is not within 0 to 65535"),
        ("tcp:" + "9" * 5000, "is not a number; write tcp:PORT"),
        ("tcp:port=", "port '' is not a number"),
        ("tcp:+80", "port '+80' is not a number"),
        ("tcp: 80", "port ' 80' is not a number"),
        ("tcp:8_0", "port '8_0' is not a number"),
        ("tcp:\u0668", "port '\u0668' is not a number"),
        ("tcp:0:0:127.0.0.1", "backlog '127.0.0.1' is not a number"),
        ("tcp:0:backlog=-1", "backlog -1 is not within 0 to 2147483647"),
        ("tcp:0:backlog=2147483648", "backlog 2147483648 is not within 0 to 2147483647"),
        ("tls:0:.:backlog=many", "backlog 'many' is not a number; write tls:PORT"),
        ("tls:65536:.", "port 65536 is not within 0 to 65535"),
        ("tls:.:-1", "port -1 is not within 0 to 65535"),
        ("ssl:http", "port 'http' is not a number; write ssl:PORT"),
        (
            "tcp6:0:interface=::1",
            "a colon within a value is written \\:, so interface=\\:\\:1; write",
        ),
        ("tcp6:0:interface=[::1]", "so interface=\\:\\:1; write"),
        ("tcp6:0:interface=::1:backlog=5", "so interface=\\:\\:1; write"),
        ("tcp6:0:::1", "so interface=\\:\\:1; write"),
        ("tcp:0:a:b:c", "no word takes 'c' (a colon within a value is written \\:)"),
        ("tcp:0:port=1", "no word takes '0'"),
        ("tcp:0:interface=lo", "interface 'lo' is not an address, but the name of a network inter"),
        ("tls:0:.:interface=lo", "interface 'lo' is not an address, but the name of a network int"),
        ("ssl:0:interface=a\0b", "interface 'a\\x00b' is not an address"),
        ("tcp:0:interface=a\0b", "interface 'a\\x00b' is not an address"),
        ("tcp6:0:interface=a\0b", "interface 'a\\x00b' is not an address"),
        ("tcp:0:interface=127.0.0.1/8", "interface '127.0.0.1/8' is not an address; write one of"),
        ("tcp:0:interface=*", "interface '*' is not an address; write one of"),
        ("tcp6:0:interface=[\\:\\:1]", "interface '[::1]' is not an address; write one of"),
        (
            "tcp6:0:interface=fe80\\:\\:1",
            "interface 'fe80::1' is link-local and needs its zone, as",
        ),
        (
            "tls:0:.:interface=febf\\:\\:1",
            "is link-local and needs its zone, as interface=febf\\:\\:",
        ),
        ("haproxy:tcp6:0:interface=fe80\\:\\:1", "is link-local and needs its zone"),
        ("tcp6:0:interface=fe80\\:\\:1%no-such", "there is no zone 'no-such'; this machine has lo"),
        ("tcp6:0:interface=fe80\\:\\:1%99999", "there is no zone '99999'; this machine has lo"),
        ("tcp6:0:interface=fe80\\:\\:1%", "there is no zone ''; this machine has lo"),
        ("unix:/run/" + "x" * 103, "AF_UNIX path too long: it has 108 bytes, and 107 are the most"),
        ("unix:/run/" + "\u20ac" * 35, "AF_UNIX path too long: it has 110 bytes"),
        ("unix:@" + "x" * 108, "AF_UNIX path too long: it has 108 bytes, and 107 are the most"),
        ("UNIX:/run/" + "x" * 103, "AF_UNIX path too long: it has 108 bytes"),
        ("haproxy:unix:/run/" + "x" * 103, "AF_UNIX path too long: it has 108 bytes"),
        ("unix:s:mode=10000", "mode 10000 is not within 0 to 7777"),
        ("unix:s:mode=-1", "mode -1 is not within 0 to 7777"),
        ("unix:s:mode=", "mode '' is not an octal number"),
        ("unix:s:mode=888", "mode '888' is not an octal number"),
        ("unix:s:lockfile=no", "lockfile 'no' is not 0 or 1"),
        ("unix:s:lockfile=2", "lockfile '2' is not 0 or 1"),
        ("tcp:80\\", "a backslash at its end has nothing to quote; write tcp:PORT"),
        ("systemd", "domain is missing; write systemd:domain=INET"),
        ("systemd:domain=BOGUS:index=0", "domain 'BOGUS' is not one of INET, INET6, UNIX"),
        ("systemd:domain=inet:index=0", "INET, INET6, UNIX; did you mean 'INET'?"),
        ("systemd:domain=:index=0", "domain '' is not one of INET, INET6, UNIX"),
        ("haproxy:systemd:domain=BOGUS:index=0", "domain 'BOGUS' is not one of"),
        (
            "systemd:domain=INET:index=-1",
            "this process was not handed such a socket, nor any other",
        ),
        ("systemd:domain=INET:index=0:port=1", "unknown word 'port'; write systemd:domain=INET"),
    ],
)
def test_a_wrong_stream_description_is_one_line_that_names_it(description, message):
    with pytest.raises(ConfigurationError) as caught:
        endpoint(description)
    text = str(caught.value)
    # Of haproxy: what comes after it is named, where that is what is wrong.
    named = {description, description.removeprefix("haproxy:")}
    assert text.startswith(tuple(f"listen {each!r}: " for each in named))
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize("description", ["tls:{0}:443", "tls:443:{0}"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no *.pem file in"),
        (b"not a certificate", "a.pem is not a PEM file"),
        (b"-----BEGIN PRIVATE KEY-----", "no certificate in"),
        (b"-----BEGIN CERTIFICATE-----", "no private key in"),
    ],
)
def test_certificates_are_looked_at_before_a_client_comes(tmp_path, description, content, message):
    if content is not None:
        (tmp_path / "a.pem").write_bytes(content)
    with pytest.raises(ConfigurationError, match=message.replace("*", r"\*")):
        endpoint(description.format(tmp_path))


def test_an_inherited_socket_is_adopted_and_left_open():
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        adopted = endpoint(f"fd:{inherited.fileno()}")
        assert isinstance(adopted, AdoptedStreamServerEndpoint)
        assert inherited.getsockname()[1] > 0


def test_an_inherited_unix_socket_is_adopted_too():
    with socket.socket(socket.AF_UNIX) as inherited:
        inherited.bind("")
        inherited.listen()
        assert isinstance(endpoint(f"fd:{inherited.fileno()}"), InheritedUNIXEndpoint)


@pytest.mark.parametrize(
    ("domain", "fault"),
    [("INET", None), ("INET6", "of domain INET$"), ("UNIX", "of domain INET$")],
)
def test_systemds_socket_is_of_the_domain_that_was_said(monkeypatch, domain, fault):
    with socket.create_server(("127.0.0.1", 0)) as handed:
        monkeypatch.setattr(
            "sockserve.listeners.endpoints.handed_descriptor", lambda *which: handed.fileno()
        )
        description = f"systemd:domain={domain}:index=0"
        if fault is None:
            assert endpoint(description).addressFamily == socket.AF_INET
        else:
            with pytest.raises(ConfigurationError, match=fault):
                endpoint(description)


def test_an_inherited_socket_must_listen():
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(ConfigurationError, match="that socket does not listen"):
        endpoint(f"fd:{ours.fileno()}")


def test_a_descriptor_that_is_no_socket_is_refused_and_not_leaked():
    read, write = os.pipe()
    try:
        before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else None
        with pytest.raises(ConfigurationError, match="listen 'fd:"):
            endpoint(f"fd:{read}")
        if before is not None:
            assert os.listdir("/proc/self/fd") == before
    finally:
        os.close(read)
        os.close(write)


# Datagrams


@pytest.mark.parametrize(
    ("description", "kind"),
    [
        ("udp:53", WildcardUDPPort),
        ("udp:53:interface=0.0.0.0", WildcardUDPPort),
        ("udp:53:interface=127.0.0.1", UDPPort),
        ("udp6:53", WildcardUDPPort),
        ("udp6:53:interface=\\:\\:1", UDPPort),
        ("udp6:53:interface=fe80\\:\\:1%lo", UDPPort),
        ("unixgram:/nowhere/s", UNIXDatagramPort),
        ("unixgram:@name", UNIXDatagramPort),
        ("UNIXGRAM:/nowhere/s", UNIXDatagramPort),
    ],
)
def test_a_datagram_description_makes_a_port_for_its_address(description, kind):
    assert type(port(description)) is kind


def test_a_port_takes_packets_of_the_servers_size():
    made = port("udp:53")
    assert made.maxPacketSize == DatagramServer.max_packet_size


@pytest.mark.parametrize("text", ["600", "0600"])
def test_the_mode_of_a_unix_socket_is_octal(text):
    assert port(f"unixgram:/nowhere/s:mode={text}").mode == 0o600


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("udp:", "it takes one port; write udp:PORT"),
        ("udp:53:54", "it takes one port; write udp:PORT"),
        ("unixgram:", "it takes one path; write unixgram:PATH"),
        ("udp:domain", "port 'domain' is not a number"),
        ("udp:65536", "port 65536 is not within 0 to 65535"),
        ("udp:53:mode=600", "unknown word 'mode'"),
        ("udp:53:interface=here", "not an IPv4 or IPv6 address"),
        ("udp6:53:interface=127.0.0.1", "'127.0.0.1' is not an IPv6 address"),
        ("unixgram:/nowhere/s:mode=rw", "mode 'rw' is not an octal number"),
        ("unixgram:@", "it takes a path, or @ and a name; write unixgram:PATH"),
        ("unixgram:/run/\0s", "a path has no NUL within it"),
        ("unixgram:@s:mode=666", "an abstract name has no mode"),
        ("unixgram:/run/" + "x" * 103, "AF_UNIX path too long: it has 108 bytes, and 107 are the"),
        ("unixgram:@" + "x" * 108, "AF_UNIX path too long: it has 108 bytes, and 107 are the most"),
        ("unixgram:s:mode=10000", "mode 10000 is not within 0 to 7777; write unixgram:PATH"),
        ("unixgram:s:mode=-1", "mode -1 is not within 0 to 7777; write unixgram:PATH"),
        ("unixgram:s:mode=", "mode '' is not an octal number; write unixgram:PATH"),
        ("udp:53\\", "a backslash at its end has nothing to quote; write udp:PORT"),
        ("UDP:-1", "port -1 is not within 0 to 65535; write udp:PORT"),
        ("udp:-1", "port -1 is not within 0 to 65535"),
        ("udp6:65536", "port 65536 is not within 0 to 65535"),
        ("udp:+53", "port '+53' is not a number"),
        ("udp:\u0668", "port '\u0668' is not a number"),
        ("udp:53:interface=lo", "'lo' is not an IPv4 or IPv6 address; write udp:PORT"),
        ("udp:53:interface=a\0b", "'a\\x00b' is not an IPv4 or IPv6 address"),
        ("udp6:53:interface=", "'' is not an IPv6 address"),
        (
            "udp6:53:interface=fe80\\:\\:1",
            "interface 'fe80::1' is link-local and needs its zone, as",
        ),
        (
            "udp:53:interface=fe80\\:\\:1",
            "interface 'fe80::1' is link-local and needs its zone, as",
        ),
        (
            "udp6:53:interface=fe80\\:\\:1%no-such",
            "there is no zone 'no-such'; this machine has lo",
        ),
    ],
)
def test_a_wrong_datagram_description_is_one_line_that_names_it(description, message):
    with pytest.raises(ConfigurationError) as caught:
        port(description)
    text = str(caught.value)
    assert text.startswith(f"listen {description!r}: ")
    assert message in text
    assert "\n" not in text
