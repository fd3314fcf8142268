"""
The part of the table of options that is about a server: what is served, where, and to whom.

This room owns these words, what each is for, and how its value is written.  It must not know how a
value is checked.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, UnsetType

from sockserve.run.options.forms import (
    Bytes,
    Count,
    Counted,
    Form,
    Group,
    Port,
    Queue,
    Rate,
    Seconds,
    Text,
    Texts,
    word,
)
from sockserve.run.options.shared import SERVED, SharedWords

__all__ = ["ServerWords"]

#: The words that say where to listen: either the first, or the second, or the others.  (Those of a
#: certificate are none: TLS that was asked for is never dropped for another place.)
_WHERE = ("listen", "unix", "port", "host")


class ServerWords(SharedWords, rename="kebab", forbid_unknown_fields=True, kw_only=True):
    """The words of one server: of a command line, or a C{[[server]]} table."""

    path: Annotated[
        Text | UnsetType,
        word(
            "instead of a handler: serve the files of this folder over HTTP",
            Group.SERVED,
            Form.TEXT,
            "DIRECTORY",
            default=".",
            short="p",
            rivals=SERVED,
            page="See [Serve files](../howto/serve-files.md)",
        ),
    ] = UNSET
    header: Annotated[
        Texts | UnsetType,
        word(
            "add this header field to files and listings",
            Group.SERVED,
            Form.FIELDS,
            "'NAME: VALUE'",
            is_list=True,
            page="See [Header fields](../howto/serve-files.md#header-fields)",
        ),
    ] = UNSET
    server: Annotated[
        Text | UnsetType,
        word(
            "instead of a handler and an address: serve a server object of socketserver's kind,"
            " or what this callable returns, as it stands",
            Group.SERVED,
            Form.SERVER_OBJECT,
            "MODULE:OBJECT",
            goes_with_object=True,
            rivals=(*SERVED, *_WHERE),
            page="See [Serve a server object](../howto/serve-a-server-object.md)",
        ),
    ] = UNSET
    rpcbind: Annotated[
        bool | UnsetType,
        word(
            "tell this machine's rpcbind where the Sun RPC program of the handler is served, and"
            " take that back at the end",
            Group.SERVED,
            Form.FLAG,
            page="See [Sun RPC](../howto/sun-rpc.md); in a file `rpcbind = true`",
        ),
    ] = UNSET
    listen: Annotated[
        Texts | UnsetType,
        word(
            "where to listen: tcp:PORT, tls:PORT:FOLDER, unix:PATH, udp:PORT, fd:NUMBER and any"
            " other of Twisted's server endpoint descriptions; or HOST:PORT",
            Group.WHERE,
            Form.DESCRIPTIONS,
            "DESCRIPTION",
            default="tcp:8000:interface=127.0.0.1",
            short="l",
            is_list=True,
            rivals=_WHERE,
            page="All [descriptions](descriptions.md) share the handler, its workers and the limits"
            " below",
        ),
    ] = UNSET
    port: Annotated[
        Port | UnsetType,
        word(
            "instead of --listen: this port (of UDP for a handler of datagrams); 0 for any that is"
            " free",
            Group.WHERE,
            Form.PORT,
            "N",
            default="8000",
            rivals=("listen", "unix"),
        ),
    ] = UNSET
    host: Annotated[
        Text | UnsetType,
        word(
            "instead of --listen: this address, or 0.0.0.0 or :: for all",
            Group.WHERE,
            Form.TEXT,
            "ADDRESS",
            default="127.0.0.1",
            rivals=("listen", "unix"),
        ),
    ] = UNSET
    unix: Annotated[
        Text | UnsetType,
        word(
            "instead of --listen: a UNIX socket of this name",
            Group.WHERE,
            Form.TEXT,
            "PATH",
            rivals=("listen", "port", "host"),
        ),
    ] = UNSET
    certfile: Annotated[
        Text | UnsetType,
        word(
            "serve over TLS there, with the certificate in this file, and those of its chain"
            " behind it",
            Group.WHERE,
            Form.TEXT,
            "PEM",
            page="See [TLS](../howto/tls-and-client-certificates.md)",
        ),
    ] = UNSET
    keyfile: Annotated[
        Text | UnsetType,
        word(
            "the file with the private key of the certificate, if that has it not",
            Group.WHERE,
            Form.TEXT,
            "PEM",
        ),
    ] = UNSET
    keyfile_password_file: Annotated[
        Text | UnsetType,
        word(
            "the file whose first line is the password of an encrypted private key",
            Group.WHERE,
            Form.TEXT,
            "FILE",
        ),
    ] = UNSET
    body_rate: Annotated[
        Rate | UnsetType,
        word(
            "the least bytes a second of a body; none for any",
            Group.TIMES,
            Form.RATE,
            "RATE",
            default="240",
            goes_with_object=True,
        ),
    ] = UNSET
    body_grace: Annotated[
        Seconds | UnsetType,
        word(
            "how long after a body's start its rate is asked for; none for never",
            Group.TIMES,
            Form.SECONDS,
            "TIME",
            default="5",
            goes_with_object=True,
        ),
    ] = UNSET
    write_rate: Annotated[
        Rate | UnsetType,
        word(
            "the least bytes a second at which a client takes what is sent to it; none for any",
            Group.TIMES,
            Form.RATE,
            "RATE",
            default="240",
            goes_with_object=True,
        ),
    ] = UNSET
    max_connections: Annotated[
        Count | UnsetType,
        word(
            "the most connections at once, of all stream listeners together",
            Group.LIMITS,
            Form.NUMBER,
            "N",
            goes_with_object=True,
            page="At the limit accepting stops; clients wait in the kernel's queue, and those that"
            " have left by then take no place",
        ),
    ] = UNSET
    max_connections_per_peer: Annotated[
        Count | UnsetType,
        word(
            "the most connections at once from one address",
            Group.LIMITS,
            Form.NUMBER,
            "N",
            goes_with_object=True,
            page="One over it is accepted and reset. Clients of UNIX sockets are not counted",
        ),
    ] = UNSET
    request_queue_size: Annotated[
        Queue | UnsetType,
        word(
            "how many connections the kernel keeps until they are accepted: the backlog",
            Group.LIMITS,
            Form.LIMIT,
            "N",
            default="1024",
            page="A `backlog=` in a description goes first",
        ),
    ] = UNSET
    max_body_bytes: Annotated[
        Bytes | UnsetType,
        word(
            "the largest HTTP body that is kept for a blocking handler; more is answered with 413",
            Group.LIMITS,
            Form.LIMIT,
            "SIZE",
            default="1g",
            goes_with_object=True,
        ),
    ] = UNSET
    max_request_line_bytes: Annotated[
        Bytes | UnsetType,
        word(
            "the longest HTTP request line; a longer one is answered with 414",
            Group.LIMITS,
            Form.LIMIT,
            "SIZE",
            default="64k",
            goes_with_object=True,
        ),
    ] = UNSET
    max_header_bytes: Annotated[
        Bytes | UnsetType,
        word(
            "the longest HTTP header section; a longer one is answered with 431",
            Group.LIMITS,
            Form.LIMIT,
            "SIZE",
            default="64k",
            goes_with_object=True,
        ),
    ] = UNSET
    max_header_fields: Annotated[
        Count | UnsetType,
        word(
            "the most fields of it; more are answered with 431",
            Group.LIMITS,
            Form.LIMIT,
            "N",
            default="100",
            goes_with_object=True,
        ),
    ] = UNSET
    max_spool_bytes: Annotated[
        Bytes | UnsetType,
        word(
            "how much of the responses of blocking HTTP handlers is kept in temporary files for"
            " clients that take them slowly, all together",
            Group.LIMITS,
            Form.LIMIT,
            "SIZE",
            default="1g",
            goes_with_object=True,
        ),
    ] = UNSET
    max_packet_size: Annotated[
        Bytes | UnsetType,
        word(
            "the longest datagram; a longer one is dropped",
            Group.LIMITS,
            Form.LIMIT,
            "SIZE",
            default="8k",
        ),
    ] = UNSET
    max_datagrams: Annotated[
        Counted | UnsetType,
        word(
            "the most datagrams of one listener served and waiting at once; none for any number",
            Group.LIMITS,
            Form.LIMIT,
            "N",
            default="1000",
            goes_with_object=True,
        ),
    ] = UNSET
    allow: Annotated[
        Texts | UnsetType,
        word(
            "serve clients from this address or ADDRESS/PREFIX only",
            Group.CLIENTS,
            Form.NETWORKS,
            "NETWORK",
            is_list=True,
            goes_with_object=True,
            page="IPv4 or IPv6, [however written](../howto/limit-connections.md)",
        ),
    ] = UNSET
    deny: Annotated[
        Texts | UnsetType,
        word(
            "do not serve these, even when allowed",
            Group.CLIENTS,
            Form.NETWORKS,
            "NETWORK",
            is_list=True,
            goes_with_object=True,
        ),
    ] = UNSET
    proxy_from: Annotated[
        Texts | UnsetType,
        word(
            "believe a PROXY header (haproxy: descriptions) from this network only",
            Group.CLIENTS,
            Form.NETWORKS,
            "NETWORK",
            is_list=True,
            page="Others are disconnected",
        ),
    ] = UNSET
    auth: Annotated[
        Texts | UnsetType,
        word(
            "find out by this who clients are, for handlers that ask: file:PATH,"
            " memory:NAME:PASSWORD, unix, or a plugin's kind",
            Group.CLIENTS,
            Form.CHECKERS,
            "CHECKER",
            setting="portal",
            is_list=True,
            page="See [Authenticate clients](../howto/authenticate-clients.md#a-portal)",
        ),
    ] = UNSET
