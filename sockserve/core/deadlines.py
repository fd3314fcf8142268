"""
Deadlines: the seconds each phase of a connection may last, and the one timer that keeps
them.

This room owns the defaults and the arithmetic.  It must not know which protocol
or handler a deadline is for, nor what is done on expiry. (reactor thread)
"""

from __future__ import annotations

from collections.abc import Callable, Container
from math import inf
from typing import Any

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from sockserve.core.clock import clock_of
from sockserve.interfaces import ConfigurationError, Phase

__all__ = [
    "CONNECTION_BODY_SECONDS",
    "KEEPALIVE_PROBES",
    "DeadlineTimer",
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


class DeadlineTimer:
    """
    The deadlines of one connection, on one delayed call.

    Arming writes a time into a table.  The delayed call is touched only when the
    new time is earlier than the one it waits for; a deadline that was disarmed or
    moved later costs one early wake-up, after which the call is set anew.  So a
    connection that re-arms C{idle} for every message never touches the reactor's
    heap (whose C{reset} to an earlier time is a linear search).

    @param clock: where time comes from: a reactor, or a clock that stands for one.
    @param expired: called with each phase whose deadline has passed.
    @ivar seconds: gives the clock's time; the clock's own function, as a connection asks often.
    """

    __slots__ = ("_call", "_clock", "_due", "_expired", "_wake_at", "seconds")

    def __init__(self, clock: IReactorTime, expired: Callable[[Phase], object]) -> None:
        self._clock: IReactorTime = clock_of(clock)
        self.seconds: Callable[[], float] = self._clock.seconds
        self._expired = expired
        #: When each armed phase expires.
        self._due: dict[Phase, float] = {}
        #: What the clock is to call, and when: at the earliest of these or before.
        self._call: IDelayedCall | None = None
        self._wake_at = inf

    def arm(self, phase: Phase, seconds: float | None, now: float | None = None) -> None:
        """
        Let C{phase} expire in C{seconds}; C{None} disarms it.

        @param now: the moment they count from, for a caller that has just asked for the time.
        """
        if seconds is None:
            self._due.pop(phase, None)
            return
        due = (self._clock.seconds() if now is None else now) + seconds
        self._due[phase] = due
        if due < self._wake_at:
            self._wake(due)

    def disarm(self, phase: Phase) -> None:
        """C{phase} has ended in time."""
        self._due.pop(phase, None)

    def disarm_all_but(self, phases: Container[Phase]) -> None:
        """Only C{phases} apply from now on."""
        for phase in [phase for phase in self._due if phase not in phases]:
            del self._due[phase]

    def next_due(self) -> tuple[Phase, float] | None:
        """The armed phase that expires first, and the seconds until then; None for none."""
        if not self._due:
            return None
        phase = min(self._due, key=self._due.__getitem__)
        return phase, max(0.0, self._due[phase] - self._clock.seconds())

    def stop(self) -> None:
        """Disarm everything, for good."""
        self._due.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._wake_at = -inf  # no time is earlier

    def _wake(self, at: float) -> None:
        # Cancelling and calling anew is O(log n); IDelayedCall.reset to an earlier
        # time searches the reactor's whole heap.
        if self._call is not None:
            self._call.cancel()
        self._wake_at = at
        self._call = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._fire_due)

    def _fire_due(self) -> None:
        self._call = None
        self._wake_at = inf
        now = self._clock.seconds()
        for phase in [phase for phase, due in self._due.items() if due <= now]:
            # An earlier expiry may have disarmed this one.
            if self._due.get(phase, inf) <= now:
                del self._due[phase]
                self._expired(phase)
        if self._due:
            earliest = min(self._due.values())
            if earliest < self._wake_at:
                self._wake(earliest)
