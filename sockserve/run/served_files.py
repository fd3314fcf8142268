"""
Served files: the folders that handlers serve files from, and what must not be in them.

This room owns which log, pid file, password or private key of ours would be served with them, and
whose handlers cannot leave them out.  It must not know how files are served.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from http.server import SimpleHTTPRequestHandler
from typing import Any

import attrs

from sockserve.core.handler_kinds import unwrap
from sockserve.http.files.handler import FileRequestHandler
from sockserve.http.files.targets import Target
from sockserve.interfaces import ConfigurationError
from sockserve.listeners.descriptions import kind_of, words_of
from sockserve.run.origins import Locate, leave_as_it_is
from sockserve.run.server_config import NO_LOG, ServerConfig
from sockserve.run.source_config import SourceConfig

__all__ = ["OwnFile", "check_readable", "files_to_withhold"]

#: The file of the key where C{ssl:} does not say one.
_DEFAULT_KEY_FILE = "server.pem"


@attrs.frozen
class OwnFile:
    """
    A file of ours that is nobody else's business.

    @ivar named: the words that say it, for messages.
    @ivar path: its name.
    @ivar word: the option; None where it is none of ours.
    @ivar item: its place in the option's list; None where there is none.
    """

    named: str
    path: str
    word: str | None = None
    item: int | None = None


@attrs.frozen
class _Folder:
    """
    A folder that is served.

    @ivar path: its name.
    @ivar dotfiles: whether files whose names begin with a dot are served, too.
    @ivar can_withhold: whether its handler leaves out what its server withholds.
    """

    path: str
    dotfiles: bool
    can_withhold: bool

    def serves(self, path: str) -> bool:
        """Whether a file of that name is, or would be, served from here."""
        if "\0" in path or not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            return False  # there can be none
        real = _segments(os.path.realpath(self.path), os.path.realpath(path))
        if real is None and self.can_withhold:  # it follows no link that leads out of the folder
            return False
        named = _segments(os.path.abspath(self.path), os.path.abspath(path))
        return any(
            each is not None and (self.dotfiles or not Target(each, False, "").is_hidden)
            for each in (real, named)
        )


def files_to_withhold(
    servers: Sequence[ServerConfig | SourceConfig], own_files: Iterable[OwnFile] = ()
) -> dict[str, str]:
    """
    Find what is ours in the folders that are served.

    @param own_files: those of the process, beside what the servers have.
    @return: by the name of each such file, from the root, a line that says that it is not served.
    @raise ConfigurationError: a file is in a folder whose handler, such as
        L{SimpleHTTPRequestHandler}, would serve it.
    """
    handlers = [each.handler for each in servers if isinstance(each, ServerConfig)]
    folders = [folder for folder in map(_folder, handlers) if folder is not None]
    found: dict[str, str] = {}
    for own in own_files:
        found |= _withheld(own, folders, leave_as_it_is)
    for server in servers:
        for own in _own_files(server):
            found |= _withheld(own, folders, server.locate)
    return found


def check_readable(directory: str) -> None:
    """
    Check that the files of a folder can be served.

    @raise PermissionError: the folder cannot be read.
    @raise OSError: it is none.
    @raise ValueError: there can be none of that name.
    """
    os.scandir(directory).close()
    if not os.access(directory, os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(directory)


def _withheld(own: OwnFile, folders: Iterable[_Folder], locate: Locate) -> dict[str, str]:
    """
    The file, with its line, if it is in one of the folders.

    @param locate: adds to a message where the words are that it is about.
    @raise ConfigurationError: it would be served.
    """
    around = [folder for folder in folders if folder.serves(own.path)]
    if not around:
        return {}
    folder = next((each for each in around if not each.can_withhold), around[0])
    shown = repr(os.path.abspath(folder.path))
    what = f"clients get 404 for it, though it is in the folder {shown}, which is served"
    if not folder.can_withhold:
        what = f"it would be served, as it is in the folder {shown}; put it elsewhere"
    told = ConfigurationError(f"{own.named}: {what}", own.word, own.item)
    locate(told)
    if not folder.can_withhold:
        raise told
    return {os.path.abspath(own.path): str(told)}


def _folder(handler: Any) -> _Folder | None:
    """The folder that a handler serves; None where it serves none, or nobody knows which."""
    cls = unwrap(handler)
    given: dict[str, Any] = getattr(handler, "keywords", {})
    if not isinstance(cls, type):
        return None
    if issubclass(cls, FileRequestHandler):
        if cls.__init__ is not FileRequestHandler.__init__ and "directory" not in given:
            return None
        directory = given.get("directory") or cls.directory
        dotfiles = given.get("dotfiles")
        dotfiles = cls.dotfiles if dotfiles is None else dotfiles
        return _Folder(os.fsdecode(directory), dotfiles, can_withhold=True)
    if not issubclass(cls, SimpleHTTPRequestHandler):
        return None
    if cls.translate_path is not SimpleHTTPRequestHandler.translate_path:
        return None
    if cls.__init__ is not SimpleHTTPRequestHandler.__init__ and "directory" not in given:
        return None
    directory = os.fsdecode(given.get("directory") or ".")
    return _Folder(directory, dotfiles=True, can_withhold=False)


def _segments(root: str, path: str) -> tuple[str, ...] | None:
    """The names that lead from a folder to a file; None if it is not in the folder."""
    prefix = root if root.endswith(os.sep) else root + os.sep
    return tuple(path.removeprefix(prefix).split(os.sep)) if path.startswith(prefix) else None


def _own_files(server: ServerConfig | SourceConfig) -> Iterator[OwnFile]:
    for word, path in (("access-log", server.access_log), ("stats-log", server.stats_log)):
        if path not in (None, "-", NO_LOG):
            yield OwnFile(f"{word} {path!r}", path, word)
    if isinstance(server, SourceConfig):
        return
    for item, checker in enumerate(server.checkers):
        kind, _, path = checker.partition(":")
        if kind == "file":
            yield OwnFile(f"auth {checker!r}", path, "auth", item)
    if server.server is not None:
        for name in ("keyfile", "certfile"):  # as HTTPSServer has them
            path = getattr(server.server, name, None)
            if isinstance(path, str) and (name == "keyfile" or _has_key(path)):
                yield OwnFile(f"server: {name} {path!r}", path, "server")
        return
    for word, path in server.files_of_tls.items():
        if word not in ("certfile", "keyfile") or _has_key(path):
            yield OwnFile(f"{word} {path!r}", path, word)
    if server.files_of_tls:  # which are all that the description names
        return
    for item, description in enumerate(server.listen):
        for path in _key_files(description):
            yield OwnFile(f"listen {description!r}: {path!r}", path, "listen", item)


def _key_files(description: str) -> Iterator[str]:
    """
    The files of private keys, and of their passwords, that a description names; C{*.pem} for all of
    a folder's, as keys may come into it later.
    """
    kind = kind_of(description)
    if kind == "haproxy":
        yield from _key_files(description.partition(":")[2])
    if kind not in ("ssl", "tls"):
        return
    try:
        words = words_of(kind, description)
    except ValueError:  # it is told what is wrong when it is made
        return
    if "passwordFile" in words:
        yield words["passwordFile"]
    if kind == "ssl":
        files = [words.get("privateKey", _DEFAULT_KEY_FILE), words.get("certKey", "")]
    else:
        yield os.path.join(words["path"], "*.pem")
        files = [path for path in _files_in(words["path"]) if os.path.islink(path)]
    yield from (path for path in files if _has_key(path))


def _files_in(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except (OSError, ValueError):
        return []
    return [os.path.join(directory, name) for name in names if name.endswith(".pem")]


def _has_key(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return b"PRIVATE KEY-----" in file.read()
    except (OSError, ValueError):
        return False
