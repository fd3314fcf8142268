"""
The header of the PROXY protocol, versions 1 and 2, read from bytes.

This room owns what a right header is: HAProxy's specification, doc/proxy-protocol.txt, to the
letter.  It must not know connections, nor who is believed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, TypeAlias

from sockserve.core.addresses import canonical_address
from sockserve.interfaces import PeerError

__all__ = ["HeaderAddress", "ProxyHeader", "ProxyHeaderError", "parse_proxy_header"]

_V1_PREFIX = b"PROXY "
_V2_PREFIX = b"\r\n\r\n\0\r\nQUIT\n"

#: How a client of TLS begins: a handshake of version 1.x or 3.0.
_TLS_PREFIX = b"\x16\x03"

#: The longest header of version 1, its CRLF included (section 2.1).
_V1_BYTES = 107
#: What comes before the addresses in version 2: signature, version and command, family and
#: transport, length of the rest (section 2.2).
_V2_FIXED_BYTES = 16
_VERSION_2_LOCAL = 0x20
_VERSION_2_PROXY = 0x21
#: The families of version 2 that have addresses: how these are packed.
_LAYOUTS = {
    1: struct.Struct("!4s4sHH"),
    2: struct.Struct("!16s16sHH"),
    3: struct.Struct("!108s108s"),
}
_UNIX = 3
_HIGHEST_FAMILY = 3
#: 0, unspecified; 1, stream; 2, datagram.
_HIGHEST_TRANSPORT = 2
_TLV_HEADER = struct.Struct("!BH")
_CHECKSUM_TYPE = 0x03  # PP2_TYPE_CRC32C
_CHECKSUM = struct.Struct("!I")


#: An address in a header: of IP as L{canonical_address} has it, else the bytes of the name of a
#: UNIX socket, which may be none.
HeaderAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | bytes


class ProxyHeaderError(PeerError):
    """The first bytes of a connection are no PROXY header; the message says what is wrong."""


class ProxyHeader(NamedTuple):
    """
    The addresses in a header; it may have none, and the connection is the proxy's own.

    @ivar source: the client's address.
    @ivar destination: the address that the client connected to, likewise.
    """

    source: HeaderAddress | None = None
    destination: HeaderAddress | None = None


def parse_proxy_header(data: bytes | bytearray) -> tuple[ProxyHeader, int] | None:
    """
    Read the header that a connection begins with.

    @param data: all that has come.
    @return: the header, and its length in bytes; None while it is not whole.
    @raise ProxyHeaderError: it will never be one.
    """
    if data.startswith(_V1_PREFIX[: len(data)]):
        end = data.find(b"\r\n", 0, _V1_BYTES)
        if end >= 0:
            return _parse_line(bytes(data[:end])), end + 2
        if len(data) >= _V1_BYTES:
            raise ProxyHeaderError(f"no line of at most {_V1_BYTES} bytes")
        return None
    if data.startswith(_V2_PREFIX[: len(data)]):
        return _parse_version_2(data)
    if data.startswith(_TLS_PREFIX[: len(data)]):
        raise ProxyHeaderError("TLS in place of a header")
    raise ProxyHeaderError("no header")


# Version 1


def _parse_line(line: bytes) -> ProxyHeader:
    _, family, *words = line.split(b" ")
    if family == b"UNKNOWN":  # what follows is to be ignored
        return ProxyHeader()
    if family not in (b"TCP4", b"TCP6"):
        raise ProxyHeaderError("the family is not TCP4, TCP6 or UNKNOWN")
    if len(words) != 4:
        raise ProxyHeaderError("not two addresses and two ports")
    source, destination, source_port, destination_port = words
    return ProxyHeader(
        _parse_address(family, source, source_port),
        _parse_address(family, destination, destination_port),
    )


def _parse_address(family: bytes, host: bytes, port: bytes) -> HeaderAddress:
    try:
        text = host.decode("ascii")
        if family == b"TCP4":
            IPv4Address(text)
        elif "%" in text:
            raise ValueError(text)
        else:
            IPv6Address(text)
    except ValueError:
        raise ProxyHeaderError(f"an address that is none of {family.decode()}") from None
    if not port.isdigit() or len(port) > 5 or int(port) > 0xFFFF:
        raise ProxyHeaderError("a port that is none of 0 to 65535")
    if port.startswith(b"0") and port != b"0":
        raise ProxyHeaderError("a port with leading zeros")
    return _canonical(text, int(port))


def _canonical(host: str, port: int) -> HeaderAddress:
    canonical: HeaderAddress = canonical_address((host, port))
    return canonical


# Version 2


def _parse_version_2(data: bytes | bytearray) -> tuple[ProxyHeader, int] | None:
    if len(data) < _V2_FIXED_BYTES:
        return None
    version, kind, size = struct.unpack_from("!BBH", data, len(_V2_PREFIX))
    end = _V2_FIXED_BYTES + size
    if version == _VERSION_2_LOCAL:  # of the proxy's own; the rest is to be skipped
        return (ProxyHeader(), end) if len(data) >= end else None
    if version != _VERSION_2_PROXY:
        raise ProxyHeaderError("not version 2 with the command LOCAL or PROXY")
    family, transport = divmod(kind, 16)
    if family > _HIGHEST_FAMILY or transport > _HIGHEST_TRANSPORT:
        raise ProxyHeaderError("an unknown family or transport")
    layout = _LAYOUTS[family] if family and transport else None
    if layout is not None and size < layout.size:
        raise ProxyHeaderError("too short for its addresses")
    if len(data) < end:
        return None
    if layout is None:  # unspecified: addresses, if any, are to be ignored
        return ProxyHeader(), end
    header = bytes(data[:end])
    _check_vectors(header, _V2_FIXED_BYTES + layout.size)
    source, destination, *ports = layout.unpack_from(header, _V2_FIXED_BYTES)
    if family == _UNIX:
        return ProxyHeader(_unix_name(source), _unix_name(destination)), end
    make = IPv4Address if family == 1 else IPv6Address
    return (
        ProxyHeader(
            _canonical(str(make(source)), ports[0]),
            _canonical(str(make(destination)), ports[1]),
        ),
        end,
    )


def _unix_name(field: bytes) -> bytes:
    """The name in a field of C{sun_path}: abstract, if it begins with a NUL."""
    return field.rstrip(b"\0") if field.startswith(b"\0") else field.partition(b"\0")[0]


def _check_vectors(header: bytes, start: int) -> None:
    """
    Check the type-length-value vectors after the addresses, and the checksum if it is there.

    @raise ProxyHeaderError: they do not fill the header, or the checksum is another's.
    """
    for kind, value, length in _vectors(header, start):
        if kind == _CHECKSUM_TYPE:
            if length != _CHECKSUM.size:
                raise ProxyHeaderError("a checksum that is none")
            (checksum,) = _CHECKSUM.unpack_from(header, value)
            without = header[:value] + bytes(_CHECKSUM.size) + header[value + _CHECKSUM.size :]
            if _crc32c(without) != checksum:
                raise ProxyHeaderError("a wrong checksum")


def _vectors(header: bytes, start: int) -> Iterator[tuple[int, int, int]]:
    """Of each vector: its type, where its value is, and how long that is."""
    while start < len(header):
        value = start + _TLV_HEADER.size
        if value > len(header):
            raise ProxyHeaderError("a vector that ends after the header")
        kind, length = _TLV_HEADER.unpack_from(header, start)
        start = value + length
        if start > len(header):
            raise ProxyHeaderError("a vector that ends after the header")
        yield kind, value, length


def _crc32c_entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


#: CRC32c by table (RFC 3309, appendix B).
_CRC32C = tuple(map(_crc32c_entry, range(256)))


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
