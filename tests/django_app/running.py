"""A project of Django's: a copy of its folder, and its C{manage.py}."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from tests.patience import PATIENCE_SECONDS

PROJECT = Path(__file__).parent / "project"

#: What a server says when it has begun to serve.
_PORT = r"(?:127\.0\.0\.1:|port )(\d+)"


class Project:
    """
    A copy of the project.

    @ivar folder: where it is.
    @ivar environ: the environment of its commands.
    """

    def __init__(self, parent: Path) -> None:
        self.folder = parent / "project"
        shutil.copytree(PROJECT, self.folder)
        self.environ = {**os.environ}
        self.environ.pop("PYTHONUNBUFFERED", None)  # what is said is to be there by itself

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-W", "error::ResourceWarning", "manage.py", *arguments]

    def manage(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    def start(self, *arguments: str) -> "Running":
        """Start a command that serves."""
        return Running(self, *arguments)


class Running:
    """A command that serves, until it is ended."""

    def __init__(self, project: Project, *arguments: str) -> None:
        self._output = {name: project.folder / name for name in ("stdout", "stderr")}
        with self._output["stdout"].open("w") as stdout, self._output["stderr"].open("w") as stderr:
            self.process = subprocess.Popen(
                project.command(*arguments),
                cwd=project.folder,
                env=project.environ,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def stdout(self) -> str:
        return self._output["stdout"].read_text()

    @property
    def stderr(self) -> str:
        return self._output["stderr"].read_text()

    def wait_for(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until C{pattern} has been printed so many times; gives what is in its groups."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while len(found := re.findall(pattern, self.stdout)) < times:
            assert self.process.poll() is None, f"it has ended: {self.stdout}{self.stderr}"
            assert time.monotonic() < give_up, f"{self.stdout}{self.stderr}"
            time.sleep(0.02)
        return found

    def connect(self, times: int = 1) -> socket.socket:
        """A client of the port that it has told of."""
        port = self.wait_for(_PORT, times)[times - 1]
        return socket.create_connection(("127.0.0.1", int(port)), PATIENCE_SECONDS)

    def ask(self, request: str, times: int = 1) -> str:
        """Send C{request}, and give all of the answer."""
        with closing(self.connect(times)) as client:
            client.sendall(request.encode())
            return client.makefile(newline="").read()

    def ask_newest(self, request: str) -> str:
        """Ask the one that was started last; gives nothing if that has just ended."""
        times = len(self.wait_for(_PORT))
        try:
            return self.ask(request, times)
        except ConnectionError:
            return ""

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it by a signal; gives its exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        """End it and all that it has started, if it has not ended."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(PATIENCE_SECONDS)
