"""The calculator of C{examples/calculator}, called by a C program that C{rpcgen} made."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.running import PATIENCE_SECONDS, ROOT, Example
from tests.tools import need_tool

PAGE = "howto/sun-rpc.md"
FOLDER = ROOT / "examples/calculator"


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client, compiled with what C{rpcgen} makes from the same file."""
    rpcgen, gcc = need_tool("rpcgen"), need_tool("gcc")
    folder = tmp_path_factory.mktemp("client")
    (folder / "calculator.x").write_text((FOLDER / "calculator.x").read_text())
    for option, name in (("-h", "calculator.h"), ("-l", "calls.c"), ("-c", "types.c")):
        subprocess.run([rpcgen, "-N", option, "-o", name, "calculator.x"], cwd=folder, check=True)
    sources = [str(FOLDER / "client.c"), "calls.c", "types.c"]
    command = [gcc, "-w", "-I.", "-I/usr/include/tirpc", "-o", "client", *sources, "-ltirpc"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "client"


@pytest.fixture
def calculator(tmp_path: Path) -> Iterator[Example]:
    example = Example(PAGE, tmp_path)
    try:
        example.wait_for(": serving ", times=2)
        yield example
    finally:
        example.end()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_c_client_gets_the_right_answers(
    client: Path, calculator: Example, transport: str
) -> None:
    done = subprocess.run(
        [client, transport, str(calculator.port)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert (done.stdout, done.stderr) == ("all answers are right\n", "")


def test_rpcinfo_finds_it(calculator: Example) -> None:
    rpcinfo = need_tool("rpcinfo")
    address = f"127.0.0.1.{calculator.port >> 8}.{calculator.port & 255}"
    for netid in ("tcp", "udp"):
        command = [rpcinfo, "-T", netid, "-a", address, "536874145"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        assert done.stdout.splitlines() == [
            f"program 536874145 version {version} ready and waiting" for version in (1, 2)
        ]
