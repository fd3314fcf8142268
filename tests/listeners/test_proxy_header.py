"""The header of the PROXY protocol: what is one, and what is not (HAProxy's proxy-protocol.txt)."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockserve.interfaces import PeerError
from sockserve.listeners.proxy_header import ProxyHeader, ProxyHeaderError, parse_proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = b"\x20", b"\x21"
TCP4, UDP4, TCP6, UDP6, UNIX = b"\x11", b"\x12", b"\x21", b"\x22", b"\x31"
NOTHING = ProxyHeader(None, None)

IPV4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("192.0.2.80") + struct.pack("!HH", 4711, 80)
IPV4_SEEN = ProxyHeader(("192.0.2.7", 4711), ("192.0.2.80", 80))


def ipv6(source: str, destination: str = "2001:db8::80") -> bytes:
    hosts = [socket.inet_pton(socket.AF_INET6, host) for host in (source, destination)]
    return b"".join(hosts) + struct.pack("!HH", 4711, 80)


def unix(source: bytes, destination: bytes = b"/run/s") -> bytes:
    return source.ljust(108, b"\0") + destination.ljust(108, b"\0")


def version_2(command: bytes, kind: bytes, *rest: bytes) -> bytes:
    content = b"".join(rest)
    return SIGNATURE + command + kind + struct.pack("!H", len(content)) + content


def vector(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


RIGHT = [
    (b"PROXY TCP4 192.0.2.7 192.0.2.80 4711 80\r\n", IPV4_SEEN),
    (b"PROXY TCP4 0.0.0.0 255.0.0.255 0 65535\r\n", (("0.0.0.0", 0), ("255.0.0.255", 65535))),
    (
        b"PROXY TCP6 2001:db8::7 2001:DB8:0:0::0050 4711 80\r\n",
        (("2001:db8::7", 4711, 0, 0), ("2001:db8::50", 80, 0, 0)),
    ),
    # IPv4 clients of a dual-stack front.
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:c000:250 4711 80\r\n", IPV4_SEEN),
    (version_2(PROXY, TCP6, ipv6("::ffff:192.0.2.7", "::ffff:192.0.2.80")), IPV4_SEEN),
    # The longest of each kind.
    (
        b"PROXY TCP6" + b" ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" * 2 + b" 65535 65535\r\n",
        (("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535, 0, 0),) * 2,
    ),
    (
        b"PROXY UNKNOWN" + b" ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" * 2 + b" 65535 65535\r\n",
        NOTHING,
    ),
    (b"PROXY UNKNOWN\r\n", NOTHING),
    (b"PROXY UNKNOWN whatever  this\tis\xff\r\n", NOTHING),
    (version_2(PROXY, TCP4, IPV4), IPV4_SEEN),
    (version_2(PROXY, UDP4, IPV4), IPV4_SEEN),
    (
        version_2(PROXY, TCP6, ipv6("2001:db8::7")),
        (("2001:db8::7", 4711, 0, 0), ("2001:db8::80", 80, 0, 0)),
    ),
    (
        version_2(PROXY, UDP6, ipv6("::1", "::")),
        (("::1", 4711, 0, 0), ("::", 80, 0, 0)),
    ),
    (version_2(PROXY, UNIX, unix(b"/run/c")), (b"/run/c", b"/run/s")),
    (version_2(PROXY, b"\x32", unix(b"/run/c\0rubbish")), (b"/run/c", b"/run/s")),
    (version_2(PROXY, UNIX, unix(b"\0abstract")), (b"\0abstract", b"/run/s")),
    (version_2(PROXY, UNIX, unix(b"", b"x" * 108)), (b"", b"x" * 108)),
    # The proxy's own connections: nothing else counts, whatever it is.
    (version_2(LOCAL, b"\0"), NOTHING),
    (version_2(LOCAL, TCP4, IPV4), NOTHING),
    (version_2(LOCAL, b"\xff", b"no addresses, and no vectors"), NOTHING),
    # Not specified: the addresses are not to be looked at.
    (version_2(PROXY, b"\0"), NOTHING),
    (version_2(PROXY, b"\0", b"whatever this is"), NOTHING),
    (version_2(PROXY, b"\x10", IPV4), NOTHING),
    (version_2(PROXY, b"\x01", IPV4), NOTHING),
    # Vectors.
    (version_2(PROXY, TCP4, IPV4, vector(0x04, b"")), IPV4_SEEN),
    (version_2(PROXY, TCP4, IPV4, vector(0x02, b"a.org"), vector(0xE0, b"x" * 300)), IPV4_SEEN),
    (version_2(PROXY, UNIX, unix(b"/run/c"), vector(0x05, b"id")), (b"/run/c", b"/run/s")),
    (version_2(PROXY, TCP4, IPV4, vector(0xEE, b"x" * (65535 - 15))), IPV4_SEEN),
    (version_2(LOCAL, b"\0", b"x" * 65535), NOTHING),
]  # fmt: skip


@pytest.mark.parametrize(("header", "seen"), RIGHT, ids=lambda value: repr(value)[:50])
def test_a_right_header_ends_where_it_says(header: bytes, seen: ProxyHeader) -> None:
    assert parse_proxy_header(header) == (seen, len(header))
    assert parse_proxy_header(header + b"\r\nGET /") == (seen, len(header))
    ends = {*range(min(len(header), 300)), len(header) - 2, len(header) - 1}
    assert {parse_proxy_header(header[:end]) for end in ends} == {None}


def wrong_line(line: bytes, reason: str) -> tuple[bytes, str]:
    return b"PROXY " + line + b"\r\n", reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "no header"),
        (b"proxy TCP4 192.0.2.7 192.0.2.80 4711 80\r\n", "no header"),
        (b"PROXYTCP4", "no header"),
        (b"PROXY\r\n", "no header"),
        (b"\r\n\r\nGET", "no header"),
        (b"\0", "no header"),
        wrong_line(b"", "the family"),
        wrong_line(b" TCP4 192.0.2.7 192.0.2.80 4711 80", "the family"),
        wrong_line(b"tcp4 192.0.2.7 192.0.2.80 4711 80", "the family"),
        wrong_line(b"UDP4 192.0.2.7 192.0.2.80 4711 80", "the family"),
        wrong_line(b"UNKNOWNS", "the family"),
        wrong_line(b"UNKNOWN\n", "the family"),
        wrong_line(b"TCP4", "two addresses and two ports"),
        wrong_line(b"TCP4 192.0.2.7 192.0.2.80 4711", "two addresses and two ports"),
        wrong_line(b"TCP4 192.0.2.7 192.0.2.80 4711 80 ", "two addresses and two ports"),
        wrong_line(b"TCP4 192.0.2.7 192.0.2.80 4711 80 more", "two addresses and two ports"),
        wrong_line(b"TCP4  192.0.2.7 192.0.2.80 4711 80", "two addresses and two ports"),
        wrong_line(b"TCP4\t192.0.2.7 192.0.2.80 4711 80", "the family"),
        # Addresses, of the right family.
        wrong_line(b"TCP4 192.0.2.256 192.0.2.80 4711 80", "none of TCP4"),
        wrong_line(b"TCP4 192.0.2 192.0.2.80 4711 80", "none of TCP4"),
        wrong_line(b"TCP4 192.0.2.07 192.0.2.80 4711 80", "none of TCP4"),
        wrong_line(b"TCP4 192.0.2.7 010.0.2.80 4711 80", "none of TCP4"),
        wrong_line(b"TCP4 3221225991 192.0.2.80 4711 80", "none of TCP4"),
        wrong_line(b"TCP4 192.0.2.7/32 192.0.2.80 4711 80", "none of TCP4"),
        wrong_line(b"TCP4 ::1 ::1 4711 80", "none of TCP4"),
        wrong_line(b"TCP4 ::ffff:192.0.2.7 192.0.2.80 4711 80", "none of TCP4"),
        wrong_line(b"TCP4 192.0.2.7 ::1 4711 80", "none of TCP4"),
        wrong_line(b"TCP4 192.0.2.\xb2 192.0.2.80 4711 80", "none of TCP4"),
        wrong_line(b"TCP6 192.0.2.7 192.0.2.80 4711 80", "none of TCP6"),
        wrong_line(b"TCP6 ::1 192.0.2.80 4711 80", "none of TCP6"),
        wrong_line(b"TCP6 1::2::3 ::1 4711 80", "none of TCP6"),
        wrong_line(b"TCP6 00001::2 ::1 4711 80", "none of TCP6"),
        wrong_line(b"TCP6 fe80::1%eth0 ::1 4711 80", "none of TCP6"),
        wrong_line(b"TCP6 ::ffff:192.0.2.07 ::1 4711 80", "none of TCP6"),
        wrong_line(b"TCP6 [::1] ::1 4711 80", "none of TCP6"),
        # Ports.
        *(
            wrong_line(b"TCP4 192.0.2.7 192.0.2.80 " + ports, "a port")
            for ports in (
                b"65536 80",
                b"4711 65536",
                b"-1 80",
                b"+1 80",
                b"4711 080",
                b"00 80",
                b"0x50 80",
                b"many 80",
                b" 80",
                b"4_7 80",
                b"99999999999 80",
                b"4711 80\n",
                b"4711 80\r",
            )
        ),
        # A line that ends otherwise, or too late.
        (b"PROXY UNKNOWN" + b"." * 94, "at most 107 bytes"),
        (b"PROXY UNKNOWN" + b"." * 93 + b"\r\n", "at most 107 bytes"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.80 4711 80\n" + b"." * 90, "at most 107 bytes"),
        # Version 2.
        (SIGNATURE + b"\x11" + TCP4 + b"\0\x0c" + IPV4, "not version 2"),
        (SIGNATURE + b"\x22" + TCP4 + b"\0\x0c" + IPV4, "not version 2"),
        (SIGNATURE + b"\x31\0\0\0", "not version 2"),
        (version_2(PROXY, b"\x13", IPV4), "family or transport"),
        (version_2(PROXY, b"\x41", IPV4), "family or transport"),
        (version_2(PROXY, b"\xf0"), "family or transport"),
        (version_2(PROXY, b"\x0f"), "family or transport"),
        (version_2(PROXY, TCP4), "too short"),
        (version_2(PROXY, TCP4, IPV4[:-1]), "too short"),
        (version_2(PROXY, TCP6, IPV4), "too short"),
        (version_2(PROXY, UNIX, ipv6("::1")), "too short"),
        (version_2(PROXY, TCP4, IPV4, b"\x04"), "a vector"),
        (version_2(PROXY, TCP4, IPV4, b"\x04\0"), "a vector"),
        (version_2(PROXY, TCP4, IPV4, b"\x04\0\x01"), "a vector"),
        (version_2(PROXY, TCP4, IPV4, vector(4, b"x")[:-1]), "a vector"),
        (version_2(PROXY, TCP4, IPV4, vector(4, b"x"), b"\x04\xff\xff."), "a vector"),
        (version_2(PROXY, TCP4, IPV4, vector(3, b"\0" * 4)), "checksum"),
        (version_2(PROXY, TCP4, IPV4, vector(3, b"\0" * 5)), "checksum"),
        (version_2(PROXY, TCP4, IPV4, vector(3, b"")), "checksum"),
    ],
)
def test_what_is_none_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ProxyHeaderError, match=reason) as refused:
        parse_proxy_header(data)
    assert isinstance(refused.value, PeerError)
    assert "\n" not in str(refused.value)


def test_a_header_that_cannot_become_right_is_refused_before_it_is_whole() -> None:
    for data in (b"P\r", SIGNATURE[:5] + b"x", version_2(PROXY, TCP4, b"")[:16]):
        with pytest.raises(ProxyHeaderError):
            parse_proxy_header(data)


def crc32c(data: bytes) -> int:
    """Bit by bit, as RFC 9260, appendix A, describes it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_the_checksum_is_that_of_the_header_without_it() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    for after in (b"", vector(2, b"a.example")):
        without = version_2(PROXY, TCP4, IPV4, vector(3, bytes(4)), after)
        place = 16 + len(IPV4) + 3
        checksum = struct.pack("!I", crc32c(without))
        whole = without[:place] + checksum + without[place + 4 :]
        assert parse_proxy_header(whole) == (IPV4_SEEN, len(whole))
        for broken in (16, 27, place, place + 3):
            changed = whole[:broken] + bytes([whole[broken] ^ 1]) + whole[broken + 1 :]
            with pytest.raises(ProxyHeaderError, match="a wrong checksum"):
                parse_proxy_header(changed)


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE + b"\x21"])
)
def test_no_bytes_do_any_harm(data: bytes, beginning: bytes) -> None:
    data = beginning + data
    try:
        parsed = parse_proxy_header(data)
    except ProxyHeaderError:
        return
    if parsed is not None:
        assert 0 < parsed[1] <= len(data)
