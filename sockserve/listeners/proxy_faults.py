"""
Faults of PROXY headers, in words.

This room owns what is said about a header that was refused.  It must not know whether one is.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

__all__ = ["header_fault"]

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

#: The longest header of version 1, with its line's end.
_MAX_V1_BYTES = 107

#: How many bytes of addresses there are at least, in version 2, by family and transport.
_ADDRESS_BYTES = {0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}


def header_fault(header: bytes) -> str:
    """
    What is wrong with a header that was refused.

    @param header: what has come of it, and perhaps more.
    @return: a few words, the same for many of a kind, with none of the client's in it.
    """
    if header.startswith(_SIGNATURE[:1]) and _SIGNATURE.startswith(header[:12]):
        return _fault_of_version_2(header)
    if header.startswith(b"PROXY"):
        return _fault_of_version_1(header)
    if header.startswith(b"\x16\x03"):
        return "TLS in place of a header"
    return "no header"


def _fault_of_version_1(header: bytes) -> str:
    line, end, _ = header.partition(b"\r\n")
    if not end or len(line) > _MAX_V1_BYTES - 2:
        return "no line of 107 bytes or less"
    words = line.split(b" ")
    if len(words) < 2 or words[1] not in (b"TCP4", b"TCP6", b"UNKNOWN"):
        return "unknown protocol"
    if len(words) != 6:
        return "not two addresses and two ports"
    kind = IPv4Address if words[1] == b"TCP4" else IPv6Address
    for word in words[2:4]:
        try:
            kind(word.decode("ascii"))
        except ValueError:
            return f"an address that is not one of {words[1].decode()}"
    return "a port that is none"


def _fault_of_version_2(header: bytes) -> str:
    if len(header) < 16:
        return "no whole header"
    version, command = header[12] >> 4, header[12] & 15
    if version != 2:
        return "unknown version"
    if command not in (0, 1):
        return "unknown command"
    if command == 1 and header[13] and header[13] not in _ADDRESS_BYTES:
        return "unknown family or transport"
    if int.from_bytes(header[14:16], "big") < _ADDRESS_BYTES.get(header[13], 0):
        return "too short for its addresses"
    return "malformed"
