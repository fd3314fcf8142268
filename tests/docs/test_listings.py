"""
What the docs show works: every listing is run, every link resolves, every table is complete.

A comment before a fenced block, invisible on a code host, says what becomes of the block:

- C{<!-- file: echo.py -->}: saved under this name for the blocks below it on the page, and, if
  it is Python, executed as an import would.  C{python} blocks without a comment are executed, too.
- C{<!-- run -->}: lines that begin with C{$} are run by bash, the others are the output to
  expect, where C{...} stands for anything.  A command that ends with C{&} goes on in the
  background once it has printed what the page shows; C{kill %1} ends it, as does the page's end.
- C{<!-- not run: REASON -->}: neither.

C{<!-- needs: socat openssl -->} names the programs a page uses.  Ports in descriptions
(C{tcp:7000}) are replaced by free ones, the same all over a page.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import attrs
import pytest

from sockserve import Deadlines, Phase, socketserver
from sockserve.core.limits import LIMITS, LimitKind
from sockserve.listeners.datagrams import DatagramServer
from sockserve.listeners.server import RequestServer
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.run.options.words import OWN_OPTIONS
from sockserve.service import DEFAULT_REQUEST_QUEUE_SIZE
from sockserve.sql import SQLServer
from sockserve.tap import Options
from tests.patience import PATIENCE_SECONDS
from tests.ports import free_port
from tests.tools import need_tool
from tests.warm import WarmPython

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: What sockserve imports of others.  Nothing of its own: listings are to import that.
IMPORTS = ["attrs", "automat", "http.server", "httptools", "msgspec", "twisted.internet.address"]
IMPORTS += ["twisted.internet.ssl", "twisted.internet.tcp", "twisted.internet.udp"]
IMPORTS += ["twisted.internet.unix", "twisted.logger"]

#: Listings nobody checks go stale: each one more needs a better reason.
MOST_NOT_RUN = 6

#: What is for others than us: a patch, and the files of init systems, containers and proxies.
OTHERS = {"diff", "ini", "dockerfile", "nginx", "haproxy", "caddyfile"}

_BLOCK = re.compile(
    r"(?:^<!-- *(?P<mark>[^\n]*?) *-->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)

pytestmark = pytest.mark.usefixtures("no_leaks")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


class Block(NamedTuple):
    language: str
    mark: str
    text: str

    def not_run(self) -> bool:
        return re.match(r"not run: \w", self.mark) is not None


def blocks(page: Path) -> list[Block]:
    found = _BLOCK.finditer(page.read_text())
    return [Block(match["language"], match["mark"] or "", match["text"]) for match in found]


@pytest.fixture(scope="session")
def python() -> Iterator[WarmPython]:
    python = WarmPython(*IMPORTS, environ=environment())
    yield python
    python.end()


@pytest.fixture
def shell(python: WarmPython, tmp_path: Path) -> Iterator["Shell"]:
    shell = Shell(tmp_path, python)
    yield shell
    for number in sorted(shell.jobs, reverse=True):
        shell.kill(number)


def environment() -> dict[str, str]:
    """The environment of what is on a page."""
    tools = [str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin:/sbin"]
    environ = {**os.environ, "PATH": ":".join(tools), "PYTHONDONTWRITEBYTECODE": "1"}
    # Pages are about programs of their own, not about the tests they are run by.
    environ.pop("PYTEST_ADDOPTS", None)
    return environ


class Shell:
    """A folder, in which commands run, and jobs in the background."""

    def __init__(self, folder: Path, python: WarmPython) -> None:
        self.folder = folder
        self.jobs: dict[int, tuple[subprocess.Popen[bytes], Path]] = {}
        self._python = python
        self._environ = environment()

    def start(self, command: str, output: Path) -> "subprocess.Popen[bytes]":
        with output.open("wb") as file:
            return subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, command: str, expected: str = "...") -> int:
        """Give the exit status of a command, or 0 once one in the background is up."""
        if command.startswith("kill %"):
            self.kill(int(command.removeprefix("kill %")))
            return 0
        number = max(self.jobs, default=0) + 1
        output = self.folder / f".output-{number}"
        if not command.endswith("&"):
            process = self.start(command, output)
            try:
                status = process.wait(PATIENCE_SECONDS)
            finally:
                end(process)
            assert matches(expected, output.read_text()), f"{command}\n{output.read_text()}"
            return status
        process = self.start(command[:-1], output)
        self.jobs[number] = process, output
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not matches(expected, output.read_text()):
            said = f"{command}\n{output.read_text()}"
            assert process.poll() is None, f"ended: {said}"
            assert time.monotonic() < give_up, said
            time.sleep(0.02)
        return 0

    def run_python(self, path: Path, name: str) -> None:
        """Execute a listing, with C{name} as its C{__name__}."""
        code = f"import runpy; runpy.run_path({str(path)!r}, run_name={name!r})"
        done = self._python.run(code, folder=self.folder, patience=PATIENCE_SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr

    def kill(self, number: int) -> None:
        """End a job, which must have been without an error until then."""
        process, output = self.jobs.pop(number)
        alive = process.poll() is None
        end(process)
        said = output.read_text()
        assert alive, f"a server ended by itself:\n{said}"
        # Twisted logs as errors what a handler prints to standard error, as http.server's do.
        assert not re.search(r"Traceback|#error|#critical|Unhandled", said), said


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and, if it does not go by itself, all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(PATIENCE_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass


def matches(expected: str, said: str) -> bool:
    """Whether C{...} in C{expected}, which as a line stands for lines, makes it C{said}."""
    pattern = "".join(
        r"(?:.*\n)*?"
        if line.strip() == "..."
        else ".*".join(map(re.escape, line.split("..."))) + r"\n"
        for line in expected.splitlines()
    )
    return (
        re.fullmatch(pattern, said if said.endswith("\n") or not said else f"{said}\n") is not None
    )


def console(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a block, each with the output to expect."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.replace("\\\n> ", "").partition("\n")
        yield command, expected


def free_ports(page: str) -> dict[str, str]:
    """A free port for each one that a page listens on, but the default one, 8000."""
    ports: dict[str, str] = {}
    kinds = "tcp|tcp6|tls|ssl|udp|udp6|TCP-LISTEN"
    for port in re.findall(rf"(?:\b(?:{kinds}):|--port )(\d{{4,5}})\b", page):
        while port not in ports and port != "8000":
            number = str(free_port())
            if number not in ports.values():
                ports[port] = number
    return ports


@each_page
def test_listings_work(page: Path, shell: Shell) -> None:
    source = page.read_text()
    for tool in " ".join(re.findall(r"<!-- needs: (.*?) -->", source)).split():
        need_tool(tool)
    ports = free_ports(source)
    for block in blocks(page):
        text = re.sub(r"\b\d{4,5}\b", lambda match: ports.get(match[0], match[0]), block.text)
        verb, _, name = block.mark.partition(": ")
        path = shell.folder / (name if verb == "file" else ".listing.py")
        if verb == "run":
            for command, expected in console(text):
                shell.run(command, expected)
        elif verb == "file" or (block.language == "python" and not block.not_run()):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if block.language == "python":
                shell.run_python(path, "__listing__" if verb == "file" else "__main__")
        elif verb == "example":  # a test of its own starts it
            assert page.name in (ROOT / "tests/examples" / name).read_text()
        elif block.language not in OTHERS:
            assert block.not_run(), f"neither run nor marked:\n{block.text}"


@each_page
def test_every_fence_is_seen(page: Path) -> None:
    assert page.read_text().count("```") == 2 * len(blocks(page))
    assert all("$ " in block.text for block in blocks(page) if block.mark == "run")


def test_few_listings_are_not_run() -> None:
    marked = [block for page in PAGES for block in blocks(page) if block.not_run()]
    assert len(marked) <= MOST_NOT_RUN


def anchors(page: Path) -> set[str]:
    """The names a code host gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@each_page
def test_links_resolve(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)]*)\)", prose):
        if not link.startswith("https://"):
            target, _, anchor = link.partition("#")
            path = page.parent / target if target else page
            assert path.exists(), link
            assert not anchor or anchor in anchors(path), link


def first_cells(page: str, heading: str) -> list[list[str]]:
    """The code words in the first two cells of the rows below a heading."""
    section = (ROOT / "docs" / page).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]*)`[^|]*\| *([^|]*?) *\|", section, re.MULTILINE)


def test_every_option_is_documented() -> None:
    listed = [word for word, _ in first_cells("reference/command-line.md", "Options")]
    taken = {f"--{name}" for name in Options().known_options()} - {"--version", "--help"}
    taken |= {f"--{name}" for name in OWN_OPTIONS}
    assert {word.split()[0] for word in listed} == taken
    assert len(listed) == len(taken)


def size(written: str) -> int | None:
    """What a cell of the table of limits says."""
    if written == "none":
        return None
    number, unit = re.fullmatch("([0-9]+)([kmg]?)", written).groups()  # type: ignore[union-attr]
    return int(number) * {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}[unit]


SERVERS: dict[LimitKind, type[RequestServer]] = {
    LimitKind.STREAMS: StreamFactory,
    LimitKind.DATAGRAMS: DatagramServer,
    LimitKind.ROWS: SQLServer,
}


def test_every_limit_is_documented_with_its_defaults() -> None:
    """By the word, the attribute, the default and that of drop-in servers."""
    page = (ROOT / "docs/discussion/limits.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| `([a-z_]+)` \| (\w+) \| (\w+) \|", page, re.MULTILINE)
    listed = {name: (word, size(default), size(dropin)) for word, name, default, dropin in rows}
    expected = {}
    for name, limit in LIMITS.items():
        server = SERVERS[limit.kind]
        default = getattr(server, name)
        if name == "request_queue_size":
            default = DEFAULT_REQUEST_QUEUE_SIZE
        dropin = getattr(socketserver.ThreadingUDPServer, name, None)
        expected[name] = (name.replace("_", "-"), default, dropin)
    assert listed == expected


def test_every_deadline_is_documented_with_its_default() -> None:
    """Those that are phases, and what else there is."""
    listed = dict(first_cells("discussion/deadlines.md", "Defaults"))
    others = dict(first_cells("discussion/deadlines.md", "What else is set"))
    assert set(listed) == {str(phase) for phase in Phase}
    defaults = attrs.asdict(Deadlines())
    assert listed | others == {
        name: "none" if value is None else f"{value:g}" for name, value in defaults.items()
    }
