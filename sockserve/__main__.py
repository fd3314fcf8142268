"""
The command C{sockserve}, which is C{python -m sockserve} as well.

This room owns which command is meant: to serve, to run a program, or only to be told something.
It must not know what is done then, and imports what does it only then: neither the options for a
program, nor Twisted unless the command is to serve.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from sockserve.core.garbage import importing_for_good
from sockserve.core.messages import printable
from sockserve.core.output import write_out
from sockserve.core.version import __version__
from sockserve.interfaces import ConfigurationError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Do what a command line says.

    @param arguments: without the command's name; None for the process' own.
    @return: the exit status.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    program = _program(words)
    try:
        if program is None:
            return _serve(words)
        from sockserve.programs import command as programs

        if words[0].endswith(".py"):
            _check_program(words[0], programs.only_defines(words[0]))
        return programs.main(program)
    except ConfigurationError as error:
        sys.stderr.write(f"sockserve: {printable(str(error))}\n")
        return 1
    except KeyboardInterrupt:  # before anything was served
        return 130


def _program(words: list[str]) -> list[str] | None:
    """The command line of a program that is to be run; None where these words are none."""
    if words[:1] == ["run"]:
        return words[1:]
    if words and (words[0].endswith(".py") or words[0] in ("-m", "--explain")):
        return words
    return None


def _check_program(file: str, only_defines: bool) -> None:
    """
    Check that a file is not one of handlers alone, which would be run and serve nothing.

    @raise ConfigurationError: it is.
    """
    if only_defines:
        from sockserve.run.loading import named_handlers

        if names := named_handlers(file):
            raise ConfigurationError(
                f"{file}: it makes no server of its own; did you mean 'sockserve {names[0]}'?"
            )


def _serve(words: list[str]) -> int:
    """
    Serve, or print what is asked for instead.

    @raise ConfigurationError: that cannot be.
    """
    with importing_for_good():
        from sockserve.run.options.parser import make_parser, parse

    found = parse(make_parser(), words)
    if found.help:
        told = make_parser(_docs()).format_help()
    elif found.version:
        told = f"sockserve {__version__}\n"
    elif found.print_schema:
        from sockserve.run.options.schema import file_schema

        told = file_schema()
    elif found.print_completion:
        from sockserve.run.options.completion import completion

        told = completion(found.print_completion)
    elif found.reload and not found.check and not _is_supervised():
        from sockserve.reload.supervisor import supervise

        return supervise(found.config or os.environ.get("SOCKSERVE_CONFIG"))
    else:
        with importing_for_good():
            from sockserve.command import serve

        return serve(found)
    write_out(told)
    return 0


def _is_supervised() -> bool:
    """Whether this process has a supervisor already."""
    from sockserve.reload.link import VARIABLE

    return VARIABLE in os.environ


def _docs() -> str:
    """The address of the documentation, as the package says; empty where it does not."""
    from importlib.metadata import metadata

    for each in metadata("sockserve").get_all("Project-URL") or ():
        label, _, address = each.partition(", ")
        if label.lower() == "documentation":
            return str(address)
    return ""


if __name__ == "__main__":
    sys.exit(main())
