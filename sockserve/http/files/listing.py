"""
The listing of a folder: a page for people, or JSON.

This room owns what is said of each entry, and in which order they are.  It must not know the disk,
or requests.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from string import Template
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from sockserve.http.files.disk import Entry
from sockserve.http.files.targets import link_to, shown

__all__ = ["CONTENT_SECURITY_POLICY", "Order", "json_listing", "listing_page", "read_order"]

_PAGE = files("sockserve.http").joinpath("templates/listing.html").read_text("utf-8")
_TEMPLATE = Template(_PAGE)
_STYLE = re.findall("<style>(.*?)</style>", _PAGE, re.DOTALL)[0]
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

#: The page has its own style, and nothing else: whatever a name may come to, it is no script.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'"
)

#: By word: the heading, the key to sort by, and whether the greatest are wanted first.
_ORDERS: dict[str, tuple[str, Callable[[Entry], Any], bool]] = {
    "name": ("Name", lambda entry: (entry.name.lower(), entry.name), False),
    "size": ("Size", lambda entry: 0 if entry.is_folder else entry.size, True),
    "time": ("Modified", lambda entry: entry.modified, True),
}

#: Control characters as text: a line's end in a name is to be seen.
_CONTROL_CHARACTERS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Order(NamedTuple):
    """
    An order of entries; folders are first in any.

    @ivar key: C{name}, C{size} or C{time}.
    @ivar is_descending: whether the last by that is first.
    """

    key: str = "name"
    is_descending: bool = False

    def sort(self, entries: Iterable[Entry]) -> list[Entry]:
        """Put entries in this order; those that are equal in it, and folders by size, by name."""
        _, by_name, _ = _ORDERS["name"]
        _, by_key, _ = _ORDERS[self.key]
        in_order = sorted(entries, key=by_name)
        in_order.sort(key=by_key, reverse=self.is_descending)
        return sorted(in_order, key=lambda entry: not entry.is_folder)


def read_order(query: str) -> Order:
    """The order that a query with its question mark asks for; what is not known is ignored."""
    fields = parse_qs(query.removeprefix("?"), max_num_fields=None)
    key = fields.get("sort", [""])[-1]
    if key not in _ORDERS:
        key = "name"
    word = fields.get("order", [""])[-1]
    return Order(key, word == "desc" or (word != "asc" and _ORDERS[key][2]))


def listing_page(segments: Sequence[str], entries: Sequence[Entry], order: Order) -> bytes:
    """
    Make the page.

    @param segments: the names on the way to the folder.
    @param entries: what is in it, in their C{order}.
    """
    rows = ['<li><a href="../">../</a></li>'] if segments else []
    rows += map(_row, entries)
    page = _TEMPLATE.substitute(
        path=html.escape(_path(segments)),
        trail=_trail(segments),
        order="\n".join(_order_link(key, order) for key in _ORDERS),
        rows="\n".join(rows),
        summary=_summary(entries),
    )
    return page.encode()


def json_listing(segments: Sequence[str], entries: Sequence[Entry]) -> bytes:
    """The same as JSON, which the documentation describes."""
    listed = [
        {
            "name": shown(entry.name),
            "type": "folder" if entry.is_folder else "file",
            "size": None if entry.is_folder else entry.size,
            "modified": _moment(entry).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "href": _link(entry),
        }
        for entry in entries
    ]
    path = "/" + "".join(f"{shown(name)}/" for name in segments)
    return (json.dumps({"path": path, "entries": listed}, ensure_ascii=False) + "\n").encode()


def _text(name: str) -> str:
    return shown(name).translate(_CONTROL_CHARACTERS)


def _path(segments: Sequence[str]) -> str:
    return "/" + "".join(f"{_text(name)}/" for name in segments)


def _trail(segments: Sequence[str]) -> str:
    """The path, each folder on it a link; the last is the one that is shown."""
    words = ["/", *(f"{_text(name)}/" for name in segments)]
    above = [
        f'<a href="{"../" * (len(segments) - depth)}">{html.escape(word)}</a>'
        for depth, word in enumerate(words[:-1])
    ]
    return "".join([*above, html.escape(words[-1])])


def _order_link(key: str, order: Order) -> str:
    """A link to the page in the order of C{key}, or in the reverse one if that is this one."""
    heading, _, is_descending = _ORDERS[key]
    mark, now = "", ""
    if key == order.key:
        is_descending = not order.is_descending
        mark, now = (" \u25bc" if order.is_descending else " \u25b2"), ' aria-current="true"'
    word = "desc" if is_descending else "asc"
    return f'<a class="{key}" href="?sort={key}&amp;order={word}"{now}>{heading}{mark}</a>'


def _row(entry: Entry) -> str:
    text = html.escape(_text(entry.name))
    slash, size = ("/", "") if entry.is_folder else ("", _size(entry.size))
    moment = _moment(entry)
    return (
        f'<li><a href="{_link(entry)}">{text}{slash}</a> <span>{size}</span>'
        f' <time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">{moment:%Y-%m-%d %H:%M} UTC</time></li>'
    )


def _link(entry: Entry) -> str:
    return link_to(entry.name) + ("/" if entry.is_folder else "")


def _moment(entry: Entry) -> datetime:
    try:
        return datetime.fromtimestamp(entry.modified, UTC)
    except (OverflowError, ValueError, OSError):  # a disk may say any number
        return datetime.fromtimestamp(0, UTC)


def _size(size: int) -> str:
    """A size to read: three digits or so, and their unit."""
    amount, unit = float(size), 0
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.{0 if unit == 0 or amount >= 9.95 else 1}f} {_UNITS[unit]}"


def _summary(entries: Sequence[Entry]) -> str:
    if not entries:
        return "This folder is empty."
    folders = sum(entry.is_folder for entry in entries)
    counts = [(folders, "folder"), (len(entries) - folders, "file")]
    return ", ".join(f"{n:,} {noun}{'s' if n > 1 else ''}" for n, noun in counts if n)
