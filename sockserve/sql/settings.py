"""
The settings of a source: how it asks for rows, and when one that has failed is tried again.

This room owns their defaults, and what they may be.  It must not know databases, or how users write
them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import attrs

from sockserve.interfaces import ConfigurationError

__all__ = ["RetryPolicy", "SourceSettings"]

#: The longest of all seconds here: a year.  No database reckons with infinite ones.
MOST_SECONDS = 366 * 86400.0

#: The largest of all whole numbers: what any database takes.
MOST = 2**31 - 1

#: The most doublings that are reckoned with: 2**40 seconds are 35,000 years.
_MOST_DOUBLINGS = 40


def _seconds(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """A number above 0, of at most L{MOST_SECONDS}."""
    _check(attribute.name, value, MOST_SECONDS)


def _whole(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """A whole number above 0, of at most L{MOST}."""
    _check(attribute.name, value, MOST)
    if not isinstance(value, int):
        raise ConfigurationError(f"{attribute.name}: {value!r} is not a whole number")


def _check(name: str, value: object, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigurationError(f"{name}: {value!r} is not a number above 0")
    if value > most:
        raise ConfigurationError(f"{name}: {value!r} is more than {most:.0f}")


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """
    A policy of retries: when a row whose handler has failed is tried again.

    @ivar attempts: how often it is tried in all, before it is set aside.  10: with the rest as it
        is, a row outlives a fault of a quarter of an hour.
    @ivar first: the seconds before the second attempt, which double with each further one.
    @ivar longest: the most seconds between two.
    @ivar random: gives a number between 0 and 1.  A wait is cut by up to its half, so that rows
        that have failed together do not come back together.
    """

    attempts: int = attrs.field(default=10, validator=_whole)
    first: float = attrs.field(default=2.0, validator=_seconds)
    longest: float = attrs.field(default=3600.0, validator=_seconds)
    random: Callable[[], float] = random.random

    def delay(self, attempts: int) -> float | None:
        """
        The seconds until a row may be tried again that has been for C{attempts} times; None when
        these were enough.
        """
        if attempts >= self.attempts:
            return None
        doublings = min(attempts - 1, _MOST_DOUBLINGS)
        wait = min(self.longest, self.first * float(2**doublings))
        return wait * (1.0 - self.random() / 2.0)


@attrs.frozen(kw_only=True)
class SourceSettings:
    """
    The settings of a source: how its table is asked for rows.

    @ivar batch: the most rows that are claimed at once.  100: what is claimed and not served yet
        is what a crash of this process delays.
    @ivar lease: the seconds after which others may claim what this process has claimed, if it has
        died meanwhile; while it lives, its leases are extended.  30: much longer than a reactor is
        kept busy by anything.
    @ivar poll: the seconds between two looks for new rows, where nobody tells of them: in SQLite
        those of other processes, in PostgreSQL while the connection that listens is broken.
        0.05: a look at SQLite takes some microseconds.
    @ivar policy: when a row that has failed is tried again.
    """

    batch: int = attrs.field(default=100, validator=_whole)
    lease: float = attrs.field(default=30.0, validator=_seconds)
    poll: float = attrs.field(default=0.05, validator=_seconds)
    policy: RetryPolicy = attrs.Factory(RetryPolicy)
