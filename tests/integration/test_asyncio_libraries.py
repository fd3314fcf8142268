"""asyncio's libraries in handlers, each with its real server, on the command's asyncio reactor."""

import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_command import PATIENCE_SECONDS, ROOT, started
from tests.postgresql import running_cluster
from tests.tools import need_tool

LIBRARIES = ["httpx", "aiohttp", "asyncpg", "redis", "sqlalchemy"]
EXPECTED = {
    "httpx": "plain",
    "aiohttp": "plain",
    "asyncpg": "a row",
    "redis": "a value",
    "sqlalchemy": "a row",
    "together": "plain, plain, a row, a value, a row",
}


@pytest.fixture(scope="module")
def redis_socket() -> Iterator[Path]:
    program = need_tool("redis-server")
    with tempfile.TemporaryDirectory(prefix="sockserve-redis-") as folder:
        path = Path(folder) / "redis.sock"
        words = ["--port", "0", "--unixsocket", path, "--save", "", "--dir", folder]
        with subprocess.Popen([program, *words], stdout=subprocess.DEVNULL) as process:
            give_up = time.monotonic() + PATIENCE_SECONDS
            while not path.exists():
                assert time.monotonic() < give_up
                assert process.poll() is None
                time.sleep(0.02)
            yield path
            process.terminate()


@pytest.fixture(scope="module")
def address(redis_socket: Path) -> Iterator[str]:
    """Where the handler is served, on asyncio's event loop; its deadline is half a second."""
    with running_cluster() as cluster:
        environ = {"POSTGRESQL": str(cluster.folder), "REDIS": str(redis_socket)}
        words = ["tests.integration.asyncio_libraries:Page", "--port", "0"]
        words += ["--reactor", "asyncio", "--timeout", "handle=1"]
        with started(ROOT, *words, environ=environ) as command:
            yield command.wait_for(r"http://\S+")[0]
            command.process.send_signal(signal.SIGTERM)
            assert command.end() == 0
            assert "Traceback" not in command.said
            assert "never retrieved" not in command.said


def ask(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


@pytest.mark.parametrize("library", EXPECTED)
def test_a_library_works_as_it_is(address: str, library: str) -> None:
    """Also once more, over the connection that its pool has kept."""
    for _ in range(2):
        assert ask(f"{address}{library}") == (200, EXPECTED[library])


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_deadline_ends_a_library_in_good_order(address: str, library: str) -> None:
    """So that its pool of one connection, or two, has one for the next."""
    assert ask(f"{address}{library}/slow") == (504, "")
    assert ask(f"{address}{library}/caught") == (200, "caught: the handle deadline expired")
    assert ask(f"{address}{library}") == (200, EXPECTED[library])
