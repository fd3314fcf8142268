"""
The settings of a server object: the class variables of sockserve's that a program may give it.

This room owns their defaults, which refuse nothing that the standard library takes.  It must not
know what comes of them, nor import what serves: all that a program which imports a drop-in module
has to wait for is in here.
"""

from __future__ import annotations

from sockserve.core.deadlines import Deadlines
from sockserve.http.limits import DropInHTTPLimits

__all__ = ["DEFAULT_DEADLINES", "DEFAULT_MAX_THREADS", "DropInLimits", "keep_own_variables"]

#: The deadlines of a server, where the program does not say.  One that waits for ever, waits
#: for ever; but a client that says nothing at all when TLS is spoken is not waited for.  10:
#: as L{Deadlines}.
DEFAULT_DEADLINES = Deadlines(
    handshake=10.0, idle=None, header=None, body_rate=None, write=None, drain=None
)


#: The most threads of a server, where the program does not say.  One that keeps a thread for
#: each connection, as all did, works as before with so many; a runaway one does not take the
#: machine with it.
DEFAULT_MAX_THREADS = 1000


class DropInLimits(DropInHTTPLimits):
    """
    The limits of a drop-in server, as class variables: a base for each protocol that has some.

    @cvar max_datagrams: the most datagrams served or waiting for a thread at once; others wait
        in the system's buffer.  By default, any number.
    """

    max_datagrams: int | None = None


def keep_own_variables(cls: type, standard: type | None) -> None:
    """
    Give a drop-in class those variables that the standard library's of its name does not take from
    its bases.  A program may set one on a base: C{TCPServer.allow_reuse_address = True} is not
    meant for C{UDPServer}, which has its own.
    """
    if standard is None or standard is cls:
        return
    for name, value in vars(standard).items():
        is_of_a_base = any(hasattr(base, name) for base in standard.__bases__)
        is_variable = value is None or isinstance(value, int)
        if is_variable and is_of_a_base and not name.startswith("_") and name not in vars(cls):
            setattr(cls, name, value)
