"""
Mistakes of users, one command line each, tried without starting a process for each.

As a program it reads command lines from standard input, a JSON list of lists, and writes what came
of each: its exit status and what it printed on standard error.
"""

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator

__all__ = ["own_command", "twistd_command"]


def own_command(arguments: list[str]) -> object:
    """C{sockserve}."""
    from sockserve.__main__ import main

    return main(arguments)


def twistd_command(arguments: list[str]) -> object:
    """C{twistd -n sockserve}, as far as that is ours."""
    from sockserve.tap import Options, makeService

    options = Options()
    options.parent = {"nodaemon": True}
    options.parseOptions(arguments)
    makeService(options)
    return 0


def tried(command: Callable[[list[str]], object], arguments: list[str]) -> tuple[object, str]:
    """The exit status of a command, and what it printed on standard error."""
    with _error_kept() as error:
        try:
            status = command(arguments)
        except SystemExit as end:
            status = end.code
        except BaseException as raised:
            return None, repr(raised)
    return status, error.getvalue()


@contextlib.contextmanager
def _error_kept() -> Iterator[io.StringIO]:
    error = io.StringIO()
    before = sys.__stderr__
    sys.__stderr__ = error  # type: ignore[misc, assignment]
    try:
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
            yield error
    finally:
        sys.__stderr__ = before  # type: ignore[misc]


if __name__ == "__main__":
    commands = {"sockserve": own_command, "twistd": twistd_command}
    json.dump([tried(commands[sys.argv[1]], each) for each in json.load(sys.stdin)], sys.stdout)
