"""What C{python -m sockserve.sql} runs: L{sockserve.sql.command.main}."""

import sys

from sockserve.sql.command import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
