"""
What an import changes in its process: C{python -m tests.integration.process_state MODULE …} prints
a line for each such thing.
"""

import asyncio
import atexit
import builtins
import codecs
import decimal
import faulthandler
import gc
import http.client
import http.server
import importlib
import io
import json
import locale
import logging
import mimetypes
import multiprocessing
import os
import queue
import random
import resource
import select
import selectors
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Modules of which no name may come to mean something else.
PATCHABLE = [asyncio, builtins, codecs, gc, http.client, http.server, io, json, locale, logging]
PATCHABLE += [mimetypes, multiprocessing, os, queue, random, select, selectors, signal, socket]
PATCHABLE += [socketserver, ssl, subprocess, sys, threading, time, warnings]

HOOKS = ("displayhook", "excepthook", "unraisablehook", "breakpointhook")


def state() -> dict[str, Any]:
    """What there is of a process that all of a program shares."""
    umask = os.umask(0)
    os.umask(umask)
    wakeup = signal.set_wakeup_fd(-1)
    if wakeup != -1:
        signal.set_wakeup_fd(wakeup)
    root = logging.getLogger()
    limits = [name for name in dir(resource) if name.startswith("RLIMIT")]
    found = {
        "environment": dict(os.environ),
        "folder, umask, niceness": (os.getcwd(), umask, os.nice(0)),
        "group, session, processors": (os.getpgrp(), os.getsid(0), os.sched_getaffinity(0)),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in limits},
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "blocked signals": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "wake-up descriptor": wakeup,
        "timers": [signal.getitimer(which) for which in range(3)],
        "descriptors": dict(_descriptors()),
        "threads": threading.enumerate(),
        "tasks of the kernel": len(list(Path("/proc/self/task").iterdir())),
        "children": multiprocessing.active_children(),
        "start method": multiprocessing.get_start_method(allow_none=True),
        "stack size": threading.stack_size(),
        "switch interval, recursion limit": (sys.getswitchinterval(), sys.getrecursionlimit()),
        "warnings": list(warnings.filters),
        "hooks": [getattr(sys, name) for name in HOOKS] + [threading.excepthook],
        "tracing": (sys.gettrace(), sys.getprofile(), threading.gettrace()),
        "coroutine hooks": (sys.get_asyncgen_hooks(), sys.get_coroutine_origin_tracking_depth()),
        "import": (list(sys.meta_path), list(sys.path_hooks), list(sys.path)),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "arguments": (list(sys.argv), sys.dont_write_bytecode, sys.get_int_max_str_digits()),
        "locale": [locale.setlocale(category) for category in range(7)],
        "time zone": time.tzname,
        "collector": (gc.isenabled(), gc.get_threshold(), gc.get_debug(), list(gc.callbacks)),
        "logging": (root.level, list(root.handlers), root.manager.disable, logging.lastResort),
        "logging's classes": (logging.getLoggerClass(), logging.getLogRecordFactory()),
        "levels": dict(logging._levelToName),  # type: ignore[attr-defined]
        "time-out of sockets": socket.getdefaulttimeout(),
        "event loop": (getattr(asyncio.events, "_event_loop_policy", None), _event_loop()),
        "at exit": atexit._ncallbacks(),  # type: ignore[attr-defined]
        "faulthandler": faulthandler.is_enabled(),
        "decimal context": repr(decimal.getcontext()),
        "random numbers": random.getstate(),
    }
    for module in PATCHABLE:
        for name, value in vars(module).items():
            found[f"{module.__name__}.{name}"] = id(value)
    return found


def _descriptors() -> Iterator[tuple[str, tuple[str, bool]]]:
    for link in Path("/proc/self/fd").glob("*"):
        try:
            yield link.name, (os.readlink(link), os.get_inheritable(int(link.name)))
        except FileNotFoundError:
            pass  # the one that listed the folder


def _event_loop() -> object:
    """The loop of this thread, if any was set."""
    return asyncio._get_running_loop()


def main(*modules: str) -> None:
    state()  # what looking changes
    before = state()
    for module in modules:
        importlib.import_module(module)
    after = state()
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            print(f"{name}: {before.get(name)} -> {after.get(name)}")  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
