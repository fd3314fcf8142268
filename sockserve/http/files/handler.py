"""
The request handler that serves the files of a folder.

This room owns which files are shown, and with which headers.  It must not know connections.

RFC 9110's rules for ranges and preconditions are in L{sockserve.http.files.ranges}, the
meaning of a path in L{sockserve.http.files.targets}, and the way to the disk in
L{sockserve.http.files.disk}.

The handler is a coroutine, and a disk can be slow: all that waits for it runs on threads
(L{FileRequestHandler.on_disk}).  A file of one piece costs one way there and back, to find,
open, read and close it.
"""

from __future__ import annotations

import inspect
import os
import secrets
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from errno import EACCES, EILSEQ, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, TypeVar

from twisted.internet.interfaces import IReactorThreads, IReactorTime
from twisted.python.failure import Failure
from typing_extensions import override

from sockserve.core.logs import Topic, logger
from sockserve.executors.threads import ThreadExecutor
from sockserve.handlers import HandlerServer
from sockserve.http.accept import asks_for_json
from sockserve.http.error_pages import accept_of
from sockserve.http.files.disk import PIECE_BYTES, FileBody, entries, segments_beneath
from sockserve.http.files.extra_fields import check_extra_fields
from sockserve.http.files.listing import (
    CONTENT_SECURITY_POLICY,
    json_listing,
    listing_page,
    read_order,
)
from sockserve.http.files.media_types import is_in_charset, media_type
from sockserve.http.files.ranges import (
    ByteRange,
    Validators,
    conditional_fields,
    content_range,
    multipart,
    precondition,
    selected_ranges,
)
from sockserve.http.files.targets import parse_target
from sockserve.http.handlers import HTTPRequestHandler

__all__ = ["DiskServer", "FileRequestHandler"]

_T = TypeVar("_T")

#: The errors that a request can be to blame for, and that are answered with 404: there is no
#: such file for this client.  All others, such as EMFILE or EIO, are the server's fault: 500.
_NOT_FOUND = frozenset({ENOENT, ENOTDIR, ENAMETOOLONG, EINVAL, EILSEQ})

#: The errors that are answered with 404, too, but also logged, as the server's owner may look
#: for the reason.  Not 403: that would tell strangers which names exist (RFC 9110, 15.5.4
#: leaves the choice), and SimpleHTTPRequestHandler answers 404, too.
_HIDDEN = frozenset({EACCES, EPERM, ELOOP})

#: The statuses whose responses have the extra fields: those that come with a file, or say that the
#: client's is still good (RFC 9110, 15.4.5).
_EXTENDED = frozenset({HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.NOT_MODIFIED})


class _Answer(NamedTuple):
    """
    The answer to a request, as far as the disk decides about it.

    @ivar status: the status.
    @ivar headers: the header fields.
    @ivar piece: the first piece of the body.
    @ivar listing: the path of a folder to list, instead of all the rest; or None.
    @ivar reason: the reason that there is no file, for the log; or None.
    """

    status: HTTPStatus
    headers: Sequence[tuple[str, str]] = ()
    piece: bytes = b""
    listing: str | None = None
    reason: str | None = None


_log = logger(Topic.HTTP)


class DiskServer(HandlerServer, Protocol):
    """
    A server object as this handler needs it.

    @ivar reactor: the reactor, or a clock that stands for one.
    @ivar disk: the threads for what waits for the disk.
    """

    reactor: IReactorTime
    disk: ThreadExecutor


def _not_closed(failure: Failure) -> None:
    _log.failure("a file could not be closed", failure)


class FileRequestHandler(HTTPRequestHandler[DiskServer]):
    """
    A handler that answers GET and HEAD with the files of a folder.

    It does as C{http.server.SimpleHTTPRequestHandler} does, and its methods to override
    have the same names; it adds ranges, all preconditions, and leaves no way out of the
    folder.

    C{functools.partial(FileRequestHandler, directory="/srv/site")} is a handler, too.

    @cvar directory: the folder.  Nothing outside is served: a symbolic link that leads
        out of it is a 404.
    @cvar dotfiles: whether to serve files and folders whose names begin with a dot, and
        all that is in such folders; C{/.well-known/} is served in any case.  The names in
        requests count: a link C{site -> .releases/7} is followed.
    @cvar extra_response_headers: names and values of further header fields of files and listings:
        of responses with status 200, 206 or 304.
    @cvar index_pages: the files to send for a folder: the first of them that is in it.
    @cvar extensions_map: content types by the end of the name; before
        L{MEDIA_TYPES<sockserve.http.files.media_types.MEDIA_TYPES>}, and those before C{mimetypes}.
    @cvar default_content_type: the content type of files with any other name.
    @cvar charset: what is said of texts (C{text/...}) whose first 128 KiB can be decoded so; None
        to say nothing.
    """

    directory: str = "."
    dotfiles: bool = False
    extra_response_headers: Sequence[tuple[str, str]] = ()
    index_pages: Sequence[str] = ("index.html", "index.htm")
    extensions_map: Mapping[str, str] = {
        ".bz2": "application/x-bzip2",
        ".gz": "application/gzip",
        ".xz": "application/x-xz",
        ".Z": "application/octet-stream",
    }
    default_content_type: str = "application/octet-stream"
    charset: str | None = "utf-8"

    def __init__(
        self,
        request: Any,
        client_address: Any,
        server: Any,
        *,
        directory: str | bytes | os.PathLike[Any] | None = None,
        dotfiles: bool | None = None,
        extra_response_headers: Sequence[tuple[str, str]] | None = None,
    ) -> None:
        """
        @param directory: instead of the class's.
        @param dotfiles: instead of the class's.
        @param extra_response_headers: instead of the class's.
        """
        self.directory = os.fsdecode(self.directory if directory is None else directory) or "."
        if dotfiles is not None:
            self.dotfiles = dotfiles
        if extra_response_headers is not None:
            self.extra_response_headers = extra_response_headers
        super().__init__(request, client_address, server)

    @classmethod
    @override
    def prepare_server(cls, server: Any) -> None:
        """
        Check the fields to be added.

        @raise ConfigurationError: one cannot be.
        """
        super().prepare_server(server)
        given = getattr(server.RequestHandlerClass, "keywords", {}).get("extra_response_headers")
        check_extra_fields(cls.__qualname__, cls.extra_response_headers if given is None else given)

    async def do_GET(self) -> None:
        """Send a file, parts of it, or a folder's listing. (reactor thread)"""
        await self._answer()

    async def do_HEAD(self) -> None:
        """Send the head of L{do_GET}'s response. (reactor thread)"""
        await self._answer()

    # Override points

    def translate_path(self, path: str) -> str:
        """
        The file that a request's path stands for; with a slash at the end if the path has
        one.

        An override may give any path in C{self.directory}, and may wait for the disk.  One
        that serves from several folders sets C{self.directory}, too: a handler serves one
        request. (worker thread)

        @param path: the target of a request, with or without a query.
        """
        target = parse_target(path)
        file = os.path.join(self.directory, *target.segments)
        return f"{file}/" if target.as_folder else file

    def guess_type(self, path: str) -> str:
        """
        The content type of a file, by its name.

        It has no charset, since a name does not tell the charset of a text: L{charset} is added if
        the text is in that.  An override may give one, and may wait for the disk. (worker thread)

        @param path: the file's.
        """
        return media_type(path, self.extensions_map) or self.default_content_type

    def list_directory(self, path: str) -> Any:
        """
        Answer with a listing of the folder at C{path}, which has no index page.  An
        override may be plain or C{async def}. (reactor thread)

        @return: None; or, when only the head has been sent, a file with the body, which is
            sent and closed.
        """
        return self._list(path)

    # On the reactor thread

    async def on_disk(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """
        Call a function that may wait for the disk, on one of the server's threads for that.
        (A reactor without threads is a test's, and serves no other request meanwhile: the
        function is called at once.)

        @return: what C{function} returns.
        """
        if not IReactorThreads.providedBy(self._listener.reactor):
            return function(*arguments)
        result: _T = await self._listener.disk.call(function, *arguments)
        return result

    async def _answer(self) -> None:
        body = FileBody(self._withheld())
        try:
            answer = await self.on_disk(self._find, body)
            if answer.listing is not None:
                await self._send_listing(answer.listing)
                return
            if answer.reason is not None:
                self.log_error("%s: %s", self.path, answer.reason)
            if answer.status >= HTTPStatus.BAD_REQUEST and not answer.headers:
                self.send_error(answer.status)
                return
            self._send_head(answer.status, answer.headers)
            piece = answer.piece
            while piece:
                self.wfile.write(piece)
                await self.wfile.drain()
                piece = b"" if body.closed else await self.on_disk(body.read)
            if body.left:
                # The file is shorter than it was.  The only way left to say so.
                self.close_connection = True
        finally:
            # Whether this ended by itself, by the client or by a deadline: closing a file
            # may wait for the disk, so no request waits for it.
            if not body.closed:
                self._in_background(body.close)

    def _in_background(self, function: Callable[[], object]) -> None:
        if IReactorThreads.providedBy(self._listener.reactor):
            self._listener.disk.call(function).addErrback(_not_closed)
        else:
            function()

    def _send_head(self, status: HTTPStatus, headers: Sequence[tuple[str, str]]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status in _EXTENDED:
            for name, value in self.extra_response_headers:
                self.send_header(name, value)
        self.end_headers()

    async def _send_listing(self, path: str) -> None:
        listed = self.list_directory(path)
        if inspect.isawaitable(listed):
            listed = await listed
        if listed is not None:
            try:
                while piece := listed.read(PIECE_BYTES):
                    self.wfile.write(piece)
                    await self.wfile.drain()
            finally:
                listed.close()

    async def _list(self, path: str) -> None:
        found = await self.on_disk(self._listing, path)
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        headers, page = found
        self._send_head(HTTPStatus.OK, headers)
        for start in range(0, len(page), PIECE_BYTES):
            self.wfile.write(page[start : start + PIECE_BYTES])
            await self.wfile.drain()

    # On a thread for the disk (worker thread)

    def _find(self, body: FileBody) -> _Answer:
        """Look for the file; C{body} is left open if there is more of it to read."""
        try:
            return self._found(body)
        except OSError as error:
            if error.errno in _NOT_FOUND or isinstance(error, FileNotFoundError):
                return _Answer(HTTPStatus.NOT_FOUND)
            if error.errno in _HIDDEN or isinstance(error, PermissionError):
                return _Answer(HTTPStatus.NOT_FOUND, reason=str(error))
            raise
        finally:
            if not body.left:
                body.close()

    def _found(self, body: FileBody) -> _Answer:
        target = parse_target(self.path)
        is_withheld = target.is_hidden and not self.dotfiles
        if target.is_impossible or is_withheld:
            return _Answer(HTTPStatus.NOT_FOUND)
        path = self.translate_path(self.path)
        root, segments = self._place(path)
        status = body.open(root, segments)
        if stat.S_ISDIR(status.st_mode):
            if not target.as_folder:
                return _Answer(
                    HTTPStatus.MOVED_PERMANENTLY,
                    [("Location", target.folder_location), ("Content-Length", "0")],
                )
            for page in self.index_pages:
                try:
                    status = body.open(root, [*segments, *page.split("/")])
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    path = os.path.join(path, page)
                    break
            else:
                return _Answer(HTTPStatus.OK, listing=path)
        elif path.endswith("/"):
            return _Answer(HTTPStatus.NOT_FOUND)
        return self._representation(path, status, body)

    def _withheld(self) -> Sequence[str]:
        return getattr(self._listener, "withheld", ())

    def _place(self, path: str) -> tuple[str, list[str]]:
        root = os.path.abspath(self.directory)
        return root, segments_beneath(root, os.path.abspath(path))

    def _representation(self, path: str, status: os.stat_result, body: FileBody) -> _Answer:
        """The answer for a file that is there: 200, 206, 304, 412 or 416."""
        size = status.st_size
        # A time in the future is not given away (RFC 9110, 8.8.2.1).
        modified = min(status.st_mtime_ns // 10**9, int(time.time()))
        # A strong one: a change of a file changes its time, which the system keeps to a few
        # milliseconds, or its size.  Two changes are not told apart when the second comes in
        # the same tick of the clock and keeps the size, nor is a file that was given the
        # time and size of another.  No inode number: it differs among the machines behind
        # one name.
        etag = f'"{status.st_mtime_ns:x}-{size:x}"'
        current = Validators(etag, modified)
        fields = conditional_fields(self.headers.raw_items())
        refusal = precondition(fields, current)
        if refusal is HTTPStatus.NOT_MODIFIED:
            return _Answer(refusal, [("ETag", etag)])
        if refusal is not None:
            return _Answer(refusal)
        # Ranges are defined for GET alone (RFC 9110, 14.2).
        ranges = selected_ranges(fields, current, size) if self.command == "GET" else None
        if ranges == []:
            return _Answer(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                [("Content-Range", content_range(None, size)), ("Content-Length", "0")],
            )
        piece = None
        if ranges is None and self.command != "HEAD":
            body.set_parts([ByteRange(0, size)] if size else [])
            piece = body.read()
        kind = self._content_type(path, body, size, piece)
        headers = [
            ("Last-Modified", self.date_time_string(modified)),
            ("ETag", etag),
            ("Accept-Ranges", "bytes"),
        ]
        if not ranges:
            headers += [("Content-Type", kind), ("Content-Length", str(size))]
            return _Answer(HTTPStatus.OK, headers, piece or b"")
        parts: list[bytes | ByteRange]
        if len(ranges) == 1:
            headers.append(("Content-Range", content_range(ranges[0], size)))
            parts = [*ranges]
            length = ranges[0].size
        else:
            boundary = secrets.token_hex(16)  # so no file can contain it on purpose
            parts, length = multipart(ranges, size, kind, boundary)
            kind = f"multipart/byteranges; boundary={boundary}"
        headers += [("Content-Type", kind), ("Content-Length", str(length))]
        body.set_parts(parts)
        return _Answer(HTTPStatus.PARTIAL_CONTENT, headers, body.read())

    def _content_type(self, path: str, body: FileBody, size: int, piece: bytes | None) -> str:
        """
        The value of C{Content-Type}, with the charset of a text.

        @param piece: the first of the file, if that has been read.
        """
        kind = self.guess_type(path)
        if self.charset is None or ";" in kind or not kind.startswith("text/"):
            return kind
        if piece is None:
            piece = body.peek()
        if not is_in_charset(kind, piece, len(piece) >= size, self.charset):
            return kind
        return f"{kind}; charset={self.charset}"

    def _listing(self, path: str) -> tuple[list[tuple[str, str]], bytes] | None:
        """The fields and the body of the listing of a folder; None if it cannot be had."""
        target = parse_target(self.path)
        try:
            found = entries(*self._place(path), self.dotfiles, self._withheld())
        except OSError as error:
            if error.errno in _NOT_FOUND | _HIDDEN or isinstance(error, PermissionError):
                return None
            raise
        order = read_order(target.query)
        in_order = order.sort(found)
        headers = [("Vary", "Accept")]
        if asks_for_json(accept_of(self.request.head), "text/html"):
            page = json_listing(target.segments, in_order)
            headers.append(("Content-Type", "application/json"))
        else:
            page = listing_page(target.segments, in_order, order)
            headers += [
                ("Content-Type", "text/html; charset=utf-8"),
                ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
            ]
        return [*headers, ("Content-Length", str(len(page)))], page
