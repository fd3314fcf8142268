"""
Start a server, put a load on it, measure it, leave nothing running.

Knows processes, cores and /proc; must not know which servers there are.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from http.client import HTTPException
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[min(1, len(CORES) - 1)]
CONNECTIONS = 64
MESSAGE_BYTES = 64
WARM_UP_SECONDS = 0.3
GRACE_SECONDS = 30  # what a step may take beyond the time it measures
IDLE_CONNECTIONS = 10_000
CONNECT_BATCH = 32  # below Twisted's backlog of 50, so no SYN is dropped and sent again
CONNECTIONS_PER_SOURCE = 1_000  # a loopback address for each thousand: ports never run out
SETTLE_SECONDS = 0.25
ERROR_CHARACTERS = 500  # of a failed server's standard error, its last


class Failed(Exception):
    """A server could not be measured; the text says why."""


NO_RESULT = (Failed, HTTPException, OSError, ValueError, subprocess.TimeoutExpired)


def allow_descriptors():
    """As many as may be: a connection takes one at each end."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def build_pingpong(directory):
    program = Path(directory, "pingpong")
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-O2", "-o", program, HERE / "pingpong.c"], check=True)
    return program


@contextlib.contextmanager
def running(core, *command):
    """Run a command; what it printed on standard error is the reason when it fails."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            words,
            cwd=HERE.parent,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            process_group=0,  # with its workers
        )
        os.sched_setaffinity(process.pid, {core})
        try:
            yield process
        except NO_RESULT as error:
            errors.seek(0)
            raise Failed(f"{error}\n{errors.read()[-ERROR_CHARACTERS:]}") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def output(core, seconds, *command):
    with running(core, *command) as process:
        printed = process.communicate(timeout=seconds + GRACE_SECONDS)[0]
        if process.returncode:
            raise Failed(f"exit status {process.returncode} {printed.strip()}")
    return printed


@contextlib.contextmanager
def serving(name, seconds):
    """Run a server: its process id and its port."""
    limit = int(seconds + 3 * GRACE_SECONDS)
    with running(SERVER_CORE, sys.executable, "-m", "benchmarks.servers", name, limit) as process:
        port = process.stdout.readline()  # empty when the server ends
        if not port.strip().isdigit():
            process.wait(GRACE_SECONDS)
            raise Failed(f"no port: {port!r}")
        yield process.pid, int(port)


def put_load(pingpong, server, transport, connections, seconds, exchange):
    """
    Round trips a second, their latencies and the CPU time of each, of a server that is warm.

    @param server: its process id and its port.
    @param exchange: the bytes of an answer, and what is asked in hexadecimal if it is no line.
    """
    pid, port = server
    where = [transport, "127.0.0.1", port, connections]
    with running(LOAD_CORE, pingpong, *where, WARM_UP_SECONDS, seconds, *exchange) as process:
        process.stdout.readline()
        before = cpu_seconds(pid)
        printed = process.stdout.readline()  # empty when it has failed
        user, system = (
            after - earlier for after, earlier in zip(cpu_seconds(pid), before, strict=True)
        )
        if not printed:
            raise Failed(f"{connections} connections: no result")
    result = json.loads(printed)
    if not (count := result["round_trips"]) or result["lost"]:
        raise Failed(f"messages without an answer: {result}")
    result["user_us"], result["system_us"] = user / count * 1e6, system / count * 1e6
    return result | {"cpu_us": result["user_us"] + result["system_us"]}


def echo(pingpong, transport, seconds, name, exchange=(MESSAGE_BYTES,)):
    with serving(name, seconds) as server:
        return put_load(pingpong, server, transport, CONNECTIONS, seconds, exchange)


def status_number(pid, word):
    """The number behind a word of /proc/PID/status; KiB, of what is memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{word}:")[1].split()[0])


def with_children(pid):
    """The ids of a process and, after it, of all that it has started."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = (thread / "children").read_text().split()
        except OSError:  # it has ended
            continue
        for child in children:
            yield from with_children(int(child))


def cpu_seconds(pid):
    """What a process and its children have used so far, in all threads: for itself, the system."""
    used = [0, 0]
    for each in with_children(pid):
        after_name = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        used = [a + int(b) for a, b in zip(used, after_name[11:13], strict=True)]  # proc(5): 14, 15
    return [ticks / os.sysconf("SC_CLK_TCK") for ticks in used]


def settled_kib(pid):
    """Resident memory after a garbage collection, once it has stopped changing."""
    os.kill(pid, signal.SIGUSR1)
    before, now, deadline = None, -1, time.monotonic() + GRACE_SECONDS
    while now != before and time.monotonic() < deadline:
        time.sleep(SETTLE_SECONDS)
        before, now = now, status_number(pid, "VmRSS")
    return now


def echo_line(sock):
    line = b"x" * (MESSAGE_BYTES - 1) + b"\n"
    sock.sendall(line)
    if sock.recv(MESSAGE_BYTES, socket.MSG_WAITALL) != line:
        raise Failed("a connection was closed")


def memory(exchange, name):
    """Resident KiB for each connection: that has sent nothing yet, then after an exchange."""
    with serving(name, 3 * GRACE_SECONDS) as (pid, port), contextlib.ExitStack() as stack:
        sockets, kib = [], []
        for number in range(IDLE_CONNECTIONS + 1):
            source = (f"127.0.0.{2 + number // CONNECTIONS_PER_SOURCE}", 0)
            sock = socket.create_connection(("127.0.0.1", port), GRACE_SECONDS, source)
            sockets.append(stack.enter_context(sock))
            if number % CONNECT_BATCH == 0 or number == IDLE_CONNECTIONS:
                exchange(sock)  # accepted in order: those before it are, too
            if number == 0:  # it paid for what is made only once
                kib.append(settled_kib(pid))
        kib.append(settled_kib(pid))
        for sock in sockets:
            exchange(sock)
        kib.append(settled_kib(pid))
    silent, used = ((after - kib[0]) / IDLE_CONNECTIONS for after in kib[1:])
    return {"silent": silent, "used": used}


def rpc_exchange(transport):
    """A call of the program of rpc.x: the bytes of its answer, and the call in hexadecimal."""
    name = b"\0\0\0\x0fa-file-name.txt\0"
    call = struct.pack(">10I", 1, 0, 2, 0x20000B00, 1, 1, 0, 0, 0, 0)
    call += struct.pack(">iiqd", 1, 2, 3000, 0.5) + name
    answer_bytes = 24 + 8 + 4 + len(name)
    if transport == "tcp":
        return answer_bytes + 4, (struct.pack(">I", 1 << 31 | len(call)) + call).hex()
    return answer_bytes, call.hex()


def microseconds(module, name):
    command = [sys.executable, "-m", f"benchmarks.{module}", name]
    return {"us": float(output(SERVER_CORE, GRACE_SECONDS, *command))}


def import_milliseconds(name):
    command = [sys.executable, "-m", "benchmarks.imports", name]
    return {"import_ms": float(output(SERVER_CORE, GRACE_SECONDS, *command))}
