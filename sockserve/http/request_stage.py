"""
The stages of a request that a blocking handler answers.

This room owns their names, and how an operator is told of them.  It must not know what leads from
one to another (L{sockserve.http.blocking}).
"""

from __future__ import annotations

from enum import Enum

__all__ = ["RequestStage", "stage_word"]


class RequestStage(Enum):
    """The stand of a request with its handler; each can only be followed by a later one."""

    #: Its body is on its way, or the answers before its own are.
    GATHERED = "gathered"
    #: It waits for a place.
    QUEUED = "queued"
    #: There was a place, and its client had gone.
    DROPPED = "dropped"
    RUNNING = "running"
    #: Its handler is still running, and nobody waits for it.
    ABANDONED = "abandoned"
    #: It has finished, or never will.
    OVER = "over"


#: What an operator is told of one; of others C{handle}.
_WORDS = {RequestStage.GATHERED: "body", RequestStage.QUEUED: "queue"}


def stage_word(stage: RequestStage) -> str:
    """The word for what is under way at a stage."""
    return _WORDS.get(stage, "handle")
