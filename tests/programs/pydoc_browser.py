"""pydoc's own server, whose loop is a select of its own; it is told to stop from outside."""

import pydoc

from tests.programs.waiting import wait_for_interrupt

server = pydoc._start_server(lambda url, kind: f"{kind} {url}", "127.0.0.1", 0)
try:
    print(server.url)
    wait_for_interrupt()
except KeyboardInterrupt:
    server.stop()
    print("serving", server.serving)
