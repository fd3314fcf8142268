"""
Media types of files, by the end of the name, and the charset of texts, by their beginning.

This room owns a table, so that what a browser needs to know does not depend on the machine, whose
own (C{mimetypes}) has the rest.  It must not know handlers.
"""

from __future__ import annotations

import codecs
import mimetypes
import posixpath
import re
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["MEDIA_TYPES", "is_in_charset", "media_type"]

#: How far into a file browsers look for what it says of its own charset (HTML Standard, 13.2.3.2).
_DECLARATION_BYTES = 1024

#: What pages and style sheets say of that: C{<meta charset=...>}, C{@charset "..."} and the like.
_DECLARATION = re.compile(rb"""charset[\s"']*=?[\s"']*([\w.:-]+)""", re.IGNORECASE)
_DECLARING = ("text/html", "text/css")

#: By extension, in lower case.  Names are IANA's, but for a few that it does not have.
MEDIA_TYPES: Mapping[str, str] = MappingProxyType(
    {
        # Pages
        ".html": "text/html",
        ".htm": "text/html",
        ".xhtml": "application/xhtml+xml",
        ".css": "text/css",
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".cjs": "text/javascript",
        ".wasm": "application/wasm",
        ".webmanifest": "application/manifest+json",
        # Data
        ".json": "application/json",
        ".map": "application/json",
        ".jsonld": "application/ld+json",
        ".geojson": "application/geo+json",
        ".xml": "application/xml",
        ".xsl": "application/xml",
        ".atom": "application/atom+xml",
        ".rss": "application/rss+xml",
        ".yaml": "application/yaml",
        ".yml": "application/yaml",
        ".toml": "application/toml",
        ".csv": "text/csv",
        ".tsv": "text/tab-separated-values",
        ".ics": "text/calendar",
        ".vcf": "text/vcard",
        ".sqlite": "application/vnd.sqlite3",
        ".parquet": "application/vnd.apache.parquet",
        # Texts
        ".txt": "text/plain",
        ".text": "text/plain",
        ".log": "text/plain",
        ".conf": "text/plain",
        ".ini": "text/plain",
        ".cfg": "text/plain",
        ".diff": "text/plain",
        ".patch": "text/plain",
        ".md": "text/markdown",
        ".markdown": "text/markdown",
        ".rst": "text/plain",
        ".py": "text/x-python",
        ".c": "text/plain",
        ".h": "text/plain",
        ".sh": "text/plain",
        ".rtf": "application/rtf",
        ".pdf": "application/pdf",
        ".ps": "application/postscript",
        ".epub": "application/epub+zip",
        ".doc": "application/msword",
        ".xls": "application/vnd.ms-excel",
        ".ppt": "application/vnd.ms-powerpoint",
        ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        ".odt": "application/vnd.oasis.opendocument.text",
        ".ods": "application/vnd.oasis.opendocument.spreadsheet",
        ".odp": "application/vnd.oasis.opendocument.presentation",
        # Pictures
        ".svg": "image/svg+xml",
        ".png": "image/png",
        ".apng": "image/apng",
        ".jpg": "image/jpeg",
        ".jpeg": "image/jpeg",
        ".gif": "image/gif",
        ".webp": "image/webp",
        ".avif": "image/avif",
        ".heic": "image/heic",
        ".heif": "image/heif",
        ".jxl": "image/jxl",
        ".bmp": "image/bmp",
        ".tif": "image/tiff",
        ".tiff": "image/tiff",
        ".ico": "image/vnd.microsoft.icon",
        # Fonts
        ".woff": "font/woff",
        ".woff2": "font/woff2",
        ".ttf": "font/ttf",
        ".otf": "font/otf",
        ".eot": "application/vnd.ms-fontobject",
        # Sound and films
        ".mp3": "audio/mpeg",
        ".m4a": "audio/mp4",
        ".aac": "audio/aac",
        ".ogg": "audio/ogg",
        ".oga": "audio/ogg",
        ".opus": "audio/ogg",
        ".flac": "audio/flac",
        ".wav": "audio/wav",
        ".weba": "audio/webm",
        ".mid": "audio/midi",
        ".midi": "audio/midi",
        ".mp4": "video/mp4",
        ".m4v": "video/mp4",
        ".webm": "video/webm",
        ".ogv": "video/ogg",
        ".mov": "video/quicktime",
        ".avi": "video/x-msvideo",
        ".mkv": "video/matroska",
        ".mpeg": "video/mpeg",
        ".mpg": "video/mpeg",
        ".m3u8": "application/vnd.apple.mpegurl",
        ".mpd": "application/dash+xml",
        ".vtt": "text/vtt",
        ".srt": "application/x-subrip",
        # Archives
        ".zip": "application/zip",
        ".tar": "application/x-tar",
        ".7z": "application/x-7z-compressed",
        ".rar": "application/vnd.rar",
        ".zst": "application/zstd",
        ".jar": "application/java-archive",
        ".whl": "application/zip",
        ".deb": "application/vnd.debian.binary-package",
        ".apk": "application/vnd.android.package-archive",
    }
)


#: The types of compressed files, by the compression; not those of their contents.
_COMPRESSED = {
    "br": "application/octet-stream",
    "bzip2": "application/x-bzip2",
    "compress": "application/octet-stream",
    "gzip": "application/gzip",
    "xz": "application/x-xz",
}


def media_type(path: str, before: Mapping[str, str]) -> str | None:
    """
    The type of a file, by its name: that of C{before}, or of L{MEDIA_TYPES}, or of the machine;
    None if none of them has it.

    @param before: by extension.
    """
    extension = posixpath.splitext(path)[1]
    lower = extension.lower()
    for known, spelling in ((before, extension), (before, lower), (MEDIA_TYPES, lower)):
        if spelling in known:
            return known[spelling]
    guess, compression = mimetypes.guess_type(path)
    return guess if compression is None else _COMPRESSED.get(compression)


def is_in_charset(kind: str, beginning: bytes, is_whole: bool, charset: str) -> bool:
    """
    Whether a text looks as if it were in C{charset}: it can be decoded so, is no binary file after
    all, and does not itself say that it is in another.

    @param kind: its media type.
    @param is_whole: whether there is no more of it.
    @raise LookupError: there is no such charset.
    """
    decoder = codecs.getincrementaldecoder(charset)()
    try:
        text = decoder.decode(beginning, final=is_whole)
    except UnicodeDecodeError:
        return False
    if "\0" in text:
        return False
    said = _DECLARATION.search(beginning[:_DECLARATION_BYTES]) if kind in _DECLARING else None
    return said is None or _is_same(said[1].decode("latin-1"), charset)


def _is_same(name: str, charset: str) -> bool:
    try:
        return codecs.lookup(name) == codecs.lookup(charset)
    except LookupError:
        return False
