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

LIBRARIES = ["httpx", "aiohttp", "anyio", "asyncpg", "redis", "sqlalchemy"]
EXPECTED = {
    "httpx": "plain",
    "aiohttp": "plain",
    "anyio": "from a thread",
    "asyncpg": "a row",
    "redis": "a value",
    "sqlalchemy": "a row",
    "together": "plain, plain, from a thread, a row, a value, a row",
}


@pytest.fixture(scope="session")
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


HANDLER = "tests.integration.asyncio_libraries:Page"
SERVERS = f"""
[[server]]
handler = "{HANDLER}"
port = 0

[[server]]
handler = "{HANDLER}"
port = 0
timeout = "handle=0.5"
"""


@pytest.fixture(scope="session")
def addresses(
    redis_socket: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """
    Where the handler is served, by one process on asyncio's event loop: with patience, and with a
    deadline of half a second.
    """
    file = tmp_path_factory.mktemp("libraries") / "s.toml"
    file.write_text(SERVERS)
    with running_cluster() as cluster:
        environ = {"POSTGRESQL": str(cluster.folder), "REDIS": str(redis_socket)}
        words = ["--config", str(file), "--reactor", "asyncio"]
        with started(ROOT, *words, environ=environ) as command:
            both = command.wait_for(r"Page: (http://\S+)\n(?:.*\n)*?Page: (http://\S+)\n")
            yield both[1], both[2]
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
def test_a_library_works_as_it_is(addresses: tuple[str, str], library: str) -> None:
    """Also once more, over the connection that its pool has kept."""
    for _ in range(2):
        assert ask(f"{addresses[0]}{library}") == (200, EXPECTED[library])


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_deadline_ends_a_library_in_good_order(addresses: tuple[str, str], library: str) -> None:
    """So that its pool of one connection, or two, has one for the next."""
    patient, hasty = addresses
    assert ask(f"{hasty}{library}/slow") == (504, "")
    assert ask(f"{hasty}{library}/caught") == (200, "caught: the handle deadline expired")
    assert ask(f"{patient}{library}") == (200, EXPECTED[library])
