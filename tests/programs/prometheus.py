"""``prometheus [CERTIFICATE]``: prometheus_client's server; prints how it ended."""

import sys

import prometheus_client

from tests.programs.waiting import wait_for_interrupt

prometheus_client.Counter("program", "It counts.").inc()
words = {"certfile": sys.argv[1], "keyfile": sys.argv[1]} if sys.argv[1:] else {}
server, thread = prometheus_client.start_http_server(0, "127.0.0.1", **words)
try:
    print(server.server_port)
    wait_for_interrupt()
except KeyboardInterrupt:
    server.shutdown()
    thread.join()
    server.server_close()
    print("down")
