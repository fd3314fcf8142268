"""
What the HTTP servers answer, and the applications that do: servers load them, some in a process of
their own.

Knows WSGI, ASGI and RSGI; must not know servers.
"""

import json
from pathlib import Path

GREETING = b"Hello, world!"
JSON = json.dumps(
    [
        {"id": number, "name": f"item {number:04}", "tags": ["a", "b"], "price": 12.5, "new": True}
        for number in range(123)
    ]
).encode()
FILE_BYTES = 64 * 1024
FOLDER = Path(__file__).parents[2] / "build" / "benchmarks"
FILE, JSON_FILE = FOLDER / "file", FOLDER / "json"
BODIES = {"/": ("text/plain", GREETING), "/json": ("application/json", JSON)}
OCTETS = "application/octet-stream"


def write_files():
    """Make what is served from the disk."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, body in ((FILE, b"x" * FILE_BYTES), (JSON_FILE, JSON)):
        if not path.exists() or path.read_bytes() != body:
            path.write_bytes(body)


def constant(path):
    """All of an answer, head and body."""
    content_type, body = BODIES[path]
    return (
        b"HTTP/1.1 200 OK\r\nServer: none/1.0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
        b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
        % (content_type.encode(), len(body), body)
    )


#: By the one byte of a request that tells its path from the others' (b"GET /json").
CONSTANTS = {b" ": constant("/"), b"j": constant("/json")}


def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/file":
        headers = [("Content-Type", OCTETS), ("Content-Length", str(FILE_BYTES))]
        start_response("200 OK", headers)
        return environ.get("wsgi.file_wrapper", whole)(FILE.open("rb"))
    content_type, body = BODIES[environ["PATH_INFO"]]
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


def whole(file):
    """For servers that send no files."""
    with file:
        return [file.read()]


async def asgi(scope, receive, send):
    if scope["path"] == "/file":
        content_type, body = OCTETS, FILE.read_bytes()
    else:
        content_type, body = BODIES[scope["path"]]
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", b"%d" % len(body)),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def rsgi(scope, protocol):
    if scope.path == "/file":
        headers = [("content-type", OCTETS), ("content-length", str(FILE_BYTES))]
        return protocol.response_file(200, headers, str(FILE))
    content_type, body = BODIES[scope.path]
    headers = [("content-type", content_type), ("content-length", str(len(body)))]
    protocol.response_bytes(200, headers, body)
