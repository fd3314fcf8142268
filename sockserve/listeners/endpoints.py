"""
Endpoints and ports, made from the descriptions given to C{--listen} and C{from_description}.

This room owns the forms of description that Twisted does not have (C{udp:}, C{udp6:},
C{unixgram:}, C{fd:}) or has otherwise (C{unix:}, C{systemd:}), and one clear message for each
mistake.  It must not know services.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import cast

from OpenSSL.SSL import Error as SSLError
from twisted.internet import endpoints
from twisted.internet.abstract import isIPv6Address
from twisted.internet.error import InvalidAddressError
from twisted.internet.interfaces import (
    IAddress,
    IReactorTime,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import getPlugins

from sockserve.core.deadlines import Deadlines
from sockserve.core.messages import nearest, one_line
from sockserve.interfaces import ConfigurationError
from sockserve.listeners.activation import handed_descriptor
from sockserve.listeners.datagram_ports import UDPPort, UNIXDatagramPort, WildcardUDPPort
from sockserve.listeners.datagrams import DatagramServer
from sockserve.listeners.proxy_protocol import ProxyEndpoint
from sockserve.listeners.tls import CertificateFolder, TLSEndpoint
from sockserve.listeners.unix_names import is_abstract, unix_name
from sockserve.listeners.unix_ports import InheritedUNIXEndpoint, UNIXEndpoint

__all__ = ["datagram_port", "is_datagram_description", "stream_endpoint"]

#: How the descriptions of datagram listeners are written, by kind.
_FORMS = {
    "udp": "udp:PORT[:interface=ADDRESS]",
    "udp6": "udp6:PORT[:interface=ADDRESS]",
    "unixgram": "unixgram:PATH[:mode=OCTAL] or unixgram:@NAME",
}
#: How those of stream listeners are written.
_STREAM_FORMS = {
    "tcp": "tcp:PORT[:interface=ADDRESS][:backlog=NUMBER]",
    "tcp6": "tcp6:PORT[:interface=ADDRESS][:backlog=NUMBER]",
    "unix": "unix:PATH[:mode=OCTAL][:backlog=NUMBER][:lockfile=0] or unix:@NAME",
    "ssl": "ssl:PORT:privateKey=FILE:certKey=FILE[:interface=ADDRESS]",
    "tls": "tls:PORT:DIRECTORY[:interface=ADDRESS]",
    "systemd": "systemd:domain=INET:index=NUMBER or systemd:domain=INET:name=NAME",
}
#: The kinds of stream listener that this room makes.
_OWN_KINDS = ("fd", "haproxy", "systemd", "unix")
#: The kinds that are built into Twisted; its others are plugins.
_TWISTED_KINDS = ("tcp", "ssl")


def is_datagram_description(description: str) -> bool:
    """Whether a description names a datagram listener."""
    return description.partition(":")[0] in _FORMS


def _parse(description: str) -> tuple[list[str], dict[str, str]]:
    """Split a description into its arguments, kind first, and its C{name=value} words."""
    # Twisted's own quoting rules; the function has had this name since 10.2.
    parsed: tuple[list[str], dict[str, str]] = endpoints._parse(description)
    return parsed


def stream_endpoint(
    reactor: object,
    description: str,
    trusted: Callable[[IAddress], bool],
    deadlines: Deadlines,
) -> IStreamServerEndpoint:
    """
    Make the stream server endpoint that C{description} names: any that Twisted knows,
    C{fd:NUMBER} for a listening socket that this process was started with, or C{haproxy:}
    followed by any of these.

    @param trusted: whether a PROXY header from an address is believed.
    @param deadlines: those of the server that listens.
    @raise ConfigurationError: C{description} is none of these, or names something that
        does not exist.
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
        endpoint = stream_endpoint(reactor, rest, trusted, deadlines)
        if isinstance(endpoint, TLSEndpoint):  # proxies send it before TLS
            return endpoint.over(lambda below: ProxyEndpoint(below, trusted))
        return ProxyEndpoint(endpoint, trusted)
    if kind == "fd":
        return _inherited_socket(reactor, description, rest)
    _check_kind(description, kind)
    make = _MAKERS.get(kind.lower(), _twisted_endpoint)
    try:
        _check_numbers(kind, description)
        return make(reactor, description, deadlines)
    except ConfigurationError:
        raise
    except Exception as error:  # each kind's parser raises what it likes
        raise ConfigurationError(f"listen {description!r}: {_explain(kind, error)}") from error


def _twisted_endpoint(
    reactor: object, description: str, deadlines: Deadlines
) -> IStreamServerEndpoint:
    endpoint: IStreamServerEndpoint = endpoints.serverFromString(reactor, description)
    return endpoint


def _unix_endpoint(
    reactor: object, description: str, deadlines: Deadlines
) -> IStreamServerEndpoint:
    """Make the endpoint of C{unix:PATH}, with Twisted's words, or of C{unix:@NAME}."""

    def make(
        address: str, mode: str | None = None, backlog: str = "50", lockfile: str = "1"
    ) -> IStreamServerEndpoint:
        name = unix_name(address)
        return UNIXEndpoint(
            reactor,
            name,
            backlog=int(backlog),
            mode=_mode(name, mode),
            wants_lock=bool(int(lockfile)),
        )

    (_, *arguments), words = _parse(description)
    return make(*arguments, **words)


def _mode(name: str, mode: str | None) -> int:
    """The permissions of a UNIX socket's file, C{mode} in octal digits."""
    if mode is not None and is_abstract(name):
        raise ValueError("an abstract name has no mode; anybody on this machine may connect")
    return _integer("mode", mode or "666", 8)


def _systemd_endpoint(
    reactor: object, description: str, deadlines: Deadlines
) -> IStreamServerEndpoint:
    """Make the endpoint of a socket that whoever has started this process says it has."""

    def find(domain: str, index: str | None = None, name: str | None = None) -> tuple[str, int]:
        return domain, handed_descriptor(index, name)

    (_, *arguments), words = _parse(description)
    domain, descriptor = find(*arguments, **words)
    return _inherited_socket(reactor, description, str(descriptor), f"AF_{domain}")


def _explain(kind: str, error: Exception) -> str:
    """Say in words what an error of one of Twisted's parsers means."""
    form = f"; write {_STREAM_FORMS[kind]}" if kind in _STREAM_FORMS else ""
    if isinstance(error, TypeError):
        return f"a word is missing, or unknown{form}"
    if isinstance(error, SSLError):
        return "the certificate or key is no PEM file, or they do not belong together"
    if isinstance(error, LookupError):
        return "this process was not handed such a socket"
    if isinstance(error, ValueError) and "invalid literal" in str(error):
        number = str(error).rpartition(": ")[2]
        return f"{number} is not a number{form}"
    return one_line(error)


def _check_kind(description: str, kind: str) -> None:
    """
    Check that there is such a kind of description.

    @raise ConfigurationError: there is none; the message names the nearest.
    """
    plugins = {plugin.prefix for plugin in getPlugins(IStreamServerEndpointStringParser)}
    known = {*_FORMS, *_OWN_KINDS, *_TWISTED_KINDS, *plugins}
    if kind.lower() not in {name.lower() for name in known}:
        raise ConfigurationError(
            f"listen {description!r}: unknown kind {kind!r}{nearest(kind, known)}"
        )


def _check_numbers(kind: str, description: str) -> None:
    """
    Check what the system would refuse only when the port is opened, or not at all.

    @raise ValueError: a number is not within its limits; the message says which.
    """
    (_, *arguments), words = _parse(description)
    checks = [("backlog", words.get("backlog"), 10, 2**31 - 1)]
    if kind.lower() in ("tcp", "tcp6", "ssl", "tls"):
        # Of tls, either of two.
        digits = [text for text in arguments if text.removeprefix("-").isdecimal()]
        checks.append(("port", words.get("port", digits[0] if digits else None), 10, 2**16 - 1))
    if kind.lower() == "unix":
        checks.append(("mode", words.get("mode"), 8, 0o7777))
    for name, text, base, most in checks:
        if text is None:
            continue
        number = _integer(name, text, base)
        if not 0 <= number <= most:
            limits = f"{most:o}" if base == 8 else most
            raise ValueError(f"{name} {text} is not within 0 to {limits}")


def _ssl_endpoint(reactor: object, description: str, deadlines: Deadlines) -> IStreamServerEndpoint:
    """
    Make the endpoint of C{ssl:PORT}, with Twisted's words.

    @raise TypeError: a word is unknown, or missing.
    @raise ValueError: a number is none.
    @raise AttributeError: there is no such C{sslmethod}.
    @raise OSError: a file cannot be read.
    @raise OpenSSL.crypto.Error: a file holds no key, or no certificate.
    @raise SSLError: these do not belong together.
    """
    clock = cast(IReactorTime, reactor)
    (_, *arguments), words = _parse(description)
    # The reader of these words has had its name since 10.2.
    (port, _, options), where = endpoints._parseSSL(None, *arguments, **words)
    options.getContext()  # raises what would be raised for the first client
    endpoint = endpoints.TCP4ServerEndpoint(reactor, port, **where)
    return TLSEndpoint(clock, endpoint, options, deadlines.linger)


def _tls_endpoint(reactor: object, description: str, deadlines: Deadlines) -> IStreamServerEndpoint:
    """
    Make the endpoint of C{tls:PORT:DIRECTORY}, or of Twisted's C{tls:DIRECTORY:PORT}.

    @raise TypeError: a word is unknown, or missing.
    @raise ValueError: a number is none.
    @raise ConfigurationError: the folder cannot be read, or there are no certificates in it.
    @raise OpenSSL.crypto.Error: a file in it is damaged.
    """
    clock = cast(IReactorTime, reactor)
    (_, *arguments), words = _parse(description)
    if len(arguments) == 2 and arguments[0].isdigit():
        arguments.reverse()

    def make(
        path: str, port: str = "443", backlog: str = "50", interface: str = "::"
    ) -> IStreamServerEndpoint:
        _check_pem_files(description, path)
        where = endpoints.TCP6ServerEndpoint(reactor, int(port), int(backlog), interface)
        return TLSEndpoint(clock, where, CertificateFolder(clock, path), deadlines.linger)

    return make(*arguments, **words)


#: What makes the endpoint of a kind that Twisted does not make as it is wanted here.
_MAKERS: dict[str, Callable[[object, str, Deadlines], IStreamServerEndpoint]] = {
    "ssl": _ssl_endpoint,
    "systemd": _systemd_endpoint,
    "tls": _tls_endpoint,
    "unix": _unix_endpoint,
}


def _check_pem_files(description: str, directory: str) -> None:
    """
    Check a directory's PEM files.

    @raise ConfigurationError: there is no certificate or no private key in them.
    """
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
    for part in ("certificate", "private key"):
        if part.upper().encode() + b"-----" not in contents:
            raise ConfigurationError(f"listen {description!r}: no {part} in {directory!r}")


def _inherited_socket(
    reactor: object, description: str, number: str, family: str | None = None
) -> IStreamServerEndpoint:
    """
    Make the endpoint of a listening socket that this process was started with.

    @param family: the name of its family, where that was said.
    """
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
            actual = socket.AddressFamily(duplicate.family)
            if family not in (None, actual.name):
                raise ConfigurationError(
                    f"listen {description!r}: that socket is of domain"
                    f" {actual.name.removeprefix('AF_')}"
                )
            duplicate.setblocking(False)
    except ValueError:
        raise ConfigurationError(
            f"listen {description!r}: write fd:NUMBER, the number of a descriptor"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"listen {description!r}: {error.strerror}") from None
    if actual == socket.AF_UNIX:
        return InheritedUNIXEndpoint(reactor, int(number))
    return endpoints.AdoptedStreamServerEndpoint(reactor, int(number), actual)


def datagram_port(
    reactor: object, description: str, server: DatagramServer
) -> UDPPort | UNIXDatagramPort:
    """
    Make the port that C{udp:PORT[:interface=…]}, C{udp6:PORT[:interface=…]} or
    C{unixgram:PATH[:mode=…]} (or C{unixgram:@NAME}) names; it does not listen yet.

    @param server: what the port's packets go to.
    @raise ConfigurationError: C{description} is none of these.
    """
    (kind, *arguments), words = _parse(description)
    form = _FORMS[kind]
    try:
        if len(arguments) != 1 or not arguments[0]:
            raise ValueError(f"it takes one {'path' if kind == 'unixgram' else 'port'}")
        (address,) = arguments
        size = server.max_packet_size
        if kind == "unixgram":
            name = unix_name(address)
            mode = _mode(name, words.pop("mode", None))
            port: UDPPort | UNIXDatagramPort = UNIXDatagramPort(name, server, size, mode, reactor)
        else:
            all_interfaces = "" if kind == "udp" else "::"
            interface = words.pop("interface", all_interfaces)
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
