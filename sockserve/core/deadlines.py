"""
Deadlines: the seconds each phase of a connection may last.

This room owns the defaults and the arithmetic.  It must not know which protocol
or handler a deadline is for, nor what keeps it (L{sockserve.core.deadline_timer}).
"""

from __future__ import annotations

from math import inf
from typing import Any

import attrs

from sockserve.interfaces import ConfigurationError

__all__ = [
    "CONNECTION_BODY_SECONDS",
    "KEEPALIVE_PROBES",
    "Deadlines",
    "is_duration",
]

#: How often the kernel asks after a silent client, a part of L{Deadlines.keepalive} apart, before
#: it gives the connection up.
KEEPALIVE_PROBES = 4

#: How long a body may take that ends with its connection, where C{body} says nothing: a thread
#: waits for it, so that it must end however steadily it comes.  60: as long as C{write}.
CONNECTION_BODY_SECONDS = 60.0


def is_duration(value: object) -> bool:
    """Whether a value is a number of seconds above 0, and not for ever."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < inf


def _seconds(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not is_duration(value):
        raise ConfigurationError(
            f"deadline {attribute.name}: {value!r} is not a number of seconds above 0 (None: never)"
        )


def _twice_keepalive(deadlines: Deadlines) -> float | None:
    """The default of C{user_timeout}, which the fields before it decide."""
    for other in (deadlines.keepalive, deadlines.write):
        if not isinstance(other, (int, float)):  # None, or about to be refused
            return None
    assert deadlines.keepalive is not None
    assert deadlines.write is not None
    return None if deadlines.write > 2 * deadlines.keepalive else 2 * deadlines.keepalive


@attrs.frozen(kw_only=True)
class Deadlines:
    """
    The seconds each phase of a connection may last; C{None} for as long as it takes.

    The rates, and what follows C{drain}, are no phases: they say when a deadline has passed,
    or what the server waits for at an end.

    @ivar handshake: from accept until TLS and the PROXY header are through.  10:
        Kestrel's C{HandshakeTimeout}.
    @ivar idle: no byte while the handler waits for a new message.  300: what
        RFC 5321 section 4.5.3.2.7 asks of a server that awaits a command.  On a
        blocking handler's TCP connection: no byte either way.
    @ivar header: from the first byte of a line (or of anything that ends with a
        separator) to its end; not re-armed by a trickle.  30: Kestrel's
        C{RequestHeadersTimeout}.
    @ivar body: from the first byte of a counted read (C{readexactly}) to its end.
        None: the least rate guards it, and L{CONNECTION_BODY_SECONDS} what ends with its
        connection.
    @ivar body_rate: the least rate of such a read in bytes per second.  240: Kestrel's
        C{MinRequestBodyDataRate}.
    @ivar handle: from the start of C{setup}.  None: a stream handler may live as
        long as its connection.
    @ivar write: a batch of at most 64 KiB waits to leave and has not left.  60:
        nginx's C{send_timeout}.
    @ivar lifetime: from accept, whatever happens.
    @ivar drain: from the moment the service stops.  10: what container runtimes
        grant before they kill.
    @ivar write_rate: the least rate, in bytes per second, at which a client takes what waits
        for it; it may be behind by C{write} seconds.  240: Kestrel's
        C{MinResponseDataRate}.
    @ivar body_grace: from the first byte of a counted read until C{body_rate} is asked
        for; None: it is not.  5: the grace period of Kestrel's.
    @ivar linger: from the moment all of an answer has left until a connection is closed
        whose client may be sending what nobody reads: that is thrown away so long, as
        the kernel would answer it with a reset, which overtakes the answer.  Less if the
        client ends its side.  2: Apache's C{SECONDS_TO_LINGER} between reads; nginx's
        C{lingering_timeout} is 5.
    @ivar quiet: when the service stops, how long nothing must have come on a blocking
        handler's connection for its client to be taken to be between two messages; the
        handler gets an end of file then.  It takes the place of C{idle}; None: it does
        not, and there is no such end.  1: a pause that a client in the middle of a
        message seldom makes.
    @ivar abandon: what a handler gets to come to its end after a deadline has passed, or
        its client has gone; then its connection is aborted, and it is abandoned.  5.
    @ivar keepalive: how long a TCP client may be silent before the kernel asks whether it
        is still there (C{SO_KEEPALIVE}, C{TCP_KEEPIDLE}); it asks L{KEEPALIVE_PROBES}
        times, in as long again.  60: Go has 15 s, Linux two hours; NATs that forget the
        silent do so after some minutes.
    @ivar user_timeout: how long a TCP client may acknowledge nothing, be it bytes or
        probes, before the kernel gives the connection up (C{TCP_USER_TIMEOUT}, RFC 5482).
        By default twice C{keepalive}, so that all probes are sent; or None where a client
        has longer than that to take what is written (C{write}), which this would cut
        short.
    """

    handshake: float | None = attrs.field(default=10.0, validator=_seconds)
    idle: float | None = attrs.field(default=300.0, validator=_seconds)
    header: float | None = attrs.field(default=30.0, validator=_seconds)
    body: float | None = attrs.field(default=None, validator=_seconds)
    body_rate: float | None = attrs.field(default=240.0, validator=_seconds)
    handle: float | None = attrs.field(default=None, validator=_seconds)
    write: float | None = attrs.field(default=60.0, validator=_seconds)
    lifetime: float | None = attrs.field(default=None, validator=_seconds)
    drain: float | None = attrs.field(default=10.0, validator=_seconds)
    write_rate: float | None = attrs.field(default=240.0, validator=_seconds)
    body_grace: float | None = attrs.field(default=5.0, validator=_seconds)
    linger: float | None = attrs.field(default=2.0, validator=_seconds)
    quiet: float | None = attrs.field(default=1.0, validator=_seconds)
    abandon: float | None = attrs.field(default=5.0, validator=_seconds)
    keepalive: float | None = attrs.field(default=60.0, validator=_seconds)
    # (No decorator makes this default: not every type checker knows those.)
    user_timeout: float | None = attrs.field(
        default=attrs.Factory(_twice_keepalive, takes_self=True), validator=_seconds
    )

    def capped(self, seconds: float | None, *names: str) -> Deadlines:
        """
        These deadlines with an upper limit on some.

        @param seconds: the most that C{names} may last, also those that were None; None
            changes nothing.
        """
        if seconds is None:
            return self
        shorter = {name: min(seconds, getattr(self, name) or seconds) for name in names}
        return attrs.evolve(self, **shorter)

    def body_seconds(self, elapsed: float, received: int, idle: float | None) -> float | None:
        """
        How long from now a body may go on without another byte; None for ever.

        @param elapsed: seconds since it began.
        @param received: bytes of it that have come.
        @param idle: how much longer silence may last, whatever was earned in a burst.
        """
        limits = []
        if self.body is not None:
            limits.append(self.body - elapsed)
        if self.body_rate is not None and self.body_grace is not None:
            limits.append(max(self.body_grace, received / self.body_rate) - elapsed)
        if idle is not None:
            limits.append(idle)
        return max(0.0, min(limits)) if limits else None

    def connection_body_seconds(self, elapsed: float, received: int) -> float | None:
        """
        L{body_seconds} for a body that ends with its connection, which a thread waits for: with
        L{CONNECTION_BODY_SECONDS} for all of it, unless L{body} says another time or L{body_rate}
        that there is no least rate either.
        """
        seconds = self.body_seconds(elapsed, received, self.idle)
        if self.body is not None or self.body_rate is None:
            return seconds
        left = max(0.0, CONNECTION_BODY_SECONDS - elapsed)
        return left if seconds is None else min(seconds, left)
