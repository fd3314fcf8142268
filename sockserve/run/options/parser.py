"""
The parser of the command C{sockserve}, and the options of any other that C{argparse} parses.

This room owns how the table of options is put before C{argparse}, and what its help says around
it.  It must not know what is done about an option.
"""

from __future__ import annotations

from argparse import (
    Action,
    ArgumentError,
    ArgumentParser,
    Namespace,
    RawDescriptionHelpFormatter,
)
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

from typing_extensions import override

from sockserve.interfaces import ConfigurationError
from sockserve.run.options.forms import Group
from sockserve.run.options.words import OPTIONS, OWN_OPTIONS, Option
from sockserve.run.unknown import hint_at_option

__all__ = ["SHELLS", "CommandParser", "add_option", "make_parser", "parse"]

#: The shells that there are completions for.
SHELLS = ("bash", "zsh", "fish", "tcsh")

_DESCRIPTION = """\
Serve requests with a request handler class over TCP, TLS, UNIX sockets, UDP or
UNIX datagrams. Without arguments: the files of the current folder over HTTP on
127.0.0.1:8000."""

_EPILOG = """\
examples:
  sockserve .                             the files of this folder, over HTTP
  sockserve hello:Hello --port 8080       the class Hello of hello.py

programs:
  sockserve program.py [its arguments]    an unchanged program of socketserver's or
  sockserve -m module [its arguments]     http.server's kind, served by sockserve

An option is also a word of a file (--config), and a variable of the environment:
SOCKSERVE_MAX_CONNECTIONS=10 is --max-connections 10. All of it, with more examples:
docs/reference/command-line.md{address}"""


class _Arguments(Protocol):
    """A parser, or a group of its."""

    def add_argument(self, *names: str, **how: Any) -> Action: ...


def add_option(parser: _Arguments, option: Option) -> Action:
    """Add an option of the table to a parser, or to a group of its."""
    notes = option.notes
    names = [f"--{option.word}", *([f"-{notes.short}"] if notes.short else [])]
    told = option.told.replace("%", "%%")
    if option.is_flag:
        return parser.add_argument(*names, action="store_const", const=True, help=told)
    action = "append" if notes.is_list else "store"
    return parser.add_argument(*names, action=action, metavar=notes.metavar, help=told)


class CommandParser(ArgumentParser):
    """
    A parser that raises what is wrong.

    @ivar arguments: what it takes, in the order of the help.
    """

    arguments: tuple[Action, ...] = ()

    @override
    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(message)


def make_parser(docs: str = "") -> CommandParser:
    """
    The parser of the command, with its options in groups.

    @param docs: where the documentation is, for the help.
    """
    parser = CommandParser(
        prog="sockserve",
        usage="%(prog)s [HANDLER] [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(address=f" of {docs}" if docs else ""),
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
        exit_on_error=False,
    )
    served = parser.add_argument(
        "served",
        nargs="?",
        metavar="HANDLER",
        help="the handler class, MODULE:CLASS, or a folder whose files are served [default: .]",
    )
    options = []
    groups = {}
    for option in (*OPTIONS.values(), *OWN_OPTIONS.values()):
        heading = option.notes.group.value
        if heading not in groups:
            groups[heading] = parser.add_argument_group(heading)
        options.append(add_option(groups[heading], option))
    command = groups[Group.COMMAND.value]
    options += [
        command.add_argument(
            "--verbose",
            "-v",
            action="count",
            default=0,
            help="log more: what Twisted says, too, and the time; twice: what is for debugging",
        ),
        command.add_argument(
            "--print-completion",
            choices=SHELLS,
            metavar="SHELL",
            help=f"print the completion of these options for a shell: {', '.join(SHELLS)}",
        ),
        command.add_argument(
            "--print-schema",
            action="store_true",
            help="print the JSON schema of configuration files, for editors",
        ),
        command.add_argument("--version", action="store_true", help="print the version"),
        command.add_argument("--help", "-h", action="store_true", help="print this"),
    ]
    parser.arguments = (served, *options)
    return parser


def parse(parser: CommandParser, arguments: Sequence[str]) -> Namespace:
    """
    Parse a command line.

    @raise ConfigurationError: an option is not known, or lacks its value.
    """
    try:
        found, others = parser.parse_known_intermixed_args(list(arguments))
    except ArgumentError as error:
        raise ConfigurationError(_explain(error)) from None
    for other in others:
        if other.startswith("-") and other != "-":
            given = other.partition("=")[0]
            names = [name for each in parser.arguments for name in each.option_strings]
            known = [name for name in names if name.startswith("--")]
            raise ConfigurationError(f"option {given} not recognized{hint_at_option(given, known)}")
        hint = "one handler or folder is served"
        if found.served == "run":
            hint = "a program is run by sockserve run PROGRAM, without options before run"
        raise ConfigurationError(f"{other!r} belongs to no option; {hint}")
    return found


def _explain(error: ArgumentError) -> str:
    """An error of C{argparse}'s, in the words of C{twistd}'s."""
    names = (error.argument_name or "").split("/")
    option = next((name for name in names if name.startswith("--")), names[0])
    if "expected one argument" in error.message:
        return f"option {option} requires argument"
    if "explicit argument" in error.message:
        return f"option {option} must not have an argument"
    return f"option {option}: {error.message}"
