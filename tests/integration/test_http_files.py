"""FileRequestHandler: the files of a folder over HTTP, by real requests."""

import email
import email.policy
import errno
import functools
import http.client
import http.server
import io
import os
import re
import socket
import subprocess
import threading
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import pytest
from twisted.internet.task import Clock, deferLater

from sockserve.http import FileRequestHandler
from sockserve.http.files import disk as folders
from sockserve.http.server import ThreadingHTTPServer
from sockserve.service import SocketServerService
from tests.integration.servers import (
    PATIENCE_SECONDS,
    connect,
    in_thread,
    is_ended,
    read_all,
    running,
    serving,
    short,
    until,
)
from tests.integration.socketservers import looping
from tests.tools import need_tool

pytestmark = pytest.mark.usefixtures("no_leaks")

#: A Saturday in 2001, as a file's time.
BILLION = 1_000_000_000
BILLION_DATE = "Sun, 09 Sep 2001 01:46:40 GMT"

#: More than the sockets and queues between server and client hold.
LARGE_BYTES = 256 * 2**20


class Response(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "digits").write_text("0123456789")
    (root / "sub" / "page.html").write_text("<p>page</p>")
    os.utime(root / "digits", (BILLION, BILLION))
    return root


def of(root, handler=FileRequestHandler, **options):
    return functools.partial(handler, directory=str(root), **options)


def ask(server, *requests):
    """
    Send requests on one connection, and give the responses.

    @param requests: targets, or pairs of a target and headers, or triples of a method, a
        target and headers.
    """

    def talk():
        client = http.client.HTTPConnection(*server.server_address, timeout=PATIENCE_SECONDS)
        try:
            responses = []
            for request in requests:
                if isinstance(request, str):
                    request = ("GET", request, {})
                elif len(request) == 2:
                    request = ("GET", *request)
                method, target, headers = request
                client.putrequest(method, target)
                for name, value in headers.items():
                    client.putheader(name, value)
                client.endheaders()
                response = client.getresponse()
                responses.append(Response(response.status, response.headers, response.read()))
            return responses
        finally:
            client.close()

    return in_thread(talk)


async def ask_once(server, *request):
    return (await ask(server, request if len(request) > 1 else request[0]))[0]


async def statuses(server, targets):
    return {
        target: response.status
        for target, response in zip(targets, await ask(server, *targets), strict=True)
    }


# A file


async def test_a_file_and_its_headers(root):
    async with serving(of(root)) as server:
        got, head, again = await ask(server, "/digits", ("HEAD", "/digits", {}), "/digits")
    assert (got.status, got.body) == (200, b"0123456789")
    assert got.headers["Content-Length"] == "10"
    assert got.headers["Content-Type"] == "application/octet-stream"
    assert got.headers["Last-Modified"] == BILLION_DATE
    assert got.headers["Accept-Ranges"] == "bytes"
    assert re.fullmatch('"[^"]+"', got.headers["ETag"])
    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Length", "Content-Type", "Last-Modified", "ETag", "Accept-Ranges"):
        assert head.headers[name] == got.headers[name]
    assert again.body == got.body


@pytest.mark.parametrize("size", [0, 1, folders.PIECE_BYTES, 5 * folders.PIECE_BYTES + 1])
async def test_any_size(root, size):
    content = os.urandom(size)
    (root / "file").write_bytes(content)
    async with serving(of(root)) as server:
        got, head = await ask(server, "/file", ("HEAD", "/file", {}))
    assert got.body == content
    assert got.headers["Content-Length"] == head.headers["Content-Length"] == str(size)


async def test_the_etag_changes_with_content_and_time(root):
    async with serving(of(root)) as server:
        tags = []
        for content, ns in (("a", 10**18), ("ab", 10**18), ("ab", 10**18 + 1), ("a", 10**18)):
            (root / "file").write_text(content)
            os.utime(root / "file", ns=(ns, ns))
            tags.append((await ask_once(server, "/file")).headers["ETag"])
    assert len(set(tags)) == 3
    assert tags[0] == tags[3]


async def test_a_time_in_the_future_is_not_told(root):
    os.utime(root / "digits", (2**33, 2**33))
    async with serving(of(root)) as server:
        got = await ask_once(server, "/digits")
    modified, sent = (parsedate_to_datetime(got.headers[n]) for n in ("Last-Modified", "Date"))
    assert modified <= sent


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("page.html", "text/html; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("picture.PNG", "image/png"),
        ("data.json", "application/json"),
        ("archive.tar.gz", "application/gzip"),
        ("archive.tgz", "application/gzip"),
        ("archive.tar.Z", "application/octet-stream"),
        ("drawing.svgz", "application/gzip"),
        ("name", "application/octet-stream"),
        ("name.no-such-type", "application/octet-stream"),
        ("question?.html", "text/html; charset=utf-8"),
    ],
)
async def test_content_types(root, name, kind):
    (root / name).touch()
    async with serving(of(root)) as server:
        got = await ask_once(server, "/" + name.replace("?", "%3F"))
    assert got.headers["Content-Type"] == kind


# Which file


async def test_what_is_found_and_what_is_not(root):
    (root / "in").symlink_to("sub/page.html")
    (root / "insub").symlink_to("sub")
    (root / "out").symlink_to("../secret")
    (root / "up").symlink_to("..")
    (root / "loop").symlink_to("loop")
    (root / ".env").write_text("password")
    (root / ".git").mkdir()
    (root / ".git" / "config").touch()
    (root / ".well-known").mkdir()
    (root / ".well-known" / "token").touch()
    (root / "100%").touch()
    os.mkfifo(root / "fifo")
    expected = {
        **dict.fromkeys(["/digits", "//digits", "/./sub/../digits", "/digits?query"], 200),
        **dict.fromkeys(["/%64igits", "/sub%2Fpage.html", "/100%", "/100%25"], 200),
        **dict.fromkeys(["/../digits", "/sub/../../../digits", "/%2e%2e/digits"], 200),
        **dict.fromkeys(["/in", "/insub/page.html", "/.well-known/token"], 200),
        **dict.fromkeys(["/nothing", "/nothing/", "/digits/", "/digits%2F", "/digits/x"], 404),
        **dict.fromkeys(["/digits/.", "/%00", "/digits%00.html", "/" + "x" * 300], 404),
        **dict.fromkeys(["/../secret", "/%2e%2e/secret", "/..%2fsecret", "/sub/../../secret"], 404),
        **dict.fromkeys(["/out", "/up/secret", "/up", "/up/", "/loop", "/fifo"], 404),
        **dict.fromkeys(["/.env", "/.git/config", "/.git/", "/%2eenv", "/sub/../.env"], 404),
        **dict.fromkeys(["/sub", "/insub", "/.well-known", "//sub"], 301),
    }
    async with serving(of(root)) as server:
        assert await statuses(server, expected) == expected


async def test_dotfiles_when_asked_for(root):
    (root / ".hidden").mkdir()
    (root / ".hidden" / ".env").write_text("password")

    class Open(FileRequestHandler):
        dotfiles = True

    for handler in (of(root, dotfiles=True), of(root, Open)):
        async with serving(handler) as server:
            got, listing = await ask(server, "/.hidden/.env", "/")
        assert got.body == b"password"
        assert b".hidden/" in listing.body
    async with serving(of(root, Open, dotfiles=False)) as server:
        assert (await ask_once(server, "/.hidden/.env")).status == 404


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/sub", "/sub/"),
        ("/sub/deep?a=b&c=/d", "/sub/deep/?a=b&c=/d"),
        ("//sub", "/sub/"),
        ("//evil.example/..//sub", "/sub/"),
        ("//evil.example/%2e%2e/sub", "/sub/"),
        ("http://evil.example/sub", "/sub/"),
        ("/a%0d%0aX:%20y/../o%20d%C3%A9", "/o%20d%C3%A9/"),
    ],
)
async def test_a_folder_without_its_slash(root, target, location):
    (root / "o dé").mkdir()
    async with serving(of(root)) as server:
        got, _, after = await ask(server, target, ("HEAD", target, {}), "/digits")
    assert (got.status, got.headers["Location"], got.body) == (301, location, b"")
    assert after.status == 200


async def test_a_target_in_raw_bytes(root):
    (root / "café").write_text("UTF-8")
    (root / "caf\udce9").write_text("Latin-1")

    def talk(server):
        with connect(server.server_address) as client:
            head = b" HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
            client.sendall(b"GET /caf%E9" + head)
            return read_all(client)

    async with serving(of(root)) as server:
        assert (await ask_once(server, "/caf%C3%A9")).body == b"UTF-8"
        assert (await in_thread(talk, server)).endswith(b"\r\n\r\nLatin-1")


async def test_index_pages(root):
    for name, pages in {
        "both": ["index.html", "index.htm"],
        "second": ["index.htm"],
    }.items():
        (root / name).mkdir()
        for page in pages:
            (root / name / page).write_text(page)
    for name in ("folder", "fifo", "nowhere", "out"):
        (root / name).mkdir()
    (root / "folder" / "index.html").mkdir()
    os.mkfifo(root / "fifo" / "index.html")
    (root / "nowhere" / "index.html").symlink_to("nothing")
    (root / "out" / "index.html").symlink_to("../../secret")
    async with serving(of(root)) as server:
        got = await ask(server, "/both/", "/second/", "/folder/", "/fifo/", "/nowhere/", "/out/")
    both, second, *listed, out = got
    assert (both.body, both.headers["Content-Type"]) == (
        b"index.html",
        "text/html; charset=utf-8",
    )
    assert second.body == b"index.htm"
    for response in listed:
        assert b"Index of" in response.body
    # Whoever put it there wanted something else to be seen than a listing.
    assert out.status == 404


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EPERM])
async def test_what_may_not_be_read_looks_as_if_it_were_not_there(root, monkeypatch, reason):
    def refusing(*arguments):
        raise PermissionError(reason, os.strerror(reason))

    async with serving(of(root)) as server:
        monkeypatch.setattr(folders, "open_beneath", refusing)
        assert await statuses(server, ["/digits", "/"]) == {"/digits": 404, "/": 404}


async def test_a_folder_that_may_be_passed_but_not_read(root, monkeypatch):
    """As with mode 711: what is in it is served, its index page too, but not its listing."""
    real = os.open

    def refusing(path, *arguments, **options):
        if path == ".":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *arguments, **options)

    async with serving(of(root)) as server:
        monkeypatch.setattr(folders.os, "open", refusing)
        expected = {"/sub/page.html": 200, "/sub/": 404, "/": 404}
        assert await statuses(server, expected) == expected
        (root / "index.html").write_text("index")
        assert (await ask_once(server, "/")).body == b"index"


async def test_what_is_the_servers_fault_is_no_404(root, monkeypatch):
    def failing(*arguments):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with serving(of(root)) as server:
        with monkeypatch.context() as patch:
            patch.setattr(folders, "open_beneath", failing)
            assert (await ask_once(server, "/digits")).status == 500
        assert (await ask_once(server, "/digits")).status == 200


# Listings


async def test_a_listing_links_to_everything_that_can_be_had(root):
    names = [
        "a b",
        "&amp;",
        '"quoted"',
        "#1",
        "?q",
        "100%",
        "x:y",
        "javascript:alert(1)",
        "caf\udce9",
    ]
    names += ["<script>alert(1)</script>".replace("/", "\\"), "new\nline", "日本", "\\\\host", "é"]
    for name in names:
        (root / name).write_bytes(os.fsencode(name))
    (root / "in").symlink_to("sub")
    for hidden in ("out", "nowhere"):
        (root / hidden).symlink_to("../secret" if hidden == "out" else "nothing")
    (root / ".hidden").touch()
    os.mkfifo(root / "fifo")
    async with serving(of(root)) as server:
        listing = await ask_once(server, "/?sort=size")
        head = await ask_once(server, "HEAD", "/", {})
        links = re.findall(rb'<li><a href="([^"]*)"', listing.body)
        got = await ask(server, *("/" + link.decode() for link in links))
        sub = await ask_once(server, "/sub/")
    assert listing.headers["Content-Type"] == "text/html; charset=utf-8"
    assert listing.headers["Content-Length"] == str(len(listing.body))
    assert (head.status, head.body) == (200, b"")
    assert {unquote_to_bytes(link) for link in links} == {
        *(os.fsencode(name) for name in names),
        *(b"digits", b"sub/", b"in/"),
    }
    assert [response.status for response in got] == [200] * len(links)
    for link, response in zip(links, got, strict=True):
        if not link.endswith(b"/") and link != b"digits":
            assert response.body == unquote_to_bytes(link)
    listing.body.decode("utf-8")
    assert b"<script" not in listing.body
    assert b"&amp;amp;" in listing.body
    assert b'href="../"' in sub.body
    assert b'href="../"' not in listing.body


async def test_a_listing_escapes_its_own_name(root):
    (root / "<b>&").mkdir()
    async with serving(of(root)) as server:
        got = await ask_once(server, "/%3Cb%3E&/?<i>")
    assert b"&lt;b&gt;&amp;/" in got.body
    assert b"<b>" not in got.body
    assert b"<i>" not in got.body


async def test_a_long_listing(root):
    for number in range(3000):
        (root / f"{number:04}-{'x' * 50}").touch()
    async with serving(of(root)) as server:
        got = await ask_once(server, "/")
    assert len(got.body) > folders.PIECE_BYTES
    assert got.body.count(b"<li>") == 3000 + 2


# Ranges


@pytest.mark.parametrize(
    ("asked", "body", "content_range"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
        ("bytes=-20", b"0123456789", "bytes 0-9/10"),
        ("bytes=9-9,20-30", b"9", "bytes 9-9/10"),
    ],
)
async def test_one_range(root, asked, body, content_range):
    async with serving(of(root)) as server:
        got, whole = await ask(server, ("/digits", {"Range": asked}), "/digits")
    assert (got.status, got.body) == (206, body)
    assert got.headers["Content-Range"] == content_range
    assert got.headers["Content-Length"] == str(len(body))
    for name in ("ETag", "Last-Modified", "Content-Type"):
        assert got.headers[name] == whole.headers[name]
    assert (whole.status, whole.headers["Content-Range"]) == (200, None)


async def test_several_ranges(root):
    async with serving(of(root)) as server:
        got, after = await ask(server, ("/digits", {"Range": "bytes=7-,0-1,-1"}), "/digits")
    assert got.status == 206
    assert got.headers["Content-Range"] is None
    head = f"Content-Type: {got.headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + got.body, policy=email.policy.HTTP)
    assert message.get_content_type() == "multipart/byteranges"
    assert not message.defects
    parts = [
        (part["Content-Range"], part.get_payload(decode=True)) for part in message.iter_parts()
    ]
    assert parts == [
        ("bytes 7-9/10", b"789"),
        ("bytes 0-1/10", b"01"),
        ("bytes 9-9/10", b"9"),
    ]
    assert after.body == b"0123456789"


async def test_ranges_across_pieces_of_a_large_file(root):
    size = 3 * folders.PIECE_BYTES
    content = os.urandom(size)
    (root / "file").write_bytes(content)
    spans = [(folders.PIECE_BYTES - 5, folders.PIECE_BYTES + 5), (10, 2 * folders.PIECE_BYTES)]
    asked = "bytes=" + ",".join(f"{first}-{last}" for first, last in spans)
    async with serving(of(root)) as server:
        single, several = await ask(
            server, ("/file", {"Range": f"bytes={size // 2}-"}), ("/file", {"Range": asked})
        )
    assert single.body == content[size // 2 :]
    for first, last in spans:
        assert b"\r\n\r\n" + content[first : last + 1] + b"\r\n--" in several.body
    assert several.headers["Content-Length"] == str(len(several.body))


async def test_a_range_beyond_the_end(root):
    async with serving(of(root)) as server:
        got, after = await ask(server, ("/digits", {"Range": "bytes=10-"}), "/digits")
    assert (got.status, got.headers["Content-Range"]) == (416, "bytes */10")
    assert after.status == 200


@pytest.mark.parametrize(
    "asked", ["bytes=5-4", "lines=1-2", "bytes=0-,0-,0-", "bytes=" + "0-0," * 200, "nonsense"]
)
async def test_ranges_that_do_not_count(root, asked):
    async with serving(of(root)) as server:
        got = await ask_once(server, "/digits", {"Range": asked})
    assert (got.status, got.body) == (200, b"0123456789")


async def test_head_has_no_ranges(root):
    async with serving(of(root)) as server:
        got = await ask_once(server, "HEAD", "/digits", {"Range": "bytes=0-3"})
    assert (got.status, got.headers["Content-Length"]) == (200, "10")
    assert got.headers["Content-Range"] is None


async def test_going_on_with_a_download(root):
    """If-Range: the rest when nothing has changed, else everything."""
    rest = {"Range": "bytes=5-"}
    async with serving(of(root)) as server:
        first = await ask_once(server, "/digits")
        same = [{"If-Range": first.headers[name], **rest} for name in ("ETag", "Last-Modified")]
        for response in await ask(server, *(("/digits", headers) for headers in same)):
            assert (response.status, response.body) == (206, b"56789")
        (root / "digits").write_text("abcdefghij")
        for response in await ask(server, *(("/digits", headers) for headers in same)):
            assert (response.status, response.body) == (200, b"abcdefghij")


# Preconditions


async def test_a_cached_copy_is_still_good(root):
    async with serving(of(root)) as server:
        first = await ask_once(server, "/digits")
        etag = first.headers["ETag"]
        for method in ("GET", "HEAD"):
            for headers in (
                {"If-None-Match": etag},
                {"If-None-Match": f'"other", W/{etag}'},
                {"If-Modified-Since": BILLION_DATE},
                {"If-None-Match": etag, "Range": "bytes=0-1"},
            ):
                got, after = await ask(server, (method, "/digits", headers), "/digits")
                assert (got.status, got.body) == (304, b"")
                assert got.headers["ETag"] == etag
                assert after.body == b"0123456789"


async def test_a_cached_copy_is_stale(root):
    stale = [
        {"If-None-Match": '"other"'},
        {"If-None-Match": '"other"', "If-Modified-Since": formatdate(BILLION + 5, usegmt=True)},
        {"If-Modified-Since": formatdate(BILLION - 1, usegmt=True)},
        {"If-Modified-Since": "no date"},
    ]
    async with serving(of(root)) as server:
        for response in await ask(server, *(("/digits", headers) for headers in stale)):
            assert response.status == 200


async def test_a_precondition_fails(root):
    async with serving(of(root)) as server:
        for headers in (
            {"If-Match": '"other"'},
            {"If-Unmodified-Since": formatdate(BILLION - 1, usegmt=True)},
        ):
            got, after = await ask(server, ("/digits", headers), "/digits")
            assert got.status == 412
            assert b"0123456789" not in got.body
            assert after.status == 200
        # Preconditions are for what would else be served.
        assert (await ask_once(server, "/nothing", {"If-Match": '"other"'})).status == 404


# What can be overridden


async def test_the_folder_by_default_and_by_class(root, monkeypatch):
    class OfClass(FileRequestHandler):
        directory = root

    monkeypatch.chdir(root)
    for handler in (FileRequestHandler, OfClass):
        async with serving(handler) as server:
            assert (await ask_once(server, "/digits")).body == b"0123456789"


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
async def test_a_folder_in_any_way_to_say_it(root, kind):
    handler = functools.partial(FileRequestHandler, directory=kind(root))
    async with serving(handler) as server:
        assert (await ask_once(server, "/sub/page.html")).status == 200


async def test_overrides_of_types_pages_and_headers(root):
    class Site(FileRequestHandler):
        index_pages = ("page.html", "sub/page.html")
        extensions_map = {**FileRequestHandler.extensions_map, ".html": "text/x-template"}
        default_content_type = "text/plain"

        def guess_type(self, path):
            guess = super().guess_type(path)
            return guess + "; charset=utf-8" if guess.startswith("text/") else guess

        def end_headers(self):
            self.send_header("Access-Control-Allow-Origin", "*")
            super().end_headers()

    async with serving(of(root, Site)) as server:
        page, deeper, digits, missing = await ask(server, "/sub/", "/", "/digits", "/nothing")
    assert page.body == deeper.body == b"<p>page</p>"
    assert page.headers["Content-Type"] == "text/x-template; charset=utf-8"
    assert digits.headers["Content-Type"] == "text/plain; charset=utf-8"
    for response in (page, digits, missing):
        assert response.headers["Access-Control-Allow-Origin"] == "*"


async def test_an_override_of_translate_path(root, tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "style.css").write_text("style")

    class Application(FileRequestHandler):
        """A page for whatever is no file, and another folder below C{/static/}."""

        def translate_path(self, path):
            if path.startswith("/static/"):
                self.directory = str(tmp_path / "assets")
                return super().translate_path(path.removeprefix("/static"))
            if path == "/outside":
                return str(tmp_path / "secret")
            translated = super().translate_path(path)
            if os.path.exists(translated):
                return translated
            return os.path.join(self.directory, "sub/page.html")

    async with serving(of(root, Application)) as server:
        got = await ask(server, "/digits", "/some/view/", "/static/style.css", "/outside")
    assert [response.body for response in got[:3]] == [b"0123456789", b"<p>page</p>", b"style"]
    assert got[3].status == 404


async def test_overrides_of_list_directory(root):
    """As written for SimpleHTTPRequestHandler, and as a coroutine."""

    class NoListing(FileRequestHandler):
        def list_directory(self, path):
            self.send_error(403)

    class Own(FileRequestHandler):
        def list_directory(self, path):
            page = " ".join(sorted(os.listdir(path))).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            return io.BytesIO(page)

    class Logged(FileRequestHandler):
        async def list_directory(self, path):
            await super().list_directory(path)
            listed.append(path)

    listed = []
    for handler, status, body in (
        (NoListing, 403, b""),
        (Own, 200, b"digits sub"),
        (Logged, 200, b'href="digits"'),
    ):
        async with serving(of(root, handler)) as server:
            got, after = await ask(server, "/", "/digits")
        assert got.status == status
        assert body in got.body
        assert after.body == b"0123456789"
    assert listed == [f"{root}/"]


# The disk


async def test_the_reactor_never_touches_the_disk(root, monkeypatch):
    (root / "large").write_bytes(b"x" * 3 * folders.PIECE_BYTES)
    reactor_thread = threading.get_ident()
    calls = []

    def watched(name):
        call = getattr(os, name)

        def watching(*arguments, **options):
            calls.append(threading.get_ident() == reactor_thread)
            return call(*arguments, **options)

        return watching

    async with serving(of(root)) as server:
        with monkeypatch.context() as patch:
            for name in ("open", "close", "stat", "lstat", "fstat", "scandir", "pread"):
                patch.setattr(folders.os, name, watched(name))
            targets = ["/digits", "/large", "/", "/sub", "/nothing", ("HEAD", "/large", {})]
            for response in await ask(server, *targets):
                assert response.status < 500
    assert len(calls) > 10
    assert not any(calls)


async def test_a_reactor_without_threads_calls_at_once(root):
    """As in tests that have a C{Clock} for a reactor."""
    handler = FileRequestHandler(None, None, SimpleNamespace(reactor=Clock()), directory=root)
    assert await handler.on_disk(os.listdir, handler.directory) == os.listdir(root)


async def test_a_slow_disk_keeps_nobody_else_waiting(root, monkeypatch):
    arrived, go_on = threading.Event(), threading.Event()
    real = os.open

    def slow(path, *arguments, **options):
        if path == "digits":
            arrived.set()
            assert go_on.wait(PATIENCE_SECONDS)
        return real(path, *arguments, **options)

    async with serving(of(root)) as server:
        monkeypatch.setattr(folders.os, "open", slow)
        waiting = ask(server, "/digits")
        await until(arrived.is_set)
        assert (await ask_once(server, "/sub/page.html")).status == 200
        go_on.set()
        assert (await waiting)[0].body == b"0123456789"


def start_download(server, path="/large"):
    """A client that reads the head and the first bytes, and then nothing for now."""
    client = connect(server.server_address)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(1000)
    assert received.startswith(b"HTTP/1.1 200 "), received
    return client, len(received.partition(b"\r\n\r\n")[2])


def open_files():
    return [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]


@pytest.fixture
def large(root):
    """Larger than anything that may hold it; a hole, so that it costs nothing."""
    path = root / "large"
    path.touch()
    os.truncate(path, LARGE_BYTES)
    return path


async def test_a_slow_reader_does_not_make_the_server_read_ahead(root, large, monkeypatch):
    from twisted.internet import reactor

    read = [0]
    real = os.pread

    def counting(*arguments):
        data = real(*arguments)
        read[0] += len(data)
        return data

    def read_rest(client, received):
        while received < LARGE_BYTES and (piece := client.recv(2**20)):
            received += len(piece)
        return received

    monkeypatch.setattr(folders.os, "pread", counting)
    async with serving(of(root)) as server:
        client, received = await in_thread(start_download, server)
        with client:
            before = -1
            while before != read[0]:  # until it stands still
                before = read[0]
                await deferLater(reactor, 0.2)
            assert read[0] < LARGE_BYTES // 4
            assert await in_thread(read_rest, client, received) == LARGE_BYTES


@pytest.mark.parametrize("ended_by", ["client", "reset", "handle", "write", "lifetime", "stop"])
async def test_the_file_is_closed_whatever_ends_the_download(root, large, ended_by):
    # "write" passes 2 s after the sockets' buffers have filled, the others 2 s after the request or
    # the connection began.
    deadlines = short(**{ended_by: 2}) if ended_by in ("handle", "write", "lifetime") else short()
    async with serving(of(root), deadlines=deadlines) as server:
        client, _ = await in_thread(start_download, server)
        with client:
            assert str(large) in open_files()
            if ended_by == "client":
                client.close()
            elif ended_by == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.close()
            if ended_by != "stop":
                await until(lambda: str(large) not in open_files())
        # "stop": the service stops here, and aborts it 0.5 s (drain) later
    await until(lambda: str(large) not in open_files())


async def test_the_file_is_closed_when_the_client_leaves_while_the_disk_is_slow(
    root, large, monkeypatch
):
    arrived, go_on = threading.Event(), threading.Event()
    real = os.pread

    def slow(*arguments):
        arrived.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return real(*arguments)

    monkeypatch.setattr(folders.os, "pread", slow)
    async with serving(of(root), deadlines=short(handle=2)) as server:
        with await in_thread(connect, server.server_address) as client:
            client.sendall(b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n")
            await until(arrived.is_set)
            await in_thread(is_ended, client)  # 2 s later, without waiting for the disk
        assert str(large) in open_files()
        go_on.set()
        await until(lambda: str(large) not in open_files())


async def test_a_file_that_shrinks_ends_the_connection(root, large):
    def read_rest(client, received):
        while piece := client.recv(2**20):
            received += len(piece)
        return received

    async with serving(of(root)) as server:
        client, received = await in_thread(start_download, server)
        with client:
            os.truncate(large, 1000)
            assert await in_thread(read_rest, client, received) < LARGE_BYTES
        assert (await ask_once(server, "/large")).headers["Content-Length"] == "1000"


async def test_a_file_replaced_while_it_is_sent_is_the_old_one_to_the_end(root):
    (root / "file").write_bytes(b"o" * LARGE_BYTES)
    (root / "new").write_bytes(b"n" * LARGE_BYTES)

    def read_rest(client, received):
        kinds = set()
        while received < LARGE_BYTES and (piece := client.recv(2**20)):
            received += len(piece)
            kinds |= set(piece[:1] + piece[-1:])
        return received, bytes(kinds)

    async with serving(of(root)) as server:
        client, received = await in_thread(start_download, server, "/file")
        with client:
            os.replace(root / "new", root / "file")
            assert await in_thread(read_rest, client, received) == (LARGE_BYTES, b"o")


async def test_many_at_once(root):
    """More downloads than the pool has threads, each of several pieces."""
    content = os.urandom(3 * folders.PIECE_BYTES)
    (root / "file").write_bytes(content)

    def download(server, failures):
        client = http.client.HTTPConnection(*server.server_address, timeout=PATIENCE_SECONDS)
        try:
            for _ in range(5):
                client.request("GET", "/file")
                if client.getresponse().read() != content:
                    failures.append("differs")
        except OSError as error:
            failures.append(repr(error))
        finally:
            client.close()

    def all_of_them(server):
        failures = []
        threads = [threading.Thread(target=download, args=(server, failures)) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return failures

    async with serving(of(root)) as server:
        assert await in_thread(all_of_them, server) == []


async def test_curl_resumes_asks_for_parts_and_for_what_is_new(root, tmp_path):
    curl = need_tool("curl")
    content = os.urandom(3 * folders.PIECE_BYTES)
    (root / "file").write_bytes(content)
    os.utime(root / "file", (BILLION, BILLION))
    partial = tmp_path / "partial"
    partial.write_bytes(content[:100_000])

    def run(server, *options):
        host, port = server.server_address
        command = [curl, "-sS", "--max-time", "15", *options, f"http://{host}:{port}/file"]
        return subprocess.run(command, check=True, capture_output=True).stdout

    async with serving(of(root)) as server:
        await in_thread(run, server, "-C", "-", "-o", str(partial))
        assert partial.read_bytes() == content
        await in_thread(run, server, "-C", "-", "-o", str(partial))  # all of it is there
        assert partial.read_bytes() == content
        assert await in_thread(run, server, "-r", "-10") == content[-10:]
        assert await in_thread(run, server, "--http1.0") == content
        since = ("-z", "Mon, 10 Sep 2001 00:00:00 GMT")
        assert await in_thread(run, server, *since, "-w", "%{http_code}") == b"304"
        assert f"Content-Length: {len(content)}\r\n".encode() in await in_thread(run, server, "-I")


@pytest.mark.parametrize("make", [ThreadingHTTPServer, http.server.ThreadingHTTPServer])
async def test_a_server_object_serves_files_but_those_that_are_withheld(root, make):
    from twisted.internet import reactor

    service = SocketServerService(make(("127.0.0.1", 0), of(root)), reactor)
    service.server.withheld = [str(root / "digits")]
    async with running(service):
        page, digits = await ask(service.server, "/sub/page.html", "/digits")
    assert (page.status, page.body) == (200, b"<p>page</p>")
    assert digits.status == 404


async def test_a_program_serves_files(root):
    server = ThreadingHTTPServer(("127.0.0.1", 0), of(root))
    with looping(server):
        assert (await ask_once(server, "/digits")).body == b"0123456789"
