"""
Forms: how the values of options are written, and what the table of options notes of each.

This room owns the kinds of values, their types as TOML writes them, and the form of a line of that
table (L{sockserve.run.options.words}).  It must not know which words there are, nor how a value is
checked (L{sockserve.run.values}).
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import attrs
from msgspec import Meta

from sockserve.interfaces import Phase

__all__ = [
    "KEEPALIVE",
    "Bytes",
    "Count",
    "Counted",
    "Deadlines",
    "Form",
    "Group",
    "Notes",
    "Port",
    "Queue",
    "Rate",
    "Seconds",
    "Text",
    "Texts",
    "word",
]


#: What C{timeout} takes besides phases: names in L{Deadlines<sockserve.Deadlines>}, with dashes.
KEEPALIVE = ("keepalive", "user-timeout")


class Group(Enum):
    """A heading in the help, and in the reference."""

    SERVED = "What is served"
    WHERE = "Where"
    WORKERS = "Workers"
    TIMES = "Deadlines and rates"
    LIMITS = "Limits"
    CLIENTS = "Clients"
    LOGS = "Logs"
    COMMAND = "The command"


class Form(Enum):
    """A form in which the value of a word is written; each has a check of its own."""

    TEXT = "text"
    DESCRIPTIONS = "descriptions"
    PORT = "port"
    NUMBER = "number"
    FLAG = "flag"
    CHOICE = "choice"
    LIMIT = "limit"
    RATE = "rate"
    SECONDS = "seconds"
    DEADLINES = "deadlines"
    NETWORKS = "networks"
    FIELDS = "header fields"
    HANDLER = "handler"
    SERVER_OBJECT = "server object"
    CHECKERS = "checkers"
    URLS = "urls"


@attrs.frozen
class Notes:
    """
    The table's notes on a word, besides its type and its description.

    @ivar metavar: what stands for the value in the help; empty for a flag.
    @ivar default: as a user would write it; None where there is none.
    @ivar short: the letter of the short option.
    @ivar setting: the setting it is for, where that has another name.
    @ivar is_list: whether the option may be given several times.
    @ivar goes_with_object: whether it goes with a server object, which has a socket and a handler
        of its own.
    @ivar rivals: the words that say the same thing: what is said of one in a place that counts
        more, takes the place of the others.
    @ivar page: what the reference says besides the description, in Markdown.
    """

    group: Group
    form: Form
    metavar: str = ""
    default: str | None = None
    short: str | None = None
    setting: str | None = None
    is_list: bool = False
    goes_with_object: bool = False
    rivals: tuple[str, ...] = ()
    page: str = ""


def word(description: str, group: Group, form: Form, metavar: str = "", **notes: object) -> Meta:
    """The annotation of one word in the table."""
    told = Notes(group, form, metavar, **notes)  # type: ignore[arg-type]
    return Meta(description=description, extra={"notes": told})


# Types of values, as TOML writes them

Text = Annotated[str, Meta(min_length=1)]
Texts = Text | list[Text]
Count = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Queue = Annotated[int, Meta(ge=0)]
Bytes = Annotated[int, Meta(ge=0)] | Annotated[str, Meta(pattern="^([0-9]{1,18}[kKmMgG]?|none)$")]
Counted = Count | Annotated[str, Meta(pattern="^([0-9]{1,18}|none)$")]
_TIME = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)"
Seconds = (
    Annotated[float, Meta(gt=0)]
    | Annotated[str, Meta(pattern=rf"^({_TIME}|({_TIME}(ms|s|m|h|d))+|none)$")]
)
Rate = Annotated[float, Meta(gt=0)] | Annotated[str, Meta(pattern="^([0-9.]+[kKmMgG]?|none)$")]
Deadlines = (
    Texts
    | Annotated[
        dict[str, Seconds],
        Meta(extra_json_schema={"propertyNames": {"enum": [*map(str, Phase), *KEEPALIVE]}}),
    ]
)
