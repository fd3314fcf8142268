"""Ports of datagram listeners, over a socket in memory: what they read, and where answers leave."""

import errno
import os
import socket
import struct
import threading

import pytest
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock

from sockserve.listeners.datagram_ports import (
    DatagramReply,
    ReplySocket,
    UDPPort,
    UNIXDatagramPort,
    WildcardUDPPort,
)

PEER = ("192.0.2.7", 5300)
SIZE = 100
#: What Linux tells of a packet that came to 203.0.113.9 on interface 2, routed by 10.0.0.1.
PKTINFO = struct.pack("I4s4s", 2, socket.inet_aton("10.0.0.1"), socket.inet_aton("203.0.113.9"))


class MemorySocket:
    """
    A socket that receives what a test says.

    @ivar arrivals: packets or errors, in their order; then there is nothing.
    """

    def __init__(self, *arrivals, ancillary=()):
        self.arrivals = list(arrivals)
        self.ancillary = list(ancillary)
        self.sent = []
        self.error = None

    def recvfrom(self, size, flags):
        assert flags == socket.MSG_DONTWAIT
        arrival = self.arrivals.pop(0) if self.arrivals else BlockingIOError(errno.EAGAIN, "none")
        if isinstance(arrival, OSError):
            raise arrival
        return arrival[:size], PEER

    def recvmsg(self, size, space, flags):
        data, address = self.recvfrom(size, flags)
        return data, self.ancillary, 0, address

    def sendmsg(self, buffers, ancillary, flags, address):
        if self.error is not None:
            raise self.error
        self.sent.append((b"".join(buffers), ancillary, flags, address))


class Receiver:
    """A datagram server that has had enough after a number of packets."""

    def __init__(self, enough=10**9):
        self.enough = enough
        self.packets = []

    def received(self, data, address, arrived_at):
        self.packets.append((data, address, arrived_at))
        return len(self.packets) < self.enough


def make_port(sock, receiver, port_class=UDPPort):
    port = port_class(0, receiver, "", SIZE, MemoryReactorClock())
    port.socket = sock
    return port


BOTH = pytest.mark.parametrize("port_class", [UDPPort, WildcardUDPPort])


@BOTH
def test_a_port_reads_until_nothing_is_left(port_class):
    receiver = Receiver()
    make_port(MemorySocket(b"one", b"", b"three"), receiver, port_class).doRead()
    assert [packet[:2] for packet in receiver.packets] == [
        (b"one", PEER),
        (b"", PEER),
        (b"three", PEER),
    ]


@BOTH
def test_a_port_stops_reading_when_the_server_has_enough(port_class):
    sock, receiver = MemorySocket(b"1", b"2", b"3"), Receiver(enough=2)
    make_port(sock, receiver, port_class).doRead()
    assert len(receiver.packets) == 2
    assert sock.arrivals == [b"3"]


@BOTH
def test_a_port_gives_way_to_others_after_64_packets(port_class):
    sock, receiver = MemorySocket(*[b"x"] * 65), Receiver()
    port = make_port(sock, receiver, port_class)
    port.doRead()
    assert len(receiver.packets) == 64
    port.doRead()
    assert len(receiver.packets) == 65


@BOTH
def test_a_packet_that_is_too_long_is_told_from_one_of_the_greatest_size(port_class):
    receiver = Receiver()
    arrivals = [b"x" * SIZE, b"x" * (SIZE + 1), b"x" * (SIZE + 50)]
    make_port(MemorySocket(*arrivals), receiver, port_class).doRead()
    assert [len(data) for data, *_ in receiver.packets] == [SIZE, SIZE + 1, SIZE + 1]


@BOTH
def test_an_answer_that_was_not_delivered_does_not_end_the_reading(port_class):
    receiver = Receiver()
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    make_port(MemorySocket(refused, b"next"), receiver, port_class).doRead()
    assert [data for data, *_ in receiver.packets] == [b"next"]


@BOTH
def test_any_other_error_is_the_reactors(port_class):
    port = make_port(MemorySocket(OSError(errno.EIO, "broken")), Receiver(), port_class)
    with pytest.raises(OSError, match="broken"):
        port.doRead()


def test_only_a_wildcard_port_notes_where_a_packet_came_to():
    pktinfo = (socket.IPPROTO_IP, getattr(socket, "IP_PKTINFO", 8), PKTINFO)
    for port_class, noted in ((UDPPort, False), (WildcardUDPPort, True)):
        receiver = Receiver()
        make_port(MemorySocket(b"q", ancillary=[pktinfo]), receiver, port_class).doRead()
        arrived_at = receiver.packets[0][2]
        assert (arrived_at is not None) is noted


def test_an_answer_leaves_from_the_address_by_any_interface():
    """The source is kept; interface and destination are zero, so that the route decides."""
    kind = getattr(socket, "IP_PKTINFO", 8)
    other = (socket.SOL_SOCKET, 29, b"a time stamp")
    receiver = Receiver()
    sock = MemorySocket(b"q", ancillary=[other, (socket.IPPROTO_IP, kind, PKTINFO)])
    make_port(sock, receiver, WildcardUDPPort).doRead()
    ((level, received_kind, data),) = receiver.packets[0][2]
    assert (level, received_kind) == (socket.IPPROTO_IP, kind)
    assert struct.unpack("I4s4s", data) == (0, socket.inet_aton("10.0.0.1"), b"\0" * 4)


def test_the_address_of_an_ipv6_packet_is_sent_back_as_it_came():
    pktinfo = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, b"\1" * 20)
    receiver = Receiver()
    make_port(MemorySocket(b"q", ancillary=[pktinfo]), receiver, WildcardUDPPort).doRead()
    assert receiver.packets[0][2] == [pktinfo]


# Answers


def test_a_reply_counts_what_it_sends_and_names_where_it_leaves_from():
    sock = MemorySocket()
    reply = DatagramReply(sock, [("where", "it", b"came to")], PEER)
    assert reply.sendto(b"four", PEER) == 4
    assert reply.sendto(b"", PEER) == 0
    assert reply.sent == 4
    assert sock.sent[0] == (b"four", [("where", "it", b"came to")], socket.MSG_DONTWAIT, PEER)


@pytest.mark.parametrize("error", [BlockingIOError(), ConnectionRefusedError()])
def test_an_answer_that_the_kernel_does_not_take_is_lost(error):
    sock = MemorySocket()
    sock.error = error
    assert DatagramReply(sock, [()], PEER).sendto(b"four", PEER) == 4


#: What a client can bring about, or the way to it.
LOST = [
    *(errno.ENOENT, errno.ENOTDIR, errno.EPROTOTYPE, errno.EACCES, errno.EPERM, errno.EPIPE),
    *(errno.EINVAL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNRESET),
]


@pytest.mark.parametrize("number", LOST, ids=errno.errorcode.get)
def test_an_answer_that_does_not_reach_its_client_is_lost(number):
    """But what is sent to others is the handler's own affair."""
    sock = MemorySocket()
    sock.error = OSError(number, "cannot")
    reply = DatagramReply(sock, [()], PEER)
    assert reply.sendto(b"four", PEER) == 4
    with pytest.raises(OSError, match="cannot"):
        reply.sendto(b"four", ("192.0.2.8", 5300))


@pytest.mark.parametrize("nobody", [None, ""])
def test_nothing_is_sent_to_a_client_without_an_address(nobody):
    sock = MemorySocket()
    reply = DatagramReply(sock, [()], nobody)
    assert reply.sendto(b"four", nobody) == 4
    assert (reply.sent, sock.sent) == (0, [])
    assert reply.sendto(b"four", PEER) == 4  # another, whom the handler knows
    assert reply.sent == 4


def test_an_answer_that_the_system_refuses_raises():
    sock = MemorySocket()
    sock.error = OSError(errno.EMSGSIZE, "too long")
    reply = DatagramReply(sock, [()], PEER)
    with pytest.raises(OSError, match="too long"):
        reply.sendto(b"x" * 70000, PEER)
    assert reply.sent == 0


def test_a_replying_thread_answers_from_where_its_request_came_to(monkeypatch):
    """Another thread of the same socket has nothing set, and sends as any socket does."""
    sent = []
    monkeypatch.setattr(ReplySocket, "sendmsg", lambda self, *arguments: sent.append(arguments))
    with ReplySocket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.bind(("127.0.0.1", 0))
        ours.replying.arrived_at = "where it came to"
        ours.sendto(b"one", PEER)
        ours.sendto(b"two", 7, PEER)
        assert sent == [
            ([b"one"], "where it came to", 0, PEER),
            ([b"two"], "where it came to", 7, PEER),
        ]
        sizes = []
        thread = threading.Thread(
            target=lambda: sizes.append(ours.sendto(b"plain", ours.getsockname()))
        )
        thread.start()
        thread.join()
        assert (sizes, len(sent)) == ([5], 2)


@pytest.fixture
def replying(monkeypatch):
    """
    A socket whose thread serves a request of C{PEER}'s.  What it sends, with its flags, goes to
    C{sent}, unless C{errors} has something for it.
    """

    def send(self, data, flags, address):
        sock.sent.append((data, flags, address))
        if sock.errors:
            raise sock.errors.pop(0)
        return len(data)

    class Memory(ReplySocket):
        """With room for what the test keeps."""

    monkeypatch.setattr(ReplySocket, "_send", send)
    with Memory(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sent, sock.errors = [], []
        sock.replying.client_address = PEER
        yield sock


FULL = BlockingIOError(errno.EAGAIN, "full")


@pytest.mark.parametrize("number", LOST, ids=errno.errorcode.get)
def test_a_threads_answer_that_does_not_reach_its_client_is_lost(replying, number):
    replying.errors = [OSError(number, "cannot"), OSError(number, "cannot")]
    assert replying.sendto(b"four", PEER) == 4
    with pytest.raises(OSError, match="cannot"):
        replying.sendto(b"four", "/run/other")


def test_a_threads_answer_that_the_system_refuses_raises(replying):
    replying.errors = [OSError(errno.EMSGSIZE, "too long")]
    with pytest.raises(OSError, match="too long"):
        replying.sendto(b"four", PEER)


@pytest.mark.parametrize("nobody", [None, ""])
def test_a_thread_sends_nothing_to_a_client_without_an_address(replying, nobody):
    replying.replying.client_address = nobody
    assert replying.sendto(b"four", nobody) == 4
    assert replying.sendto(memoryview(b"four"), 0, nobody) == 4
    assert replying.sent == []


def test_a_client_that_does_not_read_is_not_waited_for_twice(replying):
    """Until an answer finds room again."""
    replying.errors = [FULL, FULL]
    for data in (b"1", b"2", b"3", b"4"):
        assert replying.sendto(data, PEER) == 1
    waits = [not flags & socket.MSG_DONTWAIT for _, flags, _ in replying.sent]
    assert waits == [True, False, False, True]


def test_only_so_many_clients_that_do_not_read_are_remembered(replying):
    for number in range(1001):
        replying.replying.client_address = ("192.0.2.7", number)
        replying.errors = [FULL]
        replying.sendto(b"x", ("192.0.2.7", number))
    for number, waits in ((1000, False), (999, True)):
        replying.replying.client_address = ("192.0.2.7", number)
        replying.sendto(b"x", ("192.0.2.7", number))
        assert bool(replying.sent[-1][1] & socket.MSG_DONTWAIT) is not waits


def test_whoever_is_no_client_is_waited_for(replying):
    replying.errors = [FULL, FULL]
    assert replying.sendto(b"x", "/run/other") == 1
    assert len(replying.sent) == 3
    replying.errors = [FULL]
    with pytest.raises(BlockingIOError):
        replying.sendto(b"x", socket.MSG_DONTWAIT, "/run/other")
    replying.settimeout(0)
    replying.errors = [FULL]
    with pytest.raises(BlockingIOError):
        replying.sendto(b"x", "/run/other")


def test_wrong_arguments_are_wrong_as_in_the_standard_library(replying):
    for arguments in ((), (0, PEER, 1)):
        with pytest.raises(TypeError, match="sendto"):
            replying.sendto(b"x", *arguments)


# IPv6


@pytest.mark.parametrize("zone", ["", "%lo", f"%{socket.if_nametoindex('lo')}"])
def test_a_port_is_bound_to_the_interface_of_a_zone(monkeypatch, zone):
    bound = []
    monkeypatch.setattr(ReplySocket, "bind", lambda self, address: bound.append(address))
    port = UDPPort(5300, Receiver(), f"fe80::1{zone}", SIZE, MemoryReactorClock())
    port._bindSocket()
    port.socket.close()
    assert bound == [("fe80::1", 5300, 0, socket.if_nametoindex("lo") if zone else 0)]


@pytest.mark.parametrize(("host", "reason"), [("fe80::1%no such", "interface"), ("::2", "assign")])
def test_an_address_that_is_not_here_is_refused(host, reason):
    port = UDPPort(0, Receiver(), host, SIZE, MemoryReactorClock())
    with pytest.raises(CannotListenError, match=reason):
        port._bindSocket()


# UNIX sockets


@pytest.fixture
def unix_port(tmp_path):
    class Silent(Receiver):
        def makeConnection(self, port):
            """As Twisted's protocol."""

        def doStop(self):
            """As Twisted's protocol."""

    sockets = []

    class Port(UNIXDatagramPort):
        def createInternetSocket(self):
            sockets.append(super().createInternetSocket())
            return sockets[-1]

    def listen(name):
        port = Port(str(name), Silent(), SIZE, 0o600, MemoryReactorClock())
        port._bindSocket()
        return port

    yield listen
    for sock in sockets:  # also those that could not be bound, which Twisted leaves open
        sock.close()


def test_a_name_that_no_process_listens_on_is_taken_over(tmp_path, unix_port):
    name = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stale:
        stale.bind(str(name))
    port = unix_port(name)
    assert port.socket.gettimeout() is None
    assert os.path.exists(name)


def test_a_name_that_is_listened_on_is_left_alone(tmp_path, unix_port):
    name = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(name))
        with pytest.raises(CannotListenError):
            unix_port(name)
        assert os.path.exists(name)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path, unix_port):
    name = tmp_path / "s"
    name.write_text("precious")
    with pytest.raises(CannotListenError):
        unix_port(name)
    assert name.read_text() == "precious"
