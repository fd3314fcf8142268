"""
Completion: what a shell offers behind the command C{sockserve}.

This room owns what is offered for a value.  It must not know what there are for options.
"""

from __future__ import annotations

from typing import Any

import shtab

from sockserve.run.options.parser import make_parser
from sockserve.run.options.words import OPTIONS

__all__ = ["completion"]

#: By what stands for a value in the help.
_OFFERED = {"FILE": shtab.FILE, "PATH": shtab.FILE, "DIRECTORY": shtab.DIRECTORY}


def completion(shell: str) -> str:
    """The script of a shell's, one of L{SHELLS<sockserve.run.options.parser.SHELLS>}."""
    parser = make_parser()
    by_attribute = {option.attribute: option for option in OPTIONS.values()}
    for action in parser.arguments:
        found: Any = action
        option = by_attribute.get(action.dest)
        if option is not None and option.choices:
            found.choices = option.choices
        elif isinstance(action.metavar, str) and action.metavar in _OFFERED:
            found.complete = _OFFERED[action.metavar]
        elif action.dest == "served":
            found.complete = shtab.DIRECTORY
    return str(shtab.complete(parser, shell=shell)) + "\n"
