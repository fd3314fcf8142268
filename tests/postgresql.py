"""PostgreSQL servers for tests: a cluster of one's own, in a folder, gone after them."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


class Cluster:
    """
    A server with its data in a folder, on a UNIX socket.  It refuses to run as root, so there it
    runs as nobody.
    """

    def __init__(self, folder: Path, settings: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._initdb, self._pg_ctl = _program("initdb"), _program("pg_ctl")
        self._options = {}
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            self._options = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self._run(
            self._initdb, "-D", self.data, "-U", "tests", "-A", "trust", "-E", "UTF8",
            "--locale=C.UTF-8", "--no-sync",
        )  # fmt: skip
        lines = {**_SETTINGS, "unix_socket_directories": f"'{folder}'", **(settings or {})}
        with open(self.data / "postgresql.auto.conf", "a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in lines.items())

    def _run(self, *command: object) -> None:
        done = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            text=True,
            check=False,
            **self._options,
        )
        assert done.returncode == 0, done.stdout

    def start(self) -> None:
        self._run(self._pg_ctl, "-D", self.data, "-l", self.folder / "log", "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run(self._pg_ctl, "-D", self.data, "-m", mode, "-w", "stop")

    @property
    def url(self) -> str:
        return f"postgresql://tests@/postgres?host={self.folder}"


@contextmanager
def running_cluster(settings: dict[str, str] | None = None) -> Iterator[Cluster]:
    pytest.importorskip("psycopg")
    # Not below pytest's own folder, whose parents are for one user alone.
    folder = Path(tempfile.mkdtemp(prefix="sockserve-pg-"))
    try:
        cluster = Cluster(folder, settings)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder)
