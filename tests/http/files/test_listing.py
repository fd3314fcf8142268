"""Listings without a disk: what is said of entries, and in which order they are."""

import json
import re
from html import unescape
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes, urljoin

import pytest

from sockserve.http.files.disk import Entry
from sockserve.http.files.listing import (
    CONTENT_SECURITY_POLICY,
    Order,
    json_listing,
    listing_page,
    read_order,
)

#: 2001-09-09 01:46:40 UTC.
BILLION = 10**9

ENTRIES = [
    Entry("b.txt", False, 30, BILLION + 1),
    Entry("a.txt", False, 10, BILLION + 3),
    Entry("C.txt", False, 20, BILLION + 2),
    Entry("sub", True, 4096, BILLION),
    Entry("Deep", True, 1, BILLION + 9),
]


class Page(HTMLParser):
    """
    A page as its reader has it.

    @ivar links: address and text of each.
    """

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self._text: list[str] | None = None
        self.feed(page.decode())

    def handle_starttag(self, tag, attributes):
        if tag == "a":
            self._text = []
            self.links.append((dict(attributes)["href"], ""))

    def handle_data(self, data):
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag):
        if tag == "a":
            self.links[-1] = (self.links[-1][0], "".join(self._text))
            self._text = None


def listed(segments=(), entries=ENTRIES, query=""):
    order = read_order(query)
    return listing_page(segments, order.sort(entries), order)


def names(query):
    return [entry.name for entry in read_order(query).sort(ENTRIES)]


# Order


@pytest.mark.parametrize(
    ("query", "order"),
    [
        ("", Order("name", False)),
        ("?sort=name&order=desc", Order("name", True)),
        ("?sort=size", Order("size", True)),
        ("?sort=size&order=asc", Order("size", False)),
        ("?sort=time", Order("time", True)),
        ("?order=desc", Order("name", True)),
        ("?sort=time&order=sideways", Order("time", True)),
        ("?sort=nonsense&order=asc", Order("name", False)),
        ("?sort=SIZE", Order("name", False)),
        ("?sort=size&sort=time", Order("time", True)),
        ("?%00&sort&=&sort=%ff", Order("name", False)),
    ],
)
def test_an_order_is_asked_for_by_the_query(query, order):
    assert read_order(query) == order


@pytest.mark.parametrize(
    ("query", "in_order"),
    [
        ("", ["Deep", "sub", "a.txt", "b.txt", "C.txt"]),
        ("?order=desc", ["sub", "Deep", "C.txt", "b.txt", "a.txt"]),
        ("?sort=size&order=asc", ["Deep", "sub", "a.txt", "C.txt", "b.txt"]),
        ("?sort=size&order=desc", ["Deep", "sub", "b.txt", "C.txt", "a.txt"]),
        ("?sort=time&order=asc", ["sub", "Deep", "b.txt", "C.txt", "a.txt"]),
        ("?sort=time&order=desc", ["Deep", "sub", "a.txt", "C.txt", "b.txt"]),
    ],
)
def test_folders_are_first_in_any_order(query, in_order):
    assert names(query) == in_order


def test_each_order_is_a_link_and_the_one_there_is_leads_to_its_reverse():
    for query, name, size in [
        ("", "?sort=name&order=desc", "?sort=size&order=desc"),
        ("?order=desc", "?sort=name&order=asc", "?sort=size&order=desc"),
        ("?sort=size", "?sort=name&order=asc", "?sort=size&order=asc"),
    ]:
        links = {text.split(" ")[0]: link for link, text in Page(listed(query=query)).links}
        assert (links["Name"], links["Size"]) == (name, size)
        assert links["Modified"] == "?sort=time&order=desc"
        assert listed(query=query).count(b"aria-current") == 1


# Names


NASTY = [
    "a b", "?q", "#1", "100%", "%41", "&amp;", '"quoted"', "'single'", "<b>", "x:y", "//host",
    "javascript:alert(1)", "new\nline", "tab\tbed", "\x1b[31m", "caf\udce9", "日本", "\\back",
    "-", " leading", "two  spaces", "\u202egpj.exe", "a+b", "..a",
]  # fmt: skip


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("is_folder", [False, True])
def test_a_name_is_a_link_to_its_file_and_a_text(name, is_folder):
    page = listed(["sub"], [Entry(name, is_folder, 1, BILLION)])
    link, text = Page(page).links[-1]
    slash = "/" if is_folder else ""
    assert urljoin("http://host/sub/", link) == f"http://host/sub/{link}"
    assert "?" not in link
    assert "#" not in link
    assert unquote_to_bytes(link) == name.encode("utf-8", "surrogateescape") + slash.encode()
    assert text.endswith(slash)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", text)
    if name.isprintable():
        assert text == name + slash
    (listed_entry,) = json.loads(json_listing([], [Entry(name, is_folder, 1, BILLION)]))["entries"]
    assert listed_entry["href"] == link


def test_a_name_shows_what_cannot_be_seen():
    page = listed([], [Entry("new\nline\x7f", False), Entry("caf\udce9", False)])
    assert b">new\\x0aline\\x7f</a>" in page
    assert ">caf\ufffd</a>".encode() in page


@pytest.mark.parametrize("name", NASTY)
def test_so_it_is_in_the_path(name):
    page = listed([name, "b"], [])
    assert b"<b>" not in page
    shown = unescape(re.search("<title>Index of (.*?)</title>", page.decode())[1])
    assert shown.startswith("/")
    assert shown.endswith("/b/")


def test_the_path_is_links_to_the_folders_on_the_way():
    page = listed(["one", "two", "three"], [])
    assert Page(page).links[:3] == [("../../../", "/"), ("../../", "one/"), ("../", "two/")]
    assert "two/</a>three/</h1>" in page.decode()
    at = "http://host/one/two/three/"
    ways = [urljoin(at, link) for link, _ in Page(page).links[:3]]
    assert ways == ["http://host/", "http://host/one/", "http://host/one/two/"]
    assert "<h1>Index of /</h1>" in listed().decode()


# Sizes, times, counts


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (10 * 1024, "10 KiB"),
        (999 * 1024, "999 KiB"),
        (1023 * 1024, "1.0 MiB"),
        (5 * 2**30, "5.0 GiB"),
        (2**50, "1024 TiB"),
    ],
)
def test_a_size_is_short(size, text):
    assert f"<span>{text}</span>" in listed([], [Entry("a", False, size)]).decode()


def test_a_folder_has_no_size():
    assert "<span></span>" in listed([], [Entry("a", True, 4096)]).decode()


@pytest.mark.parametrize(
    ("modified", "text"),
    [
        (BILLION, '<time datetime="2001-09-09T01:46:40Z">2001-09-09 01:46 UTC</time>'),
        (-1, '<time datetime="1969-12-31T23:59:59Z">1969-12-31 23:59 UTC</time>'),
        (1e300, '<time datetime="1970-01-01T00:00:00Z">1970-01-01 00:00 UTC</time>'),
    ],
)
def test_a_time_has_its_zone(modified, text):
    assert text in listed([], [Entry("a", False, 1, modified)]).decode()


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ([], "This folder is empty."),
        (ENTRIES, "2 folders, 3 files"),
        (ENTRIES[:1], "1 file"),
        (ENTRIES[3:4], "1 folder"),
    ],
)
def test_it_says_how_much_there_is(entries, text):
    assert f"<p>{text}</p>" in listed([], entries).decode()


# The rest


def test_its_policy_allows_its_style_and_nothing_else():
    page = listed().decode()
    assert page.count("<style>") == 1
    assert not re.search(r"<script|\son\w+=|style=|<img|<link", page)
    assert re.fullmatch(
        "default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; base-uri 'none';"
        " form-action 'none'",
        CONTENT_SECURITY_POLICY,
    )


def test_as_json():
    assert json.loads(json_listing(["a b"], ENTRIES[2:4])) == {
        "path": "/a b/",
        "entries": [
            {
                "name": "C.txt",
                "type": "file",
                "size": 20,
                "modified": "2001-09-09T01:46:42Z",
                "href": "C.txt",
            },
            {
                "name": "sub",
                "type": "folder",
                "size": None,
                "modified": "2001-09-09T01:46:40Z",
                "href": "sub/",
            },
        ],
    }
