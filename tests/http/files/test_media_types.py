"""Media types by name, and charsets by content."""

import mimetypes
import re

import pytest

from sockserve.http import FileRequestHandler
from sockserve.http.files.media_types import MEDIA_TYPES, is_in_charset

#: What browsers refuse, or show otherwise, if it is not said right.
NEEDED = {
    "page.html": "text/html",
    "app.js": "text/javascript",
    "app.MJS": "text/javascript",
    "style.css": "text/css",
    "module.wasm": "application/wasm",
    "drawing.svg": "image/svg+xml",
    "data.json": "application/json",
    "app.js.map": "application/json",
    "site.webmanifest": "application/manifest+json",
    "photo.webp": "image/webp",
    "photo.avif": "image/avif",
    "font.woff2": "font/woff2",
    "read.me.md": "text/markdown",
    "feed.xml": "application/xml",
    "film.mp4": "video/mp4",
    "sound.mp3": "audio/mpeg",
    "notes.txt": "text/plain",
    "table.csv": "text/csv",
    "paper.pdf": "application/pdf",
    "archive.zip": "application/zip",
}


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("machine", ["empty", "wrong"])
def test_what_browsers_need_is_the_same_on_each_machine(name, machine, monkeypatch):
    said = (None, None) if machine == "empty" else ("application/x-wrong", None)
    monkeypatch.setattr(mimetypes, "guess_type", lambda *arguments, **words: said)
    handler = FileRequestHandler(None, None, None)
    assert handler.guess_type(f"/srv/{name}") == NEEDED[name]


def test_the_machine_has_the_rest(monkeypatch):
    monkeypatch.setattr(mimetypes, "guess_type", lambda path: ("application/x-own", None))
    assert FileRequestHandler(None, None, None).guess_type("a.own") == "application/x-own"


def test_a_class_goes_before_both():
    class Site(FileRequestHandler):
        extensions_map = {".js": "text/x-js", ".JSON": "text/x-json"}

    kinds = [Site(None, None, None).guess_type(name) for name in ("a.JS", "a.JSON", "a.json")]
    assert kinds == ["text/x-js", "text/x-json", "application/json"]


def test_the_table_is_spelled_right():
    for extension, kind in MEDIA_TYPES.items():
        assert re.fullmatch(r"\.[a-z0-9]+", extension)
        assert re.fullmatch(r"[a-z]+/[a-z0-9.+-]+", kind)


@pytest.mark.parametrize(
    ("beginning", "is_whole", "kind", "is_text"),
    [
        (b"", True, "text/plain", True),
        (b"plain", True, "text/plain", True),
        ("caf\xe9 日本".encode(), True, "text/plain", True),
        (b"\xef\xbb\xbfmarked", True, "text/plain", True),
        ("caf\xe9".encode("latin-1"), True, "text/plain", False),
        ("日本".encode("utf-16"), True, "text/plain", False),
        ("plain".encode("utf-16-le"), True, "text/plain", False),
        # A character is cut in two where the piece ends, or where the file does
        ("caf\xe9".encode()[:-1], False, "text/plain", True),
        ("caf\xe9".encode()[:-1], True, "text/plain", False),
        # It says so itself
        (b'<meta charset="utf-8">', True, "text/html", True),
        (b"<meta charset=UTF8>", True, "text/html", True),
        (b"<meta charset='iso-8859-1'>", True, "text/html", False),
        (b'<meta content="text/html; charset=shift_jis">', True, "text/html", False),
        (b'@charset "iso-8859-15";', True, "text/css", False),
        (b"<meta charset=nonsense>", True, "text/html", False),
        (b"charset=iso-8859-1", True, "text/plain", True),
        (b" " * 1024 + b"<meta charset=iso-8859-1>", True, "text/html", True),
    ],
)
def test_a_text_is_in_utf_8_if_it_can_be_decoded_so(beginning, is_whole, kind, is_text):
    assert is_in_charset(kind, beginning, is_whole, "utf-8") is is_text


def test_a_text_may_be_in_another():
    text = "caf\xe9".encode("latin-1")
    assert is_in_charset("text/plain", text, True, "iso-8859-1")
    assert is_in_charset("text/plain", "caf\xe9".encode("utf-16"), True, "utf-16")
