"""
Descriptions that C{--port}, C{--host} and C{--unix} stand for.

This room owns what they come to, and that only one way is taken to say where.  It must not know
how a description is read (L{sockserve.listeners.descriptions}).
"""

from __future__ import annotations

from collections.abc import Mapping

from sockserve.core.places import quoted
from sockserve.interfaces import ConfigurationError
from sockserve.listeners.descriptions import check_interface

__all__ = ["DEFAULT_HOST", "DEFAULT_PORT", "PLACES", "description_of_place"]

#: The words of it.
PLACES = ("port", "host", "unix")

#: Where is listened when nobody says: on this machine alone.
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000


def description_of_place(settings: Mapping[str, object], *, datagrams: bool) -> str | None:
    """
    The description of where these settings say; None where they do not.

    @param settings: of these, C{listen}, C{port}, C{host} and C{unix} count.
    @param datagrams: whether it is for a handler of datagrams.
    @raise ConfigurationError: they say it twice, or the host is none.
    """
    given = [word for word in PLACES if word in settings]
    if not given:
        return None
    if "listen" in settings:
        raise ConfigurationError(f"{given[0]}: does not go with listen, which says where", given[0])
    if "unix" in settings:
        if len(given) > 1:
            raise ConfigurationError(
                f"{given[0]}: does not go with unix, which says where", given[0]
            )
        path = str(settings["unix"])
        # Only the first of a name is special: @ for one that is no file.
        return f"{'unixgram' if datagrams else 'unix'}:{quoted(path)}"
    host = str(settings.get("host", DEFAULT_HOST))
    host = host.removeprefix("[").removesuffix("]")
    try:
        check_interface(host)
    except ValueError as error:
        why = str(error).removeprefix("interface ").removeprefix(f"{host!r} ")
        raise ConfigurationError(f"host: {host!r} {why}", "host") from None
    kind = "udp" if datagrams else "tcp"
    if ":" in host:
        kind += "6"
    return f"{kind}:{settings.get('port', DEFAULT_PORT)}:interface={quoted(host)}"
