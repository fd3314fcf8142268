"""An example that runs: a copy of its folder, and the command that its page shows."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.patience import PATIENCE_SECONDS
from tests.ports import free_port

ROOT = Path(__file__).parents[2]


def shown_command(page: str) -> str:
    """The command by which a page of the docs starts its example."""
    [command] = re.findall(r"^\$ (PORT=\S+ .*)$", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    return str(command)


class Example:
    """
    A running example.

    @ivar folder: the copy of its folder.
    @ivar port: where it listens.
    """

    def __init__(self, page: str, parent: Path) -> None:
        # Not what they have left there when somebody ran them in place.
        left = shutil.ignore_patterns("*.pem", "message-*", "*.sqlite3*", "*.db*", "*.log")
        shutil.copytree(ROOT / "examples", parent / "examples", ignore=left)
        _, command = shown_command(page).split(" ", 1)
        [name] = re.findall(r"examples/(\w+)", command)
        self.folder = parent / "examples" / name
        self.port = free_port()
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._log = parent / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", f"exec {command}"],
                cwd=parent,
                env={**os.environ, "PATH": path, "PORT": str(self.port)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """What it has printed."""
        return self._log.read_text()

    def wait_for(self, words: str, times: int = 1) -> None:
        """Wait until it has printed C{words} so many times."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while self.said.count(words) < times:
            assert self._process.poll() is None, f"it has ended: {self.said}"
            assert time.monotonic() < give_up, self.said
            time.sleep(0.02)

    def end(self) -> int:
        """
        End it as a user does.

        @return: its exit status.
        """
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(PATIENCE_SECONDS)
        finally:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
