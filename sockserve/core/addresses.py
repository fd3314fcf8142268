"""
Addresses: a client's, as every other room sees it.

This room owns how an address of Twisted's is written as a socket gives it.  It must not know
sockets or who is admitted.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address

__all__ = ["socket_address"]


def socket_address(address: Any) -> Any:
    """
    A Twisted address as a socket gives it.

    @return: a pair or a quadruple for IP; for UNIX sockets the path, bytes for an abstract
        name, or an empty string where there is none.
    """
    if isinstance(address, IPv4Address):
        return (address.host, address.port)
    if isinstance(address, IPv6Address):
        return (address.host, address.port, address.flowInfo, address.scopeID)
    name = getattr(address, "name", None)
    if name is None:
        return ""
    # Linux's abstract names are bytes there, too.
    return name if name.startswith(b"\0") else os.fsdecode(name)
