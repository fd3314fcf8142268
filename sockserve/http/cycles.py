"""
The cycles that there are, by the kind of the handler that they answer with.

This room owns the choice: once for a server, or for each request if its handler is asked about
each.  It must not know what a request comes on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from sockserve.core.handler_kinds import HandlerKind
from sockserve.http.blocking import BlockingCycle
from sockserve.http.coroutine import CoroutineCycle
from sockserve.http.cycle import CycleOwner, RequestCycle
from sockserve.http.h1.head import RequestHead
from sockserve.http.settings import HTTPSettings

__all__ = ["MakeCycle", "cycle_maker"]

#: Makes the cycle of a request from its owner, its head, and when that came.
MakeCycle = Callable[[CycleOwner, RequestHead, float], RequestCycle]

#: What answers a request, by the kind of its handler; of others, each is asked about.
_CYCLES: dict[HandlerKind, MakeCycle] = {
    HandlerKind.HTTP_COROUTINE: CoroutineCycle,
    HandlerKind.HTTP_BLOCKING: BlockingCycle,
    HandlerKind.HTTP_STOCK: functools.partial(BlockingCycle, is_stock=True),
}


def cycle_maker(settings: HTTPSettings) -> MakeCycle:
    """The maker of the cycles of a server's requests."""

    blocks = settings.blocks
    if blocks is None:
        return _CYCLES[settings.kind]
    blocking, coroutine = _CYCLES[HandlerKind.HTTP_BLOCKING], _CYCLES[HandlerKind.HTTP_COROUTINE]

    def choose(owner: CycleOwner, head: RequestHead, began: float) -> RequestCycle:
        return blocking(owner, head, began) if blocks(head) else coroutine(owner, head, began)

    return choose
