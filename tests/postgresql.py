"""PostgreSQL servers for tests: a cluster of one's own, in a folder, gone after them."""

import atexit
import functools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.tools import need_tool

#: Where Debian keeps what its PATH does not have.
_DEBIAN = Path("/usr/lib/postgresql")

#: No durability: a test's server never sees a loss of power.
_SETTINGS = {
    "fsync": "off",
    "listen_addresses": "''",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "log_min_messages": "panic",
}


def _program(name: str) -> str:
    newest = sorted(_DEBIAN.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return str(newest[-1]) if newest else need_tool(name)


def _as_server(*command: object, folder: Path) -> None:
    """Run a program in C{folder}, which is its user's own: that of all servers."""
    options: dict[str, Any] = {}
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        options = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        text=True,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stdout


def _new_folder() -> Path:
    # Not below pytest's own folder, whose parents are for one user alone.
    return Path(tempfile.mkdtemp(prefix="sockserve-pg-"))


@functools.cache
def _empty_data() -> Path:
    """The data of a server that has none yet: made once, as that takes longer than its start."""
    folder = _new_folder()
    atexit.register(shutil.rmtree, folder)
    data = folder / "data"
    _as_server(
        _program("initdb"), "-D", data, "-U", "tests", "-A", "trust", "-E", "UTF8",
        "--locale=C.UTF-8", "--no-sync", folder=folder,
    )  # fmt: skip
    return data


class Cluster:
    """
    A server with its data in a folder, on a UNIX socket.  It refuses to run as root, so there it
    runs as nobody.
    """

    def __init__(self, folder: Path, settings: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._pg_ctl = _program("pg_ctl")
        _as_server("cp", "-a", _empty_data(), self.data, folder=folder)
        lines = {**_SETTINGS, "unix_socket_directories": f"'{folder}'", **(settings or {})}
        with open(self.data / "postgresql.auto.conf", "a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in lines.items())

    def _control(self, *words: object) -> None:
        _as_server(self._pg_ctl, "-D", self.data, "-w", *words, folder=self.folder)

    def start(self) -> None:
        self._control("-l", self.folder / "log", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._control("-m", mode, "stop")

    @property
    def url(self) -> str:
        return f"postgresql://tests@/postgres?host={self.folder}"


@contextmanager
def running_cluster(settings: dict[str, str] | None = None) -> Iterator[Cluster]:
    pytest.importorskip("psycopg")
    folder = _new_folder()
    try:
        cluster = Cluster(folder, settings)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder)
