"""
Descriptions: what C{--listen} and C{from_description} name, as endpoints and ports.

This room owns the forms that Twisted has not (C{udp:}, C{udp6:}, C{unixgram:}, C{fd:})
and one clear message for each that cannot be.  It must not know services.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from OpenSSL.SSL import Error as SSLError
from twisted.internet import endpoints
from twisted.internet.abstract import isIPv6Address
from twisted.internet.error import InvalidAddressError
from twisted.internet.interfaces import IAddress, IStreamServerEndpointStringParser
from twisted.plugin import getPlugins

from sockserve.core.messages import nearest, one_line
from sockserve.interfaces import ConfigurationError
from sockserve.listeners.datagram_ports import UDPPort, UNIXDatagramPort, WildcardUDPPort
from sockserve.listeners.datagrams import DatagramServer
from sockserve.listeners.proxy_protocol import ProxyEndpoint

__all__ = ["datagram_port", "is_datagram_description", "stream_endpoint"]

_FORMS = {
    "udp": "udp:PORT[:interface=ADDRESS]",
    "udp6": "udp6:PORT[:interface=ADDRESS]",
    "unixgram": "unixgram:PATH[:mode=OCTAL]",
}
_STREAM_FORMS = {
    "tcp": "tcp:PORT[:interface=ADDRESS][:backlog=NUMBER]",
    "tcp6": "tcp6:PORT[:interface=ADDRESS][:backlog=NUMBER]",
    "unix": "unix:PATH[:mode=OCTAL][:backlog=NUMBER]",
    "ssl": "ssl:PORT:privateKey=FILE:certKey=FILE[:interface=ADDRESS]",
    "tls": "tls:PORT:DIRECTORY[:interface=ADDRESS]",
    "systemd": "systemd:domain=INET:name=NAME",
}
_OURS = ("fd", "haproxy")
#: The kinds that Twisted has built in; others are plugins.
_TWISTEDS = ("tcp", "unix", "ssl")


def is_datagram_description(description: str) -> bool:
    """Whether a description names a datagram listener."""
    return description.partition(":")[0] in _FORMS


def _parsed(description: str) -> tuple[list[str], dict[str, str]]:
    # Twisted's own quoting rules; the function has had this name since 10.2.
    return endpoints._parse(description)  # type: ignore[no-any-return]


def stream_endpoint(reactor: Any, description: str, trusted: Callable[[IAddress], bool]) -> Any:
    """
    A stream server endpoint: any of Twisted's descriptions, C{fd:NUMBER} for a listening
    socket this process was started with, and C{haproxy:} before any of them.

    @raise ConfigurationError: it is none of these.
    """
    kind, _, rest = description.partition(":")
    if kind in _FORMS:
        raise ConfigurationError(
            f"listen {description!r}: {kind} is for datagrams (DatagramRequestService)"
        )
    if kind == "haproxy":
        if rest.partition(":")[0] in ("", *_FORMS):
            raise ConfigurationError(
                f"listen {description!r}: write haproxy: and a stream description after it"
            )
        return ProxyEndpoint(stream_endpoint(reactor, rest, trusted), trusted)
    if kind == "fd":
        return _inherited_socket(reactor, description, rest)
    _check_kind(description, kind)
    twisteds = _tls_description(description) if kind == "tls" else description
    try:
        return endpoints.serverFromString(reactor, twisteds)
    except Exception as error:  # each kind's parser raises what it likes
        raise ConfigurationError(
            f"listen {description!r}: {_what_is_wrong(kind, error)}"
        ) from error


def _what_is_wrong(kind: str, error: Exception) -> str:
    """What a parser of Twisted's means by an error."""
    form = f"; write {_STREAM_FORMS[kind]}" if kind in _STREAM_FORMS else ""
    if isinstance(error, TypeError):
        return f"a word is missing, or unknown{form}"
    if isinstance(error, SSLError):
        return "the certificate or key is no PEM file, or they do not belong together"
    if isinstance(error, (IndexError, KeyError)):
        return "this process was not handed such a socket"
    if isinstance(error, ValueError) and "invalid literal" in str(error):
        number = str(error).rpartition(": ")[2]
        return f"{number} is not a number{form}"
    return one_line(error)


def _check_kind(description: str, kind: str) -> None:
    """A hint at what was meant, for the kinds everybody has."""
    plugins = {plugin.prefix for plugin in getPlugins(IStreamServerEndpointStringParser)}
    known = {*_FORMS, *_OURS, *_TWISTEDS, *plugins}
    if kind.lower() not in {name.lower() for name in known}:
        raise ConfigurationError(
            f"listen {description!r}: unknown kind {kind!r}{nearest(kind, known)}"
        )


def _tls_description(description: str) -> str:
    """
    C{tls:PORT:DIRECTORY} or Twisted's C{tls:DIRECTORY:PORT}, where the directory has
    PEM files with certificates and keys; checked, because Twisted looks at them only
    when a client comes.
    """
    (_, *arguments), words = _parsed(description)
    if len(arguments) == 2 and arguments[0].isdigit():
        arguments.reverse()
    directory = words.get("path") or (arguments[0] if arguments else "")
    try:
        pems = [name for name in os.listdir(directory) if name.endswith(".pem")]
        contents = b""
        for name in pems:
            with open(os.path.join(directory, name), "rb") as pem:
                content = pem.read()
            if b"-----BEGIN" not in content:
                raise ConfigurationError(
                    f"listen {description!r}: {os.path.join(directory, name)} is not a PEM file"
                )
            contents += content
    except OSError as error:
        raise ConfigurationError(
            f"listen {description!r}: certificates in {directory!r}: {error.strerror}"
        ) from None
    if not pems:
        raise ConfigurationError(f"listen {description!r}: no *.pem file in {directory!r}")
    for what in ("certificate", "private key"):
        if what.upper().encode() + b"-----" not in contents:
            raise ConfigurationError(f"listen {description!r}: no {what} in {directory!r}")
    quoted = [endpoints.quoteStringArgument(argument) for argument in arguments]
    quoted += [f"{name}={endpoints.quoteStringArgument(value)}" for name, value in words.items()]
    return ":".join(["tls", *quoted])


def _inherited_socket(
    reactor: Any, description: str, number: str
) -> endpoints.AdoptedStreamServerEndpoint:
    try:
        descriptor = os.dup(int(number))
        try:
            duplicate = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)
            raise
        with duplicate:
            if not duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise ConfigurationError(f"listen {description!r}: that socket does not listen")
            duplicate.setblocking(False)
            family = duplicate.family
    except ValueError:
        raise ConfigurationError(
            f"listen {description!r}: write fd:NUMBER, the number of a descriptor"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"listen {description!r}: {error.strerror}") from None
    return endpoints.AdoptedStreamServerEndpoint(reactor, int(number), family)


def datagram_port(reactor: Any, description: str, server: DatagramServer) -> Any:
    """
    The port C{udp:PORT[:interface=…]}, C{udp6:PORT[:interface=…]} or
    C{unixgram:PATH[:mode=…]} names, not listening yet.

    @raise ConfigurationError: the description is none of these.
    """
    (kind, *arguments), words = _parsed(description)
    form = _FORMS[kind]
    try:
        if len(arguments) != 1 or not arguments[0]:
            raise ValueError(f"it takes one {'path' if kind == 'unixgram' else 'port'}")
        (address,) = arguments
        size = server.max_packet_size
        if kind == "unixgram":
            mode = _integer("mode", words.pop("mode", "666"), 8)
            port: Any = UNIXDatagramPort(address, server, size, mode, reactor)
        else:
            anywhere = "" if kind == "udp" else "::"
            interface = words.pop("interface", anywhere)
            if kind == "udp6" and not isIPv6Address(interface):
                raise ValueError(f"{interface!r} is not an IPv6 address")
            number = _integer("port", address, 10)
            if not 0 <= number <= 65535:
                raise ValueError(f"port {number} is not within 0 to 65535")
            port_class = WildcardUDPPort if interface in ("", "0.0.0.0", "::") else UDPPort
            port = port_class(number, server, interface, size, reactor)
        if words:
            raise ValueError(f"unknown word {next(iter(words))!r}")
    except (ValueError, InvalidAddressError) as error:
        raise ConfigurationError(
            f"listen {description!r}: {one_line(error)}; write {form}"
        ) from None
    return port


def _integer(name: str, text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        kind = "an octal number" if base == 8 else "a number"
        raise ValueError(f"{name} {text!r} is not {kind}") from None
