"""
The parser of the command C{sockserve}, and the options of any other that C{argparse} parses.

This room owns how the table of options is put before C{argparse}, and what its help says around
it.  It must not know what is done about an option.
"""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter, _ActionsContainer

from sockserve.run.options.words import OPTIONS, OWN_OPTIONS, Option

__all__ = ["DOCS", "add_option", "make_parser"]

#: Where the documentation is.
DOCS = "https://github.com/sockserve/sockserve/tree/main/docs"

_DESCRIPTION = """\
Serve requests with a request handler class over TCP, TLS, UNIX sockets, UDP or
UNIX datagrams. Without arguments: the files of the current folder over HTTP on
127.0.0.1:8000."""

_EPILOG = f"""\
examples:
  sockserve .                             the files of this folder, over HTTP
  sockserve hello:Hello --port 8080       the class Hello of hello.py

programs:
  sockserve program.py [its arguments]    an unchanged program of socketserver's or
  sockserve -m module [its arguments]     http.server's kind, served by sockserve

An option is also a word of a file (--config), and a variable of the environment:
SOCKSERVE_MAX_CONNECTIONS=10 is --max-connections 10. All of it, with more examples:
{DOCS}"""


def add_option(parser: _ActionsContainer, option: Option) -> None:
    """Add an option of the table to a parser, or to a group of its."""
    notes = option.notes
    names = [f"--{option.word}", *([f"-{notes.short}"] if notes.short else [])]
    told = option.told.replace("%", "%%")
    if option.is_flag:
        parser.add_argument(*names, action="store_const", const=True, help=told)
    else:
        action = "append" if notes.is_list else "store"
        parser.add_argument(*names, action=action, metavar=notes.metavar, help=told)


def make_parser(program: str = "sockserve") -> ArgumentParser:
    """The parser of the command, with its options in groups."""
    parser = ArgumentParser(
        prog=program,
        usage="%(prog)s [HANDLER] [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
        exit_on_error=False,
    )
    parser.add_argument(
        "served",
        nargs="?",
        metavar="HANDLER",
        help="the handler class, MODULE:CLASS, or a folder whose files are served [default: .]",
    )
    groups = {}
    for option in (*OPTIONS.values(), *OWN_OPTIONS.values()):
        heading = option.notes.group.value
        if heading not in groups:
            groups[heading] = parser.add_argument_group(heading)
        add_option(groups[heading], option)
    return parser
