"""
Endpoints and ports, made from the descriptions given to C{--listen} and C{from_description}.

This room owns the kinds of description that Twisted does not have (C{udp:}, C{udp6:},
C{unixgram:}, C{fd:}) or has otherwise (C{unix:}, C{systemd:}, C{ssl:}, C{tls:}), and that each
mistake ends in one clear message.  It must not know services, nor how a word's value is checked
(L{sockserve.listeners.descriptions}).
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import cast

from twisted.internet import endpoints
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IReactorTime,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import getPlugins

from sockserve.core.deadlines import Deadlines
from sockserve.core.messages import nearest, one_line
from sockserve.core.places import OTHER_KINDS, canonical
from sockserve.interfaces import ConfigurationError
from sockserve.listeners.activation import handed_descriptor
from sockserve.listeners.certificates import options_from_files
from sockserve.listeners.datagram_ports import UDPPort, UNIXDatagramPort, WildcardUDPPort
from sockserve.listeners.datagrams import DatagramServer
from sockserve.listeners.descriptions import (
    FORMS,
    MAX_PORT,
    WordError,
    check_interface,
    check_words,
    form_of,
    kind_of,
    mode_bits,
    parse,
    whole_number,
    words_of,
)
from sockserve.listeners.proxy_protocol import ProxyEndpoint
from sockserve.listeners.tls import CertificateFolder, TLSEndpoint
from sockserve.listeners.unix_names import is_abstract, unix_name
from sockserve.listeners.unix_ports import InheritedUNIXEndpoint, UNIXEndpoint

__all__ = [
    "carrier_of",
    "datagram_port",
    "inherited_descriptor",
    "is_datagram_description",
    "is_plain",
    "stream_endpoint",
    "written_out",
]

#: The kinds of stream listener that this room makes.
_OWN_KINDS = ("fd", "haproxy", "systemd", "unix")
#: The kinds that are built into Twisted; its others are plugins.
_TWISTED_KINDS = ("tcp", "tcp6", "ssl", "tls")
#: Those of Twisted's that have no port to listen on.
_NO_LISTENERS = {"stdio"}
#: The domains of the sockets that systemd hands over.
_DOMAINS = ("INET", "INET6", "UNIX")
#: The kinds of endpoint whose connections have nothing between them and the handler.
_PLAIN_ENDPOINTS = (
    UNIXEndpoint,
    InheritedUNIXEndpoint,
    endpoints.AdoptedStreamServerEndpoint,
    endpoints.TCP4ServerEndpoint,
    endpoints.TCP6ServerEndpoint,
    endpoints.UNIXServerEndpoint,
)
#: Twisted's own, where a description does not say; the server's counts then.
_BACKLOG = "50"


def is_datagram_description(description: str) -> bool:
    """Whether a description names a datagram listener."""
    return kind_of(description) in FORMS


def written_out(description: str) -> str:
    """
    A description in full, of one that may say where in a shorter way, as C{8080} does.

    @raise ConfigurationError: it is a URL that is no place to listen at.
    """
    try:
        return canonical(description)
    except ValueError as error:
        raise ConfigurationError(f"listen {description!r}: {error}") from None


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
    description = written_out(description)
    kind, rest = kind_of(description), description.partition(":")[2]
    if kind in FORMS:
        raise ConfigurationError(
            f"listen {description!r}: {kind} is for datagrams (DatagramRequestService)"
        )
    if kind == "haproxy":
        if kind_of(rest) in ("", *FORMS):
            raise ConfigurationError(
                f"listen {description!r}: write haproxy: and a stream description after it"
            )
        behind = stream_endpoint(reactor, rest, trusted, deadlines)
        if isinstance(behind, TLSEndpoint):  # proxies send it before TLS
            return behind.over(lambda below: ProxyEndpoint(below, trusted))
        return ProxyEndpoint(behind, trusted)
    if kind == "fd":
        return _inherited_socket(reactor, description, rest)
    _check_kind(description)
    make = _MAKERS.get(kind)
    try:
        words = words_of(kind, description)
        check_words(kind, words)
        if make is not None:
            return make(reactor, description, words, deadlines)
        endpoint: IStreamServerEndpoint = endpoints.serverFromString(reactor, description)
    except ConfigurationError:
        raise
    except Exception as error:  # each kind's parser raises what it likes
        raise ConfigurationError(f"listen {description!r}: {_explain(kind, error)}") from error
    return endpoint


def _unix_endpoint(
    reactor: object, description: str, words: Mapping[str, str], deadlines: Deadlines
) -> IStreamServerEndpoint:
    """Make the endpoint of C{unix:PATH}, with Twisted's words, or of C{unix:@NAME}."""
    name = unix_name(words["address"])
    return UNIXEndpoint(
        reactor,
        name,
        backlog=int(words.get("backlog", _BACKLOG)),
        mode=_mode(name, words.get("mode")),
        wants_lock=words.get("lockfile", "1") == "1",
    )


def _mode(name: str, mode: str | None) -> int:
    """The permissions of a UNIX socket's file, C{mode} in octal digits."""
    if mode is None:
        return 0o666
    if is_abstract(name):
        raise ValueError("an abstract name has no mode; anybody on this machine may connect")
    return mode_bits(mode)


def _systemd_endpoint(
    reactor: object, description: str, words: Mapping[str, str], deadlines: Deadlines
) -> IStreamServerEndpoint:
    """Make the endpoint of a socket that whoever has started this process says it has."""
    domain = words["domain"]
    if domain not in _DOMAINS:
        hint = nearest(domain.upper(), _DOMAINS)
        raise ValueError(f"domain {domain!r} is not one of {', '.join(_DOMAINS)}{hint}")
    descriptor = _handed_descriptor(words)
    return _inherited_socket(reactor, description, str(descriptor), f"AF_{domain}")


def _handed_descriptor(words: Mapping[str, str]) -> int:
    index, name = words.get("index"), words.get("name")
    if index is not None and not index.startswith("-"):  # which is none either
        whole_number("index", index, most=sys.maxsize)
    return handed_descriptor(index, name)


def carrier_of(endpoint: object) -> str | None:
    """What an endpoint's connections have in place of TCP, or above it, with a preposition; None
    for nothing known."""
    if isinstance(endpoint, ProxyEndpoint):
        return "behind a PROXY header (no proxy passes it on)"
    if isinstance(endpoint, (TLSEndpoint, endpoints.SSL4ServerEndpoint)):
        return "over TLS"
    if isinstance(endpoint, (UNIXEndpoint, InheritedUNIXEndpoint, endpoints.UNIXServerEndpoint)):
        return "over UNIX sockets"
    return None


def is_plain(endpoint: object) -> bool:
    """Whether an endpoint's connections are known to begin without TLS."""
    below = endpoint.endpoint if isinstance(endpoint, ProxyEndpoint) else endpoint
    return isinstance(below, _PLAIN_ENDPOINTS)


def inherited_descriptor(description: str) -> int | None:
    """
    The descriptor of the socket that this process was started with and that C{description}
    names; None where it names none, or none that there is.
    """
    kind, rest = kind_of(description), description.partition(":")[2]
    if kind == "haproxy":
        return inherited_descriptor(rest)
    try:
        if kind == "fd":
            return int(rest)
        if kind == "systemd":
            return _handed_descriptor(words_of(kind, description))
    except (LookupError, ValueError):
        pass
    return None


def _explain(kind: str, error: Exception) -> str:
    """Say in words what an error of one of the makers, or of Twisted's parsers, means."""
    if isinstance(error, WordError):
        said, form = one_line(error), form_of(kind)
        if said.endswith("?"):
            form = form.replace("; write", " Write")
        return said + form
    if isinstance(error, TypeError):
        return "a word is missing, or unknown"
    if isinstance(error, ValueError) and "invalid literal" in str(error):
        number = str(error).rpartition(": ")[2]
        return f"{number} is not a number"
    return one_line(error)


def _check_kind(description: str) -> None:
    """
    Check that there is such a kind of description.

    @raise ConfigurationError: there is none; the message names the nearest.
    """
    kind = kind_of(description)
    ours = {*FORMS, *_OWN_KINDS, *_TWISTED_KINDS}
    if kind in ours:
        return
    # Twisted keeps a list of its plugins in a file, which is not to be written for nothing.
    plugins = {plugin.prefix for plugin in getPlugins(IStreamServerEndpointStringParser)}
    known = {*ours, *plugins} - _NO_LISTENERS
    if kind in {name.lower() for name in known}:
        return
    rest = description.partition(":")[2]
    host, _, port = description.rpartition(":")
    if kind in OTHER_KINDS:
        hint = f"; did you mean {OTHER_KINDS[kind] + ':' + rest!r}?"
    elif isIPv6Address(host) and port.isdecimal():
        hint = f"; did you mean '[{host}]:{port}'?"
    else:
        hint = nearest(kind, known) or f"; the kinds are {', '.join(sorted(known))}"
    shown = description.partition(":")[0]
    raise ConfigurationError(f"listen {description!r}: unknown kind {shown!r}{hint}")


def _tcp6_endpoint(
    reactor: object, description: str, words: Mapping[str, str], deadlines: Deadlines
) -> IStreamServerEndpoint:
    """Make the endpoint of C{tcp6:PORT}, which is a plugin of Twisted's."""
    return endpoints.TCP6ServerEndpoint(
        reactor,
        int(words["port"]),
        int(words.get("backlog", _BACKLOG)),
        words.get("interface", "::"),
    )


def _ssl_endpoint(
    reactor: object, description: str, words: Mapping[str, str], deadlines: Deadlines
) -> IStreamServerEndpoint:
    """Make the endpoint of C{ssl:PORT}, with Twisted's words."""
    options = options_from_files(words)
    where = endpoints.TCP4ServerEndpoint(
        reactor,
        int(words["port"]),
        int(words.get("backlog", _BACKLOG)),
        words.get("interface", ""),
    )
    return TLSEndpoint(cast(IReactorTime, reactor), where, options, deadlines.linger)


def _tls_endpoint(
    reactor: object, description: str, words: Mapping[str, str], deadlines: Deadlines
) -> IStreamServerEndpoint:
    """Make the endpoint of C{tls:PORT:DIRECTORY}, or of Twisted's C{tls:DIRECTORY:PORT}."""
    clock = cast(IReactorTime, reactor)
    folder = words["path"]
    if "port" not in words and not os.path.exists(folder):
        raise WordError(f"certificates in {folder!r}: there is no such folder, or no port")
    where = endpoints.TCP6ServerEndpoint(
        reactor,
        int(words.get("port", "443")),
        int(words.get("backlog", _BACKLOG)),
        words.get("interface", "::"),
    )
    return TLSEndpoint(clock, where, CertificateFolder(clock, folder), deadlines.linger)


#: What makes the endpoint of a kind that Twisted does not make as it is wanted here.
_MAKERS: dict[str, Callable[[object, str, Mapping[str, str], Deadlines], IStreamServerEndpoint]] = {
    "ssl": _ssl_endpoint,
    "tcp6": _tcp6_endpoint,
    "systemd": _systemd_endpoint,
    "tls": _tls_endpoint,
    "unix": _unix_endpoint,
}


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
    except (OverflowError, ValueError):
        raise ConfigurationError(
            f"listen {description!r}: write fd:NUMBER, the number of a descriptor"
        ) from None
    except OSError as error:
        why = str(error.strerror)
        if error.errno == errno.EBADF:
            why += "; this process was started with none of that number"
        raise ConfigurationError(f"listen {description!r}: {why}") from None
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
    kind = kind_of(description)
    form = FORMS[kind]
    try:
        (_, *arguments), words = parse(description)
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
            number = whole_number("port", address, most=MAX_PORT)
            if interface and not (isIPAddress(interface) or isIPv6Address(interface)):
                raise ValueError(f"{interface!r} is not an IPv4 or IPv6 address")
            check_interface(interface)
            port_class = WildcardUDPPort if interface in ("", "0.0.0.0", "::") else UDPPort
            port = port_class(number, server, interface, size, reactor)
        if words:
            raise ValueError(f"unknown word {next(iter(words))!r}")
    except ValueError as error:
        raise ConfigurationError(
            f"listen {description!r}: {one_line(error)}; write {form}"
        ) from None
    return port
