"""Sun RPC servers of the program in rpc.x."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.servers.start import serve_sockserve

BENCHMARKS = Path(__file__).parents[1]


def serve_rpc(kind, is_coroutine=True):
    from sockserve import sunrpc

    x = sunrpc.load(BENCHMARKS / "rpc.x")

    def answer(call):
        total = call.first + call.second + call.third
        return x.answered(total, total > 1000, call.name)

    class Coroutine(sunrpc.RPCRequestHandler):
        program = x.BENCHMARK

        async def ask(self, call):
            return answer(call)

    class Blocking(sunrpc.RPCRequestHandler):
        program = x.BENCHMARK

        def ask(self, call):
            return answer(call)

    serve_sockserve(kind, Coroutine if is_coroutine else Blocking)


def rpc_tcp_sockserve():
    serve_rpc("tcp")


def rpc_tcp_sockserve_threads():
    serve_rpc("tcp", is_coroutine=False)


def rpc_udp_sockserve():
    serve_rpc("udp")


def rpc_udp_sockserve_threads():
    serve_rpc("udp", is_coroutine=False)


def serve_rpcgen(kind):
    """The server in C: made here, as rpcgen is not everywhere."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(BENCHMARKS / "rpc.x", folder)
        for option, name in (("-h", "rpc.h"), ("-m", "dispatch.c"), ("-c", "types.c")):
            subprocess.run(["rpcgen", option, "-o", name, "rpc.x"], cwd=folder, check=True)
        sources = [BENCHMARKS / "rpc_server.c", "dispatch.c", "types.c"]
        command = ["cc", "-O2", "-w", "-I.", "-I/usr/include/tirpc", "-o", "server", *sources]
        subprocess.run([*command, "-ltirpc"], cwd=folder, check=True)
        program = os.open(Path(folder, "server"), os.O_RDONLY)
    os.execve(program, ["server", kind], os.environ)


def rpc_tcp_rpcgen():
    serve_rpcgen("tcp")


def rpc_udp_rpcgen():
    serve_rpcgen("udp")
