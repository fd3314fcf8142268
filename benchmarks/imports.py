"""
Milliseconds of CPU that the import of a module takes: ``python -m benchmarks.imports NAME``.

Those of a process that imports it, without those of one that imports nothing; in turns, as machines
are noisy.
"""

import os
import subprocess
import sys
from statistics import median

TURNS = 9

MODULES = {
    "import-socketserver": "socketserver",
    "import-sockserve-socketserver": "sockserve.socketserver",
    "import-http": "http.server",
    "import-sockserve-http": "sockserve.http.server",
    "import-sockserve-serving": "sockserve.dropin.serving",
}


def seconds(code):
    """Of CPU, by a process that executes C{code}."""
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{code}: status {process.returncode}")
    return used.ru_utime + used.ru_stime


def milliseconds(module):
    seconds(f"import {module}")  # compiles what has not been
    turns = [seconds(f"import {module}") - seconds("") for _ in range(TURNS)]
    return median(turns) * 1000


if __name__ == "__main__":
    print(milliseconds(MODULES[sys.argv[1]]))
