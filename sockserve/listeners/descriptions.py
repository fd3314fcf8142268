"""
Descriptions: the texts that say where to listen, taken apart into words, each of them checked.

This room owns how each kind is written, and the message about a word that is not as it must be.
It must not know endpoints, ports or certificates.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping

from twisted.internet import endpoints

from sockserve.core.addresses import scope_of
from sockserve.core.messages import nearest
from sockserve.core.places import quoted
from sockserve.interfaces import SockserveError

__all__ = [
    "FORMS",
    "MAX_PORT",
    "STREAM_FORMS",
    "WordError",
    "check_interface",
    "check_words",
    "form_of",
    "kind_of",
    "mode_bits",
    "parse",
    "whole_number",
    "words_of",
]

#: How the descriptions of datagram listeners are written, by kind.
FORMS = {
    "udp": "udp:PORT[:interface=ADDRESS]",
    "udp6": "udp6:PORT[:interface=ADDRESS]",
    "unixgram": "unixgram:PATH[:mode=OCTAL] or unixgram:@NAME",
}
#: How those of stream listeners are written.
STREAM_FORMS = {
    "tcp": "tcp:PORT[:interface=ADDRESS][:backlog=NUMBER]",
    "tcp6": "tcp6:PORT[:interface=ADDRESS][:backlog=NUMBER]",
    "unix": "unix:PATH[:mode=OCTAL][:backlog=NUMBER][:lockfile=0] or unix:@NAME",
    "ssl": "ssl:PORT:privateKey=FILE:certKey=FILE[:interface=ADDRESS]",
    "tls": "tls:PORT:DIRECTORY[:interface=ADDRESS]",
    "systemd": "systemd:domain=INET:index=NUMBER or systemd:domain=INET:name=NAME",
}
#: The words of these, in the order in which their values may come without them; the first must be
#: there.  (Those of C{tls} that come without may change places.)
_WORDS: Mapping[str, tuple[str, ...]] = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "backlog", "interface"),
    "unix": ("address", "mode", "backlog", "lockfile"),
    "ssl": ("port", "privateKey", "certKey", "sslmethod", "interface", "backlog", "extraCertChain",
            "dhParameters"),
    "tls": ("path", "port", "backlog", "interface"),
    "systemd": ("domain", "index", "name"),
}  # fmt: skip

#: The highest port of TCP and UDP, which have 16 bits for it.
MAX_PORT = 2**16 - 1
_MAX_MODE = 0o7777
#: What C{listen} takes: a C{int} of C's.
_MAX_BACKLOG = 2**31 - 1


class WordError(SockserveError, ValueError):
    """A description that is not written as its kind is: the message wants the form behind it."""


def parse(description: str) -> tuple[list[str], dict[str, str]]:
    """
    Split a description into its arguments, kind first, and its C{name=value} words.

    @raise WordError: it ends in the middle of what is quoted.
    """
    # Twisted's own quoting rules; the function has had this name since 10.2.
    try:
        parsed: tuple[list[str], dict[str, str]] = endpoints._parse(description)
    except RuntimeError:
        raise WordError("a backslash at its end has nothing to quote") from None
    return parsed


def kind_of(description: str) -> str:
    """The kind that a description begins with, whose case does not matter."""
    return description.partition(":")[0].lower()


def form_of(kind: str) -> str:
    """How a description of that kind is written, to be put behind a message; perhaps nothing."""
    form = STREAM_FORMS.get(kind)
    return f"; write {form}" if form else ""


def words_of(kind: str, description: str) -> dict[str, str]:
    """
    The values of a stream description by word, also of those that come without their words.  Of
    a kind that is a plugin's: those that come with them.

    @raise WordError: a word is unknown or missing, or there are too many values.
    """
    (_, *arguments), words = parse(description)
    if kind not in _WORDS:
        return words
    names = _WORDS[kind]
    if kind == "tls" and len(arguments) == 2:
        first, _ = arguments
        if first.removeprefix("-").isdecimal():
            arguments.reverse()
    _check_colons(description)
    for word in words:
        if word not in names:
            raise WordError(f"unknown word {word!r}{nearest(word, names)}")
    found = dict(zip(names, arguments, strict=False))
    surplus = [*arguments[len(names) :], *(found[word] for word in found if word in words)]
    if surplus:
        shown = ", ".join(map(repr, surplus))
        raise WordError(f"no word takes {shown} (a colon within a value is written \\:)")
    found |= words
    if names[0] not in found:
        raise WordError(f"{names[0]} is missing")
    return found


def _check_colons(description: str) -> None:
    """
    Check that no address of IPv6 has been written with its colons as they are.

    @raise WordError: one has; the message says how to write it.
    """
    _, interface, rest = description.partition("interface=")
    if not interface:
        rest = description.partition(":")[2].partition(":")[2]
    bare = rest.partition("=")[0]
    if bare != rest:  # what follows is a word with a value
        bare = bare.rpartition(":")[0]
    address = bare.removeprefix("[").removesuffix("]")
    try:
        is_ipv6 = ipaddress.ip_address(address.partition("%")[0]).version == 6
    except ValueError:
        return
    if is_ipv6:
        raise WordError(f"a colon within a value is written \\:, so interface={quoted(address)}")


def check_words(kind: str, words: Mapping[str, str]) -> None:
    """
    Check what the system would refuse only when the port is opened, or not at all.

    @raise ValueError: a value cannot be; the message says which.
    """
    if "backlog" in words:
        whole_number("backlog", words["backlog"], most=_MAX_BACKLOG)
    if kind not in _WORDS:  # a plugin's words have meanings of its own
        return
    if "port" in words:
        whole_number("port", words["port"], most=MAX_PORT)
    if "interface" in words:
        check_interface(words["interface"])
    if words.get("lockfile", "0") not in ("0", "1"):
        raise WordError(f"lockfile {words['lockfile']!r} is not 0 or 1")
    if "mode" in words:
        mode_bits(words["mode"])


def mode_bits(text: str) -> int:
    """
    The permissions of a UNIX socket's file.

    @param text: octal digits.
    @raise ValueError: they are none.
    """
    return whole_number("mode", text, most=_MAX_MODE, base=8)


def whole_number(name: str, text: str, *, most: int, base: int = 10) -> int:
    """
    The number that C{text} writes in ASCII digits.

    @raise WordError: it writes none.
    @raise ValueError: it is not within 0 to C{most}.
    """
    digits = text.removeprefix("-")
    try:
        if not (digits.isascii() and digits.isalnum()):  # int() takes more: spaces, + and _
            raise ValueError
        number = int(text, base)
    except ValueError:
        kind = "an octal number" if base == 8 else "a number"
        raise WordError(f"{name} {text!r} is not {kind}") from None
    if not 0 <= number <= most:
        limits = f"{most:o}" if base == 8 else most
        raise ValueError(f"{name} {text} is not within 0 to {limits}")
    return number


def check_interface(text: str) -> None:
    """
    Check the address of an C{interface} word: one of IP, a link-local one with its zone, or a name
    that leads to one; or none, for all.

    @raise ValueError: it is none of these.
    """
    if not text:
        return
    host, percent, zone = text.partition("%")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        _check_host(text)
        return
    if percent:
        _check_zone(text, zone)
    elif address.version == 6 and address.is_link_local:
        quoted = text.replace(":", "\\:")
        raise ValueError(
            f"interface {text!r} is link-local and needs its zone, as"
            f" interface={quoted}%{_zones()[-1]}"
        )


def _check_zone(text: str, zone: str) -> None:
    try:
        # A number may be that of no interface.
        known = bool(zone) and bool(socket.if_indextoname(scope_of(zone)))
    except (OSError, OverflowError, ValueError):
        known = False
    if not known:
        raise ValueError(
            f"interface {text!r}: there is no zone {zone!r}; this machine has {', '.join(_zones())}"
        )


def _check_host(text: str) -> None:
    """
    Check a name in place of an address.

    @raise ValueError: it leads to no address.
    """
    wanted = "write one of this machine's addresses, such as 127.0.0.1"
    if text in _zones():
        raise ValueError(
            f"interface {text!r} is not an address, but the name of a network interface; {wanted}"
        )
    try:
        socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):  # a NUL in it, or no way to write it in the DNS, is the latter
        raise ValueError(f"interface {text!r} is not an address; {wanted}") from None


def _zones() -> list[str]:
    """The names of this machine's network interfaces."""
    return [name for _, name in socket.if_nameindex()] or ["eth0"]
