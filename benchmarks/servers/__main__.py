"""
One contestant: ``python -m benchmarks.servers NAME [SECONDS]``.

It listens on a port of 127.0.0.1 that nothing else has, prints that port as its first line, and
serves until it is killed or the seconds are over.  A name is that of a function: ``http-uvicorn``
is ``http_uvicorn`` in ``http.py``.
"""

import gc
import importlib
import os
import signal
import sys
import time

from benchmarks import harness

MODULES = {"tcp": "echo", "udp": "echo", "http": "http", "rpc": "rpc", "transfer": "transfers"}
LOOK_SECONDS = 1


def end_after(seconds):
    """See to it that this process and those it starts end; also when a benchmark was killed."""
    server, deadline = os.getpid(), time.monotonic() + seconds
    if os.fork():
        return
    while os.getppid() == server:
        if time.monotonic() > deadline:
            for pid in [*harness.with_children(server)]:
                if pid != os.getpid():
                    os.kill(pid, signal.SIGKILL)
        time.sleep(LOOK_SECONDS)
    os._exit(0)


if __name__ == "__main__":
    end_after(float([*sys.argv, "3600"][2]))
    signal.signal(signal.SIGUSR1, lambda *_: gc.collect())
    harness.allow_descriptors()
    name = sys.argv[1].replace("-", "_")
    module = importlib.import_module(f"benchmarks.servers.{MODULES[name.split('_')[0]]}")
    getattr(module, name)()
