"""
The command C{sockserve run}: an unchanged program, run with the drop-in modules.

This room owns the command's arguments, and what the interpreter is started with that runs the
program.  It is the program's own from its first line on, in this process: so all that a program
can tell of how it was started is as by C{python PROGRAM}.  It must not know the modules.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sockserve.programs.startup.sockserve_finder import split_command

__all__ = ["USAGE", "main", "only_defines", "program_command", "program_environment"]

USAGE = """\
usage: sockserve run [--explain] PROGRAM [ARGUMENT ...]
       sockserve run [--explain] -m MODULE [ARGUMENT ...]

Run a program as "python PROGRAM" does, with sockserve's modules in the place of socketserver and
http.server. "python -m sockserve PROGRAM.py" and "python -m sockserve -m MODULE" are the same.

  --explain   say on standard error what is replaced, and what serves each server's requests
  -h, --help  show this
"""

_STARTUP = str(Path(__file__).parent / "startup")


#: Statements that run nothing of the program's own.
_DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

#: What runs nothing unless it calls something: C{port = 8000}, or what the file is about.
_VALUES = (ast.Assign, ast.AnnAssign, ast.Expr)


def only_defines(file: str) -> bool:
    """Whether a program does nothing but import and define, and so ends at once."""
    try:
        with open(file, "rb") as source:
            statements = ast.parse(source.read()).body
    except (OSError, SyntaxError, ValueError):  # which Python is to tell
        return False
    return all(
        isinstance(each, _DEFINITIONS)
        or (
            isinstance(each, _VALUES)
            and not any(isinstance(part, ast.Call) for part in ast.walk(each))
        )
        for each in statements
    )


def program_command(arguments: Sequence[str], started_by: Sequence[str]) -> list[str]:
    """
    The command that runs a program.

    @param arguments: what names the program, and its own.
    @param started_by: the command that has started this process, whose options of the interpreter
        are the program's.
    """
    options, _ = split_command(started_by[1:])
    return [sys.executable, *options, *arguments]


def program_environment(environment: Mapping[str, str], explains: bool) -> dict[str, str]:
    """
    The environment of a program, by which its interpreter, and those of its children, know.

    @param environment: what it would be otherwise.
    """
    entries = environment.get("PYTHONPATH", "").split(os.pathsep)
    own = [entry for entry in entries if entry and entry != _STARTUP]
    added = {
        "PYTHONPATH": os.pathsep.join([_STARTUP, *own]),
        # Another Python that the program starts is not to get the modules of this one.
        "_SOCKSERVE_PYTHON": f"{sys.implementation.cache_tag} {sys.prefix}",
    }
    if explains:
        added["_SOCKSERVE_EXPLAIN"] = str(os.getpid())  # the program's, too
    kept = {name: value for name, value in environment.items() if name != "_SOCKSERVE_EXPLAIN"}
    return kept | added


def main(arguments: Sequence[str]) -> int:
    """
    Run a program, in the place of this one; returns only if there is none.

    @param arguments: what follows C{run}.
    @return: the status to exit with.
    """
    words = list(arguments)
    explains = words[:1] == ["--explain"]
    if explains:
        del words[0]
    if words[:1] in (["-h"], ["--help"]):
        sys.stdout.write(USAGE)
        return 0
    is_option = bool(words) and words[0].startswith("-") and words[0] != "-"
    if not words or (is_option and words[0] not in ("-m", "-c")) or words == ["-m"]:
        wrong = f"{words[0]}: no such option" if is_option and len(words) > 1 else "no program"
        usage = USAGE.partition("\n\n")[0]
        sys.stderr.write(f"{usage}\nsockserve run: {wrong}\n")
        return 2
    if sys.flags.ignore_environment or sys.flags.no_site:
        sys.stderr.write(
            "sockserve run: the interpreter's options -E, -I and -S keep it from the program\n"
        )
        return 2
    command = program_command(words, sys.orig_argv)
    os.execve(sys.executable, command, program_environment(os.environ, explains))
