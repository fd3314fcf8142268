"""
Python that has imported already what many short programs need, and is forked for each of these:
as C{python -c}, in a tenth of the time.

For tests of what a program says, not of how it starts.  As a program, C{python -m tests.warm
MODULE …}, it is what is forked: it reads a line of JSON for each program, and prints the status.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

__all__ = ["WarmPython"]

ROOT = Path(__file__).parents[1]


class WarmPython:
    """
    The process that is forked.

    @param modules: what it imports.
    @param environ: the environment of its programs.
    """

    def __init__(self, *modules: str, environ: Mapping[str, str]) -> None:
        self._outputs = tempfile.TemporaryDirectory(prefix="warm-python-")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", *modules],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, code: str, *arguments: str, folder: Path, patience: float
    ) -> "subprocess.CompletedProcess[str]":
        """
        Run a program to its end.

        @param folder: where it is started.
        @param patience: how many seconds it may take.
        """
        stdout, stderr = (Path(self._outputs.name, name) for name in ("stdout", "stderr"))
        program = {"code": code, "arguments": arguments, "folder": str(folder)}
        program |= {"stdout": str(stdout), "stderr": str(stderr)}
        asked, told = self._process.stdin, self._process.stdout
        assert asked is not None
        assert told is not None
        asked.write(json.dumps(program) + "\n")
        asked.flush()
        if not select.select([told], [], [], patience)[0]:
            self._kill()  # or the next program would be told how this one ends
            raise subprocess.TimeoutExpired(code, patience)
        status = told.readline()
        assert status, f"what is forked has ended: {self._process.wait()}"
        return subprocess.CompletedProcess(
            [code, *arguments], int(status), stdout.read_text(), stderr.read_text()
        )

    def end(self) -> None:
        """End it, and what its programs have left."""
        self._kill()
        self._process.communicate()
        self._outputs.cleanup()

    def _kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has ended
            pass


def _become(code: str, arguments: list[str], folder: str, stdout: str, stderr: str) -> None:
    """Be the program, in the child."""
    os.chdir(folder)
    with open(os.devnull, "rb") as nothing, open(stdout, "wb") as said, open(stderr, "wb") as bad:
        for number, file in enumerate((nothing, said, bad)):
            os.dup2(file.fileno(), number)
    sys.argv = ["-c", *arguments]
    exec(code, {"__name__": "__main__"})


def _main(modules: list[str]) -> None:
    for module in modules:
        import_module(module)
    sys.path.remove(str(ROOT))
    sys.path.insert(0, "")  # the folder of the program, as C{python -c} has it
    # Without a buffer, in which a child would have lines of others.
    for line in iter(lambda: os.read(0, 2**16), b""):
        child = os.fork()
        if child == 0:
            return _become(**json.loads(line))
        _, status = os.waitpid(child, 0)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))
    return None


if __name__ == "__main__":
    _main(sys.argv[1:])
