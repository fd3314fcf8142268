"""
Limits: how much a server takes of what clients send, by the names under which that can be set.

This room owns the names, which of them go with which kind of listener, and the check of a value.
It must not know where a limit is met, nor what happens there.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import attrs

from sockserve.interfaces import ConfigurationError

__all__ = ["LIMITS", "Limit", "LimitKind", "check_limit", "set_limits"]

#: The longest datagram that can be asked for, as room for one is made each time: 1 MiB.  (UDP's
#: are shorter than 64 KiB; those of UNIX sockets may be as long as the system's send buffer.)
MAX_PACKET_BYTES = 2**20

#: The longest queue that C{listen} can be asked for: it takes a C{int} of C's.
MAX_QUEUE = 2**31 - 1


class LimitKind(Enum):
    """The kind of listener that a limit is for."""

    STREAMS = "streams"
    DATAGRAMS = "datagrams"
    ROWS = "rows"


@attrs.frozen
class Limit:
    """
    One limit: a class attribute of server objects.

    @ivar unit: what it counts.
    @ivar least: the least that it can be.
    @ivar most: the most; None for any number.
    @ivar may_be_none: whether it can be None: no limit, or not the server's to say.
    """

    kind: LimitKind
    unit: str
    least: int = 1
    most: int | None = None
    may_be_none: bool = False

    def is_met_by(self, value: object) -> bool:
        """Whether the limit can be C{value}."""
        if value is None:
            return self.may_be_none
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return self.least <= value and (self.most is None or value <= self.most)

    @property
    def wanted(self) -> str:
        """The values that may be, in words for messages."""
        if self.most is None:
            return f"a number of {self.unit}, {self.least} or more"
        return f"a number of {self.unit} within {self.least} to {self.most}"


#: The limits by name.  Their values are where the server objects are that have them.
LIMITS: Mapping[str, Limit] = {
    "max_body_bytes": Limit(LimitKind.STREAMS, "bytes", least=0, may_be_none=True),
    "max_request_line_bytes": Limit(LimitKind.STREAMS, "bytes", least=16),
    "max_header_bytes": Limit(LimitKind.STREAMS, "bytes", least=2),
    "max_header_fields": Limit(LimitKind.STREAMS, "fields"),
    "max_spool_bytes": Limit(LimitKind.STREAMS, "bytes", least=0),
    "request_queue_size": Limit(
        LimitKind.STREAMS, "connections", least=0, most=MAX_QUEUE, may_be_none=True
    ),
    "max_packet_size": Limit(LimitKind.DATAGRAMS, "bytes", most=MAX_PACKET_BYTES),
    "max_datagrams": Limit(LimitKind.DATAGRAMS, "datagrams", may_be_none=True),
    "max_rows": Limit(LimitKind.ROWS, "rows", may_be_none=True),
}


def check_limit(name: str, value: object) -> None:
    """
    Check a value for the limit called C{name}.

    @raise ConfigurationError: it cannot be.
    """
    limit = LIMITS[name]
    if not limit.is_met_by(value):
        none = " (None: no limit)" if limit.may_be_none else ""
        raise ConfigurationError(f"{name}: {value!r} is not {limit.wanted}{none}")


def set_limits(server: Any, given: Mapping[str, int | None]) -> None:
    """
    Give a server object the limits that are C{given}, and check those that its class has.

    @raise ConfigurationError: one of these cannot be, or the server has no such limit.
    """
    for name, value in given.items():
        if name not in LIMITS or not hasattr(server, name):
            raise ConfigurationError(f"{name}: {type(server).__qualname__} has no such limit")
        setattr(server, name, value)
    for name in LIMITS:
        if hasattr(server, name):
            check_limit(name, getattr(server, name))
