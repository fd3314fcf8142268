"""
The command C{python -m sockserve}.

This room owns which command is meant.  It must not know what it does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sockserve.programs import command

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """
    Run the command that the arguments name.

    @return: the status to exit with.
    """
    words = list(arguments)
    if words[:1] == ["run"]:
        return command.main(words[1:])
    if words and (words[0].endswith(".py") or words[0] in ("-m", "--explain")):
        return command.main(words)
    sys.stderr.write(command.USAGE)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
