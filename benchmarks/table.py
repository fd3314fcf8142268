"""
What is measured, what of it is shown, and what it must reach: a table.

Knows the names of the contestants, and what they take; must not know how they are measured.
"""

from typing import NamedTuple


class Row(NamedTuple):
    work: str
    name: str  # of the function in servers or timers
    title: str
    against: str = ""
    at_least: float | None = None  # of the peer's figure
    at_most: float | None = None  # of the peer's figure
    limit: float | None = None  # of its own
    least: float | None = None  # of its own, too
    aim: float | None = None  # of the peer's figure: shown, not judged
    figure: str = ""  # where it is not the work's


FIGURES = {  # what is measured, and its format
    "per_s": "{:,.0f}/s",
    "p99_us": "p99 {:.0f} µs",
    "p99_us_1000": "p99 {:.0f} µs with 1,000",
    "silent": "{:.2f} KiB",
    "used": "{:.2f} KiB",
    "threads": "{:.0f} threads",
    "us": "{:.2f} µs",
    "jobs_per_s": "{:,.0f}/s",
    "ms": "{:.2f} ms",
    "import_ms": "{:.0f} ms",
    "kept": "{:.2f}",
    "grown_mib": "{:.1f} MiB",
}
LOAD = (
    "p50 {p50_us:.0f} µs, p99 {p99_us:.0f} µs, "
    "CPU {cpu_us:.1f} µs ({user_us:.1f} user, {system_us:.1f} system)"
)
DROPIN = "p99 {p99_us:.0f} µs, {threads:.0f} threads, CPU {cpu_us:.1f} µs"
GROWTH = (
    "{per_s_64:,.0f}, {per_s_1000:,.0f}, {per_s_10000:,.0f}/s; "
    "CPU {cpu_us_64:.1f}, {cpu_us_1000:.1f}, {cpu_us_10000:.1f} µs; "
    "p99 {p99_us_64:.0f}, {p99_us_1000:.0f}, {p99_us_10000:.0f} µs"
)
XDR_SHAPES = {
    "wide": "19 fields",
    "mixed": "6 fields",
    "array": "20 pairs",
    "pair": "2 numbers",
}
WORKS = {  # title, the figure compared, what stands beside it
    "tcp": ("TCP echo by line", "per_s", LOAD),
    "udp": ("UDP echo", "per_s", LOAD),
    "http-get": ("HTTP GET", "per_s", LOAD),
    "http-headers": ("HTTP GET, ten headers", "per_s", LOAD),
    "http-json": ("HTTP GET, 10 KB of JSON", "per_s", LOAD),
    "http-file": ("HTTP GET, a file of 64 KiB", "per_s", LOAD),
    "http-growth": ("HTTP GET, rate of 10,000 connections by 64's", "kept", GROWTH),
    "dropin": ("unchanged program", "per_s", DROPIN),
    "dropin-1000": ("unchanged program, 1,000 connections", "per_s", DROPIN),
    "dropin-close": ("unchanged program, connection a request", "per_s", DROPIN),
    "dropin-close-1000": ("the same, 1,000 at once", "per_s", DROPIN),
    "dropin-idle": ("1,000 idle keep-alive connections", "threads", ""),
    "memory": ("idle connection", "silent", "{used:.2f} KiB after a line"),
    "memory-http": ("idle keep-alive connection", "used", "{silent:.2f} KiB before a request"),
    "transfer-upload": ("upload, memory grown by", "grown_mib", "in {seconds:.1f} s"),
    "transfer-download": ("download, memory grown by", "grown_mib", "in {seconds:.1f} s"),
    "rows": ("rows of PostgreSQL, empty jobs", "jobs_per_s", ""),
    "rows-sqlite": ("rows of SQLite, empty jobs", "jobs_per_s", ""),
    "rows-latency": ("from INSERT to handle, PostgreSQL", "ms", "p99 {p99_ms:.2f} ms"),
    "rows-dead": ("rate with 1,000,000 dead rows", "kept", "{dead:,.0f}/s; without {fresh:,.0f}/s"),
    "timers": ("re-arm a deadline", "us", ""),
    "rpc-tcp": ("Sun RPC over TCP, calls", "per_s", LOAD),
    "rpc-udp": ("Sun RPC over UDP, calls", "per_s", LOAD),
    **{
        f"xdr-{shape}-{way}": (f"XDR: {title}, {way}ed", "us", "")
        for shape, title in XDR_SHAPES.items()
        for way in ("pack", "unpack")
    },
    "import": ("import of a module", "import_ms", ""),
}

STDLIB = "ThreadingHTTPServer"
STDLIB_AT_ONCE = "ThreadingHTTPServer, no Nagle"
DROPIN_SERVER = "sockserve ThreadingHTTPServer"
DROPIN_MODULE = "sockserve.http.server"
COROUTINE = "sockserve coroutine"
ON_UVLOOP = "sockserve coroutine, uvloop reactor"
THREADS = "sockserve threads"
UNMODIFIED = "sockserve, http.server handler"

#: An answer waits 40 ms for Nagle's algorithm: its rate is not that of the processor.
BOUND_BY_TIMERS = {"http-threading"}

SMALL = ("http-get", "http-headers", "http-json")
FILE = "http-file"
GROWS = "http-growth"
NO_FILE = (*SMALL, GROWS)
EVERY = (*SMALL, FILE, GROWS)
HTTP_SERVERS = [  # a contestant: its name, its title, and what it takes part in
    ("http-uvloop-protocol", "uvloop Protocol, a constant", NO_FILE),
    ("http-twistedprotocol", "Twisted Protocol, a constant", NO_FILE),
    ("http-nginx", "nginx", EVERY),
    ("http-granian-wsgi", "Granian WSGI", EVERY),
    ("http-granian-wsgi-threads", "Granian WSGI, 4 threads", EVERY),
    ("http-granian-asgi", "Granian ASGI", EVERY),
    ("http-granian-rsgi", "Granian RSGI", EVERY),
    ("http-fastpysgi", "fastpysgi", EVERY),
    ("http-bjoern", "bjoern", EVERY),
    ("http-uvicorn", "uvicorn", EVERY),
    ("http-uvicorn-zttp", "uvicorn, zttp", EVERY),
    ("http-hypercorn", "hypercorn", EVERY),
    ("http-gunicorn", "gunicorn, 4 threads", EVERY),
    # It asks each connection in each turn, and accepts one: 10,000 take minutes.
    ("http-waitress", "waitress", (*SMALL, FILE)),
    ("http-gevent", "gevent pywsgi", EVERY),
    ("http-twistedweb", "twisted.web Site", EVERY),
    ("http-twistedweb-uvloop", "twisted.web Site, asyncio's on uvloop", EVERY),
    ("http-twistedweb-uvloop-reactor", "twisted.web Site, uvloop reactor", EVERY),
    ("http-threading", STDLIB, SMALL),
    ("http-threading-nodelay", STDLIB_AT_ONCE, SMALL),
    ("http-sockserve", COROUTINE, NO_FILE),
    ("http-sockserve-uvloop-reactor", ON_UVLOOP, NO_FILE),
    ("http-sockserve-files", "sockserve FileRequestHandler", (FILE,)),
    (
        "http-sockserve-files-uvloop-reactor",
        "sockserve FileRequestHandler, uvloop reactor",
        (FILE,),
    ),
    ("http-sockserve-threads", THREADS, NO_FILE),
    ("http-sockserve-threads-uvloop-reactor", f"{THREADS}, uvloop reactor", ("http-get",)),
    ("http-sockserve-stdlib", UNMODIFIED, NO_FILE),
    ("http-sockserve-stdlib-uvloop-reactor", f"{UNMODIFIED}, uvloop reactor", ("http-get",)),
]


def http(work, name, against="", **target):
    title = next(title for each, title, _ in HTTP_SERVERS if each == name)
    return Row(work, name, title, against, **target)


HTTP_TARGETS = [
    http("http-get", "http-threading-nodelay", "http-threading"),
    http("http-get", "http-twistedweb-uvloop-reactor", "http-twistedweb", at_least=1.3),
    http("http-get", "http-sockserve-uvloop-reactor", "http-granian-wsgi", at_least=1.2),
    http("http-get", "http-sockserve-uvloop-reactor", "http-uvicorn", at_least=2),
    http("http-get", "http-sockserve-uvloop-reactor", "http-nginx", at_least=0.6),
    http("http-get", "http-sockserve-uvloop-reactor", "http-fastpysgi", aim=1),
    http("http-get", "http-sockserve-uvloop-reactor", "http-uvicorn", at_most=1, figure="p99_us"),
    http("http-get", "http-sockserve", "http-uvicorn", at_least=1.6),
    http("http-get", "http-sockserve", "http-granian-rsgi", at_least=1.1),
    http("http-get", "http-sockserve", "http-nginx", aim=0.5),
    http("http-get", "http-sockserve", "http-twistedweb", at_least=3),
    http("http-get", "http-sockserve", "http-uvicorn", at_most=1, figure="p99_us"),
    http("http-get", "http-sockserve-threads", "http-waitress", at_least=3),
    http("http-get", "http-sockserve-threads", "http-granian-wsgi-threads", aim=1),
    http("http-get", "http-sockserve-stdlib", "http-threading", at_least=15),
    http("http-get", "http-sockserve-stdlib", "http-threading-nodelay", at_least=1.8),
    http("http-headers", "http-sockserve-uvloop-reactor", "http-uvicorn", at_least=1.8),
    http(GROWS, "http-sockserve-uvloop-reactor", least=0.85),
    http(
        *(GROWS, "http-sockserve-uvloop-reactor", "http-uvicorn"), at_most=1, figure="p99_us_1000"
    ),
    http(GROWS, "http-sockserve", least=0.85),
    http(GROWS, "http-sockserve", "http-uvicorn", at_most=1, figure="p99_us_1000"),
]


def http_rows(work):
    """Its contestants beside one of them, and those with targets beside their peers."""
    targets = [row for row in HTTP_TARGETS if row.work == work]
    judged = {row.name for row in targets}
    others = [name for name, _, works in HTTP_SERVERS if work in works and name not in judged]
    against = "" if work == GROWS else "http-uvicorn"
    rows = [http(work, name, "" if name == against else against) for name in others]
    return rows + targets


ROWS = [
    Row("tcp", "tcp-asyncio", "asyncio streams"),
    Row("tcp", "tcp-uvloop", "asyncio streams, uvloop", "tcp-asyncio"),
    Row("tcp", "tcp-gevent", "gevent StreamServer", "tcp-asyncio"),
    Row("tcp", "tcp-linereceiver", "Twisted LineReceiver", "tcp-asyncio"),
    Row("tcp", "tcp-uvloop-protocol", "uvloop Protocol", "tcp-asyncio"),
    Row("tcp", "tcp-sockserve", COROUTINE, "tcp-asyncio", at_least=1),
    Row("tcp", "tcp-sockserve-uvloop-reactor", ON_UVLOOP, "tcp-uvloop", at_least=1.1),
    Row("tcp", "tcp-sockserve-uvloop-reactor", ON_UVLOOP, "tcp-uvloop-protocol", aim=0.7),
    Row("tcp", "tcp-threading", "ThreadingTCPServer"),
    Row("tcp", "tcp-sockserve-threads", THREADS, "tcp-threading", at_least=0.9),
    Row("tcp", "tcp-dropin", "sockserve ThreadingTCPServer", "tcp-threading", at_least=0.9),
    Row("udp", "udp-udpserver", "UDPServer"),
    Row("udp", "udp-dropin", "sockserve UDPServer", "udp-udpserver", at_least=0.8),
    Row("udp", "udp-twisted", "Twisted DatagramProtocol", "udp-udpserver"),
    Row("udp", "udp-asyncio", "asyncio DatagramProtocol", "udp-udpserver"),
    Row("udp", "udp-sockserve", COROUTINE, "udp-udpserver", at_least=0.85, aim=1),
    Row("udp", "udp-sockserve-files", "sockserve rfile/wfile", "udp-udpserver"),
    *(row for work in EVERY for row in http_rows(work)),
    Row("dropin", "http-threading", STDLIB),
    Row("dropin", "http-threading-nodelay", STDLIB_AT_ONCE, "http-threading"),
    Row("dropin", "http-dropin", DROPIN_SERVER, "http-threading", at_least=15),
    Row("dropin", "http-dropin", DROPIN_SERVER, "http-threading-nodelay", at_least=1),
    Row("dropin-1000", "http-threading", STDLIB),
    Row("dropin-1000", "http-threading-nodelay", STDLIB_AT_ONCE, "http-threading"),
    Row("dropin-1000", "http-dropin", DROPIN_SERVER, "http-threading-nodelay", at_least=1),
    Row("dropin-close", "http-threading", STDLIB),
    Row("dropin-close", "http-dropin", DROPIN_SERVER, "http-threading", at_least=1),
    Row("dropin-close-1000", "http-threading", STDLIB),
    Row("dropin-close-1000", "http-dropin", DROPIN_SERVER, "http-threading", at_least=1),
    Row("dropin-idle", "http-threading", STDLIB),
    Row("dropin-idle", "http-dropin", DROPIN_SERVER, "http-threading", limit=1000),
    Row("memory", "tcp-asyncio", "asyncio streams"),
    Row("memory", "tcp-gevent", "gevent StreamServer", "tcp-asyncio"),
    Row("memory", "tcp-linereceiver", "Twisted LineReceiver", "tcp-asyncio"),
    Row("memory", "tcp-sockserve", COROUTINE, "tcp-asyncio", limit=6.0),
    Row("memory-http", "http-uvicorn", "uvicorn"),
    Row("memory-http", "http-twistedweb", "twisted.web Site", "http-uvicorn"),
    Row("memory-http", "http-sockserve", COROUTINE, "http-uvicorn", limit=4.0),
    Row("memory-http", "http-sockserve-uvloop-reactor", ON_UVLOOP, "http-uvicorn", limit=5.0),
    Row("memory-http", "http-sockserve-stdlib", UNMODIFIED, "http-uvicorn"),
    Row("transfer-upload", "transfer-sockserve", COROUTINE, limit=16.0),
    Row("transfer-upload", "transfer-sockserve-threads", THREADS, limit=16.0),
    Row("transfer-download", "transfer-sockserve", COROUTINE, limit=16.0),
    Row("transfer-download", "transfer-sockserve-threads", THREADS, limit=16.0),
    Row("rows", "rows-procrastinate", "procrastinate"),
    Row("rows", "rows-pgqueuer", "pgqueuer, psycopg", "rows-procrastinate"),
    Row("rows", "rows-sockserve", COROUTINE, "rows-pgqueuer", at_least=3.0),
    Row("rows", "rows-sockserve-threads", THREADS, "rows-pgqueuer"),
    Row("rows", "rows-sockserve-transaction", "sockserve, a transaction each"),
    Row("rows-sqlite", "rows-sqlite", COROUTINE, least=50_000.0),
    Row("rows-latency", "latency", COROUTINE, limit=5.0),
    Row("rows-dead", "dead", COROUTINE, least=0.9),
    Row("rpc-tcp", "rpc-tcp-rpcgen", "rpcgen's, in C"),
    Row("rpc-tcp", "rpc-tcp-sockserve", COROUTINE, "rpc-tcp-rpcgen"),
    Row("rpc-tcp", "rpc-tcp-sockserve-threads", THREADS, "rpc-tcp-rpcgen"),
    Row("rpc-udp", "rpc-udp-rpcgen", "rpcgen's, in C"),
    Row("rpc-udp", "rpc-udp-sockserve", COROUTINE, "rpc-udp-rpcgen"),
    Row("rpc-udp", "rpc-udp-sockserve-threads", THREADS, "rpc-udp-rpcgen"),
    *[
        row
        for work in WORKS
        if work.startswith("xdr-")
        for name in [work.removeprefix("xdr-")]
        for row in (
            Row(work, f"{name}-xdrlib", "xdrlib"),
            Row(work, f"{name}-sockserve", "sockserve.sunrpc", f"{name}-xdrlib", at_most=0.2),
        )
    ],
    Row("timers", "timers-twisted", "Twisted DelayedCall.reset"),
    Row("timers", "timers-sockserve", "sockserve DeadlineTimer.arm", "timers-twisted", limit=2.0),
    Row("import", "import-http", "http.server"),
    Row("import", "import-sockserve-http", DROPIN_MODULE, "import-http", at_most=4),
    Row("import", "import-socketserver", "socketserver"),
    Row(
        "import",
        "import-sockserve-socketserver",
        "sockserve.socketserver",
        "import-socketserver",
    ),
    Row("import", "import-sockserve-serving", "what serves, with the first server"),
]
#: Those of them that are most asked for: what has a target in these works, and its peers.
QUICK = {"tcp", "udp", "http-get", "http-headers", "http-growth"}

OPTIONAL = {  # a word of a name, and the modules or the program that it takes
    "bjoern": ["bjoern"],
    "dropin": ["sockserve"],
    "fastpysgi": ["fastpysgi"],
    "gevent": ["gevent"],
    "granian": ["granian", "uvloop"],
    "gunicorn": ["gunicorn"],
    "hypercorn": ["hypercorn", "uvloop"],
    "latency": ["sockserve", "psycopg"],
    "nginx": ["nginx"],
    "pgqueuer": ["pgqueuer", "psycopg"],
    "procrastinate": ["procrastinate", "psycopg"],
    "reactor": ["sockserve.reactors.uvloop"],
    "rpcgen": ["rpcgen"],
    "sockserve": ["sockserve"],
    "uvicorn": ["uvicorn", "uvloop", "httptools"],
    "uvloop": ["uvloop"],
    "waitress": ["waitress"],
    "xdrlib": ["xdrlib"],
    "zttp": ["zttp"],
}
PROGRAMS = {"nginx", "rpcgen", "wrk"}
