"""Makes C{uvloop} a reactor of C{--reactor}, as those of Twisted's own."""

from twisted.application.reactors import Reactor

uvloop = Reactor(
    "uvloop",
    "sockserve.reactors.uvloop",
    "libuv's loop by way of uvloop: the extra sockserve[uvloop].",
)
