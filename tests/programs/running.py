"""Starts the programs here, and the clients that are programs, too."""

import contextlib
import re
import signal
import subprocess
import sys
import tempfile
import threading

import pytest

from tests.integration.servers import PATIENCE_SECONDS, ROOT
from tests.integration.socketservers import eventually
from tests.processes import children_of
from tests.tools import need_tool

#: Each test runs its program on both, and expects the same.
on_both = pytest.mark.parametrize("modules", ["stdlib", "sockserve"])

#: How long a program may run: one that says nothing more is not waited for any longer.
_LIFETIME_SECONDS = 240.0

#: How a program that is interrupted may end: by its own doing, or by Python's for it.
_ENDS = (0, -signal.SIGINT)

#: What C{--explain} says when a program has got the modules.
_REPLACED = "sockserve: socketserver and http.server are replaced by sockserve's\n"

#: What is said when something has gone wrong which the program does not hear of.
_UNHEARD = re.compile("Exception (in|ignored)|Fatal Python error|Unhandled|never awaited")


class Program:
    """
    A program that runs.

    @ivar ports: where it listens.
    """

    def __init__(self, process, log):
        self.process = process
        self._log = log
        self.ports = []
        while not self.ports:
            line = self.read_line()
            found = re.fullmatch(r"([0-9 ]+)|.*://127\.0\.0\.1:(\d+)/.*", line)
            if found:
                self.ports = [int(port) for port in (found[1] or found[2]).split()]

    @property
    def port(self):
        return self.ports[0]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def secure_url(self):
        """Its certificate's name is C{localhost}."""
        return f"https://localhost:{self.port}"

    @property
    def address(self):
        return "127.0.0.1", self.port

    def read_line(self):
        """The next line it prints, without its end."""
        line = self.process.stdout.readline()
        assert line, f"it has ended:\n{self.log}"
        return line.removesuffix("\n")

    @property
    def log(self):
        """What it has said on standard error, without colours, and without C{--explain}'s lines."""
        return re.sub(r"^sockserve(\[\d+\])?: .*\n", "", self.whole_log, flags=re.MULTILINE)

    @property
    def whole_log(self):
        self._log.seek(0)
        return re.sub(r"\x1b\[\d+m", "", self._log.read().decode())

    def interrupt(self):
        """Ctrl-C, once it has no children; gives what it has printed since."""
        # Where a signal comes while the hooks of os.fork run, the interpreter ignores what its
        # handler raises.  A child is waited for after these.
        eventually(lambda: not children_of(self.process.pid))
        self.process.send_signal(signal.SIGINT)
        try:
            printed, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it does not end:\n{self.log}")
        assert self.process.returncode in _ENDS, self.log
        assert not _UNHEARD.search(self.log), self.log
        return printed


@contextlib.contextmanager
def running(program, modules, *arguments):
    """
    Have a program here run, on the standard library's modules or by C{python -m sockserve}, and
    interrupt it in the end if it still does.
    """
    command = [f"{__package__}.{program}", *map(str, arguments)]
    if modules == "stdlib":
        with running_module(*command) as started:
            yield started
    else:
        with running_module("sockserve", "--explain", "-m", *command) as started:
            yield started
            # It is not to pass because it has got the standard library's after all.
            assert _REPLACED in started.whole_log


@contextlib.contextmanager
def running_module(*words):
    """C{python -m WORDS}."""
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [sys.executable, "-u", "-m", *words],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        end = threading.Timer(_LIFETIME_SECONDS, process.kill)
        end.start()
        try:
            started = Program(process, log)
            yield started
            if process.poll() is None:
                started.interrupt()
        finally:
            end.cancel()
            end.join()
            process.kill()


def output(*words, status=0, **options):
    """What a client prints, which ends with C{status}."""
    ran = subprocess.run(
        [need_tool(words[0]), *map(str, words[1:])],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        **options,
    )
    assert ran.returncode == status, ran.stderr
    return ran.stdout


def curl(*words, **options):
    return output("curl", "--silent", "--show-error", *words, **options)


def status_of(*words):
    """The status that curl gets."""
    return curl("--output", "/dev/null", "--write-out", "%{http_code}", *words)


def connections_of(*words):
    """How many connections curl has opened for each of its URLs."""
    return curl("--write-out", "%{num_connects}\n", *words, "--output", "/dev/null").split()
