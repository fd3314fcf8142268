"""Ports for servers that have to be told one."""

import random
import socket


def free_port() -> int:
    """
    Give a port that is free for TCP and UDP: below those that the system gives to clients,
    one of which might have it when it is listened on.
    """
    while True:
        number = random.SystemRandom().randrange(16_384, 32_768)
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagram:
            try:
                stream.bind(("", number))
                datagram.bind(("", number))
            except OSError:
                continue
        return number
