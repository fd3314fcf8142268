"""The handler of files in memory: what the answer is, and who waits for the disk."""

import errno
import functools
import io
import json
import os
import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorThreads
from twisted.logger import capturedLogs, formatEvent
from zope.interface import alsoProvides

from sockserve import ConfigurationError, Phase
from sockserve.core.deadlines import Deadlines
from sockserve.http import FileRequestHandler
from sockserve.http.files.disk import PIECE_BYTES
from sockserve.testing import HTTPExchange, HTTPResponse, run_http

pytestmark = pytest.mark.usefixtures("no_leaks")

#: A Saturday in 2001, as a file's time.
BILLION = 1_000_000_000
BILLION_DATE = "Sun, 09 Sep 2001 01:46:40 GMT"
LATER_DATE = "Sun, 09 Sep 2001 01:46:41 GMT"
ETAG = f'"{BILLION * 10**9:x}-a"'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "digits").write_text("0123456789")
    (tmp_path / "empty").touch()
    (tmp_path / "sub").mkdir()
    os.utime(tmp_path / "digits", (BILLION, BILLION))
    return tmp_path


def ask(root: Path, path: str, handler: Any = FileRequestHandler, **options: Any) -> HTTPResponse:
    return run_http(functools.partial(handler, directory=root), path=path, **options)


def made(cls: type[FileRequestHandler] = FileRequestHandler, **options: Any) -> FileRequestHandler:
    """A handler without a request."""
    return cls(None, None, None, **options)


# Which file, and what it is


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ("/srv/site", "/srv/site"),
        (b"/srv/\xe9", "/srv/\udce9"),
        (Path("/srv/site"), "/srv/site"),
        ("", "."),
        (None, "."),
    ],
)
def test_a_folder_may_be_said_in_any_way(given: Any, folder: str) -> None:
    assert made(directory=given).directory == folder


def test_a_class_may_say_it_once_for_all() -> None:
    class Site(FileRequestHandler):
        directory = "/srv/site"
        dotfiles = True

    assert (made(Site).directory, made(Site).dotfiles) == ("/srv/site", True)
    other = made(Site, directory="/srv/other", dotfiles=False)
    assert (other.directory, other.dotfiles) == ("/srv/other", False)


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("/", "/srv/"),
        ("/a", "/srv/a"),
        ("/a/", "/srv/a/"),
        ("/a%20b/../c?d=/e/", "/srv/c"),
        ("/../../a", "/srv/a"),
        ("http://host/a", "/srv/a"),
    ],
)
def test_a_path_is_a_file_in_the_folder(path: str, file: str) -> None:
    assert made(directory="/srv").translate_path(path) == file


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("page.html", "text/html"),
        ("PAGE.HTML", "text/html"),
        ("a.tar.gz", "application/gzip"),
        ("a.tar.Z", "application/octet-stream"),
        ("a.svgz", "application/gzip"),
        ("a.txt.br", "application/octet-stream"),
        ("a.nonsense", "application/octet-stream"),
        ("noend", "application/octet-stream"),
        ("folder.html/noend", "application/octet-stream"),
    ],
)
def test_the_type_is_told_by_the_end_of_the_name(name: str, kind: str) -> None:
    assert made().guess_type(f"/srv/{name}") == kind


def test_a_class_has_types_of_its_own() -> None:
    class Site(FileRequestHandler):
        extensions_map = {".html": "text/html; charset=utf-8", ".Z": "application/x-z"}
        default_content_type = "text/plain"

    kinds = [made(Site).guess_type(name) for name in ("a.HTML", "a.Z", "a.z", "a.css", "README")]
    assert kinds == [
        *("text/html; charset=utf-8", "application/x-z"),
        *("text/plain", "text/css", "text/plain"),
    ]


# The answer


@pytest.mark.parametrize(
    ("asked", "status", "said", "body"),
    [
        ({}, 200, {"Content-Length": "10"}, b"0123456789"),
        # Preconditions
        ({"If-None-Match": ETAG}, 304, {"ETag": ETAG, "Content-Type": None}, b""),
        ({"If-None-Match": '"other"'}, 200, {}, b"0123456789"),
        ({"If-Modified-Since": BILLION_DATE}, 304, {"ETag": ETAG}, b""),
        ({"If-Match": ETAG}, 200, {}, b"0123456789"),
        ({"If-Match": '"other"'}, 412, {"ETag": None}, None),
        # Ranges
        ({"Range": "bytes=2-4"}, 206, {"Content-Range": "bytes 2-4/10"}, b"234"),
        ({"Range": "bytes=-3"}, 206, {"Content-Range": "bytes 7-9/10"}, b"789"),
        ({"Range": "bytes=2-4", "If-Range": '"other"'}, 200, {}, b"0123456789"),
        ({"Range": "bytes=10-"}, 416, {"Content-Range": "bytes */10", "ETag": None}, b""),
        ({"Range": "lines=1-2"}, 200, {}, b"0123456789"),
    ],
)
def test_a_file_as_it_was_asked_for(
    root: Path, asked: dict[str, str], status: int, said: dict[str, str | None], body: bytes | None
) -> None:
    answer = ask(root, "/digits", headers=asked)
    assert answer.status == status
    assert {name: answer.headers[name] for name in said} == said
    if body is not None:
        assert answer.body == body
    if status in (200, 206):
        assert answer.headers["Last-Modified"] == BILLION_DATE
        assert (answer.headers["ETag"], answer.headers["Accept-Ranges"]) == (ETAG, "bytes")


def test_several_ranges_are_parts_of_one_body_with_the_length_that_was_said(root: Path) -> None:
    answer = ask(root, "/digits", headers={"Range": "bytes=0-1,5-6"})
    assert (answer.status, answer.complete) == (206, True)
    kind, _, boundary = answer.headers["Content-Type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    parts = answer.body.split(b"--" + boundary.encode())
    assert [part.partition(b"\r\n\r\n")[2].strip() for part in parts[1:-1]] == [b"01", b"56"]


@pytest.mark.parametrize("asked", [{}, {"Range": "bytes=2-4"}])
def test_head_is_the_head_of_the_whole_file(root: Path, asked: dict[str, str]) -> None:
    answer = ask(root, "/digits", method="HEAD", headers=asked)
    assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, "10", b"")


def test_an_empty_file(root: Path) -> None:
    answer = ask(root, "/empty")
    assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, "0", b"")


def test_a_file_of_the_future_is_one_of_now(root: Path) -> None:
    tomorrow = time.time() + 86400
    os.utime(root / "digits", (tomorrow, tomorrow))
    modified = parsedate_to_datetime(ask(root, "/digits").headers["Last-Modified"])
    assert modified.timestamp() <= time.time()


def test_a_folder_without_its_slash_is_moved(root: Path) -> None:
    answer = ask(root, "/sub?a=b")
    assert (answer.status, answer.headers["Location"]) == (301, "/sub/?a=b")


@pytest.mark.parametrize("path", ["/nothing", "/digits/", "/digits%00", "/.hidden", "/.git/digits"])
def test_what_is_not_to_be_had_is_not_there(root: Path, path: str) -> None:
    (root / ".hidden").touch()
    (root / ".git").mkdir()
    (root / ".git" / "digits").touch()
    assert ask(root, path).status == 404


@pytest.mark.parametrize(
    ("error", "status", "logged"),
    [
        (FileNotFoundError(), 404, False),  # an override's own, without a number
        (OSError(errno.ENAMETOOLONG, "too long"), 404, False),
        (OSError(errno.EACCES, "forbidden"), 404, True),
        (OSError(errno.ELOOP, "a loop"), 404, True),
        (PermissionError("not today"), 404, True),
        (OSError(errno.EMFILE, "too many"), 500, False),
        (OSError(errno.EIO, "broken"), 500, False),
        (ValueError("a mistake"), 500, False),
    ],
)
def test_whose_fault_an_error_is(root: Path, error: Exception, status: int, logged: bool) -> None:
    """The request's, the owner's, who may look into the log, or the server's."""
    lines = []

    class Fails(FileRequestHandler):
        def translate_path(self, path: str) -> str:
            raise error

        def log_error(self, format: str, *arguments: Any) -> None:
            lines.append(format % arguments)

    answer = ask(root, "/digits", Fails)
    assert answer.status == status
    assert (answer.error is error) is (status == 500)
    assert (f"/digits: {error}" in lines) is logged


def test_an_override_gives_no_way_out_of_the_folder(root: Path) -> None:
    class Leads(FileRequestHandler):
        def translate_path(self, path: str) -> str:
            return "/etc/passwd"

    assert ask(root, "/digits", Leads).status == 404


def test_an_override_may_serve_another_folder(root: Path) -> None:
    (root / "sub" / "page").write_text("page")

    class Leads(FileRequestHandler):
        def translate_path(self, path: str) -> str:
            self.directory = str(root / "sub")
            return os.path.join(self.directory, "page")

    assert ask(root / "sub" / "nowhere", "/x", Leads).body == b"page"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "text/plain; charset=utf-8"),
        ("caf\xe9".encode(), "text/plain; charset=utf-8"),
        ("caf\xe9".encode("latin-1"), "text/plain"),
        (b"x" * (PIECE_BYTES - 1) + "\xe9".encode(), "text/plain; charset=utf-8"),  # cut in two
        (b"x" * PIECE_BYTES + b"\xe9", "text/plain; charset=utf-8"),  # not looked at
    ],
)
@pytest.mark.parametrize(
    "asked", [{}, {"method": "HEAD"}, {"headers": {"Range": "bytes=1-2"}}], ids=str
)
def test_a_text_has_its_charset_however_it_is_asked_for(
    root: Path, content: bytes, kind: str, asked: dict[str, Any]
) -> None:
    (root / "text.txt").write_bytes(content)
    assert ask(root, "/text.txt", **asked).headers["Content-Type"] == kind


def test_a_class_has_a_charset_of_its_own_or_none(root: Path) -> None:
    class Old(FileRequestHandler):
        charset = "iso-8859-1"

    class Quiet(FileRequestHandler):
        charset = None

    class Told(FileRequestHandler):
        def guess_type(self, path: str) -> str:
            return "text/plain; charset=koi8-r"

    (root / "text.txt").write_bytes(b"caf\xe9")
    (root / "data.json").write_bytes(b"{}")
    kinds = [ask(root, "/text.txt", cls).headers["Content-Type"] for cls in (Old, Quiet, Told)]
    assert kinds == ["text/plain; charset=iso-8859-1", "text/plain", "text/plain; charset=koi8-r"]
    assert ask(root, "/data.json").headers["Content-Type"] == "application/json"


EXTRA = (("Cache-Control", "max-age=60"), ("X-Own", "1"), ("X-Own", "2"))


@pytest.mark.parametrize(
    ("path", "asked", "has_them"),
    [
        ("/digits", {}, True),
        ("/digits", {"Range": "bytes=0-1"}, True),
        ("/digits", {"If-None-Match": ETAG}, True),
        ("/", {}, True),
        ("/nothing", {}, False),
        ("/sub", {}, False),
        ("/digits", {"Range": "bytes=99-"}, False),
        ("/digits", {"If-Match": '"other"'}, False),
    ],
)
def test_extra_fields_go_with_files(
    root: Path, path: str, asked: dict[str, str], has_them: bool
) -> None:
    class Site(FileRequestHandler):
        extra_response_headers = EXTRA

    for handler in (Site, functools.partial(FileRequestHandler, extra_response_headers=EXTRA)):
        answer = ask(root, path, handler, headers=asked)
        fields = [(name, value) for name, value in answer.headers.items() if name in dict(EXTRA)]
        assert fields == (list(EXTRA) if has_them else [])


@pytest.mark.parametrize(
    "fields",
    [
        [("Content-Length", "5")],
        [("transfer-encoding", "chunked")],
        [("X Y", "z")],
        [("X", "y\r\nZ: z")],
        [("X", 5)],
        ["X: y"],
        5,
    ],
)
def test_a_field_that_cannot_be_added_is_refused_at_the_start(root: Path, fields: Any) -> None:
    class Site(FileRequestHandler):
        extra_response_headers = fields

    for handler in (Site, functools.partial(FileRequestHandler, extra_response_headers=fields)):
        with pytest.raises(ConfigurationError, match="extra_response_headers: "):
            ask(root, "/digits", handler)


# Folders


def test_a_folder_is_the_first_of_its_index_pages(root: Path) -> None:
    class Site(FileRequestHandler):
        index_pages = ("none.html", "sub", "home/page.txt", "digits")

    (root / "home").mkdir()
    (root / "home" / "page.txt").write_text("home")
    answer = ask(root, "/", Site)
    assert (answer.body, answer.headers["Content-Type"]) == (b"home", "text/plain; charset=utf-8")


def test_a_listing_has_links_and_no_more_than_can_be_had(root: Path) -> None:
    (root / "sub" / "<&>").touch()
    (root / "sub" / "b folder").mkdir()
    (root / "sub" / ".hidden").touch()
    answer = ask(root, "/sub/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    page = answer.body.decode()
    assert "<title>Index of /sub/</title>" in page
    assert re.findall("<li>(<a .*?</a>)", page) == [
        '<a href="../">../</a>',
        '<a href="b%20folder/">b folder/</a>',
        '<a href="%3C%26%3E">&lt;&amp;&gt;</a>',
    ]
    assert "../" not in ask(root, "/").body.decode(), "there is nothing above it"
    shown = ask(root, "/sub/", functools.partial(FileRequestHandler, dotfiles=True))
    assert b'href=".hidden"' in shown.body


def test_a_listing_is_json_for_whom_wants_that(root: Path) -> None:
    answer = ask(root, "/?sort=size&order=asc", headers={"Accept": "application/json"})
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Vary"] == "Accept"
    listing = json.loads(answer.body)
    assert listing["path"] == "/"
    assert [entry["name"] for entry in listing["entries"]] == ["sub", "empty", "digits"]
    assert listing["entries"][2] == {
        "name": "digits",
        "type": "file",
        "size": 10,
        "modified": "2001-09-09T01:46:40Z",
        "href": "digits",
    }
    page = ask(root, "/", headers={"Accept": "*/*"})
    assert page.headers["Vary"] == "Accept"
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert ask(root, "/nothing", headers={"Accept": "application/json"}).headers[
        "Content-Type"
    ] == ("application/problem+json")


def test_a_folder_that_goes_while_it_is_looked_for_is_not_there(root: Path) -> None:
    class Slow(FileRequestHandler):
        async def list_directory(self, path: str) -> None:
            os.rmdir(path)
            await super().list_directory(path)

    assert ask(root, "/sub/", Slow).status == 404


class Page(io.BytesIO):
    """A page that an override has made."""


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("size", [0, 4, PIECE_BYTES + 1])
def test_a_listing_of_ones_own_is_sent_and_closed(root: Path, waits: bool, size: int) -> None:
    page = Page(b"x" * size)

    def begin(handler: FileRequestHandler) -> Page:
        handler.send_response(200)
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        return page

    class Own(FileRequestHandler):
        if waits:

            async def list_directory(self, path: str) -> Page:
                return begin(self)
        else:

            def list_directory(self, path: str) -> Page:
                return begin(self)

    answer = ask(root, "/", Own)
    assert (answer.status, answer.body) == (200, b"x" * size)
    assert page.closed


def test_a_listing_of_ones_own_is_closed_also_when_it_cannot_be_read(root: Path) -> None:
    class Broken(Page):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "broken")

    page = Broken()

    class Own(FileRequestHandler):
        def list_directory(self, path: str) -> Page:
            return page

    assert ask(root, "/", Own).status == 500
    assert page.closed


def test_a_listing_of_ones_own_may_be_an_answer_by_itself(root: Path) -> None:
    class NoListing(FileRequestHandler):
        def list_directory(self, path: str) -> None:
            self.send_error(403)

    assert ask(root, "/", NoListing).status == 403


# The disk, one call after another


class Disk:
    """
    Threads for the disk, each of whose calls a test makes.

    @ivar calls: those that wait for it.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def call(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        result: Deferred[Any] = Deferred()
        self.calls.append((result, functools.partial(function, *arguments)))
        return result

    def step(self) -> None:
        """One of them has had its turn."""
        result, function = self.calls.pop(0)
        execute(function).chainDeferred(result)


class Download:
    """A connection to a handler whose reactor has threads."""

    def __init__(self, root: Path, path: str, **deadlines: Any) -> None:
        self.disk = Disk()
        self.exchange = HTTPExchange(
            functools.partial(FileRequestHandler, directory=root),
            attributes={"disk": self.disk},
            deadlines=Deadlines(**deadlines),
        )
        alsoProvides(self.exchange.clock, IReactorThreads)
        self.exchange.request(path=path)

    def step(self) -> None:
        """The disk has had its turn, and the handler goes on."""
        self.disk.step()
        self.exchange.advance(0)

    def answer(self) -> HTTPResponse:
        (answer,) = self.exchange.take_responses()
        return answer


def test_a_small_file_is_one_call_there_and_back(root: Path) -> None:
    download = Download(root, "/digits")
    assert (download.exchange.sent, len(download.disk.calls)) == (b"", 1)
    download.step()
    assert download.answer().body == b"0123456789"
    assert download.disk.calls == []


def test_a_large_one_is_a_call_for_each_piece(root: Path) -> None:
    (root / "large").write_bytes(b"x" * (2 * PIECE_BYTES + 1))
    download = Download(root, "/large")
    for pieces in (1, 2, 2):
        download.step()
        assert download.exchange.sent.count(b"x") >= pieces * PIECE_BYTES
    assert download.answer().body == b"x" * (2 * PIECE_BYTES + 1)
    assert download.disk.calls == []


def test_a_listing_is_a_call_of_its_own(root: Path) -> None:
    download = Download(root, "/")
    download.step()
    assert download.exchange.sent == b""
    download.step()
    assert b"digits" in download.answer().body


def test_a_file_that_shrinks_ends_the_connection(root: Path) -> None:
    """Which is the only way left to say that not all has come."""
    (root / "large").write_bytes(b"x" * (2 * PIECE_BYTES))
    download = Download(root, "/large")
    download.step()
    os.truncate(root / "large", PIECE_BYTES + 5)
    while download.disk.calls:
        download.step()
    assert download.exchange.done
    answer = download.answer()
    assert (answer.complete, len(answer.body)) == (False, PIECE_BYTES + 5)


@pytest.mark.parametrize("deadline", [Phase.HANDLE, None], ids=["a deadline", "the client"])
def test_a_file_is_closed_whatever_ends_the_download(root: Path, deadline: Phase | None) -> None:
    """By a call of its own, which no request waits for; else its descriptor would be left."""
    (root / "large").write_bytes(b"x" * (3 * PIECE_BYTES))
    download = Download(root, "/large", handle=10)
    download.step()
    assert len(download.disk.calls) == 1, "the next piece is about to be read"
    if deadline is None:
        download.exchange.lose()
    else:
        download.exchange.advance(10)
    while download.disk.calls:
        download.step()
    assert download.exchange.done
    assert download.exchange.expired == deadline


def test_a_file_that_cannot_be_closed_is_logged(root: Path) -> None:
    server = SimpleNamespace(reactor=SimpleNamespace(), disk=Disk())
    alsoProvides(server.reactor, IReactorThreads)
    handler = FileRequestHandler(None, None, server, directory=root)

    def fail() -> None:
        raise OSError(errno.EIO, "broken")

    handler._in_background(fail)
    with capturedLogs() as logged:
        server.disk.step()
    (event,) = logged
    assert formatEvent(event).startswith("a file could not be closed")


def test_where_there_are_no_threads_the_disk_is_waited_for(root: Path) -> None:
    """As in tests, which serve no other request meanwhile."""
    assert ask(root, "/digits").body == b"0123456789"


# What is withheld


def test_a_file_that_the_server_withholds_is_not_there(root: Path) -> None:
    os.link(root / "digits", root / "also")
    (root / "empty.1").touch()
    withheld = [str(root / name) for name in ("digits", "empty", "nowhere")]
    for name in ("digits", "also", "empty", "empty.1"):
        answer = ask(root, f"/{name}", attributes={"withheld": withheld})
        assert (name, answer.status) == (name, 404)
    accept = {"Accept": "application/json"}
    listing = ask(root, "/", headers=accept, attributes={"withheld": withheld})
    assert [each["name"] for each in json.loads(listing.body)["entries"]] == ["sub"]
