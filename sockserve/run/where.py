"""
Descriptions that C{--port}, C{--host}, C{--unix} and C{--certfile} stand for.

This room owns what they come to, and that only one way is taken to say where.  It must not know
how a description is read (L{sockserve.listeners.descriptions}).
"""

from __future__ import annotations

from collections.abc import Mapping

from sockserve.core.places import quoted
from sockserve.interfaces import ConfigurationError
from sockserve.listeners.certificates import FileError, FileWords, options_from_files
from sockserve.listeners.descriptions import check_interface

__all__ = ["DEFAULT_HOST", "DEFAULT_PORT", "PLACES", "TLS_FILES", "description_of_place"]

#: The words of TLS, with what a description has for them.
TLS_FILES = {
    "certfile": "certKey",
    "keyfile": "privateKey",
    "keyfile-password-file": "passwordFile",
}

_NAMES = FileWords("certfile", "keyfile", "keyfile-password-file", "keyfile-password-file")

#: All words of it.
PLACES = ("port", "host", "unix", *TLS_FILES)

#: Where is listened when nobody says: on this machine alone.
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000


def description_of_place(
    said: Mapping[str, object], is_beside_listen: bool, *, datagrams: bool
) -> str:
    """
    The description of where some words say.

    @param said: one or more of L{PLACES}, with their values.
    @param is_beside_listen: whether C{listen} says where, too.
    @param datagrams: whether it is for a handler of datagrams.
    @raise ConfigurationError: they say it twice, or the host is none, or a file of TLS's.
    """
    first = next(iter(said))
    if is_beside_listen:
        hint = "; write tls: or ssl: there" if first in TLS_FILES else ""
        raise ConfigurationError(f"{first}: does not go with listen, which says where{hint}", first)
    if "unix" in said:
        if len(said) > 1:
            other = next(word for word in said if word != "unix")
            raise ConfigurationError(f"{other}: does not go with unix, which says where", other)
        # Only the first of a name is special: @ for one that is no file.
        return f"{'unixgram' if datagrams else 'unix'}:{quoted(str(said['unix']))}"
    host = str(said.get("host", DEFAULT_HOST))
    host = host.removeprefix("[").removesuffix("]")
    try:
        check_interface(host)
    except ValueError as error:
        why = str(error).removeprefix("interface ").removeprefix(f"{host!r} ")
        raise ConfigurationError(f"host: {host!r} {why}", "host") from None
    where = f"{said.get('port', DEFAULT_PORT)}:interface={quoted(host)}"
    files = {word: str(said[word]) for word in TLS_FILES if word in said}
    if files:
        return f"ssl:{where}{_tls_words(files, datagrams)}"
    kind = "udp" if datagrams else "tcp"
    if ":" in host:
        kind += "6"
    return f"{kind}:{where}"


def _tls_words(files: Mapping[str, str], datagrams: bool) -> str:
    """
    The words of a description for the files of a certificate and its key.

    @raise ConfigurationError: one of them is missing, or cannot be used.
    """
    first = next(iter(files))
    if datagrams:
        raise ConfigurationError(f"{first}: the handler serves datagrams, which have no TLS", first)
    if "certfile" not in files:
        raise ConfigurationError(f"{first}: the certificate is missing; name it by certfile", first)
    # As elsewhere, one file may have both.
    words = {"privateKey": files["certfile"]}
    words |= {TLS_FILES[word]: path for word, path in files.items()}
    try:
        options_from_files(words, _NAMES)
    except FileError as error:
        raise ConfigurationError(str(error), error.word) from None
    return "".join(f":{word}={quoted(path)}" for word, path in words.items())
