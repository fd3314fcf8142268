"""``prometheus [CERTIFICATE]``: prometheus_client's server; prints how it ended."""

import sys
import threading

import prometheus_client

prometheus_client.Counter("program", "It counts.").inc()
words = {"certfile": sys.argv[1], "keyfile": sys.argv[1]} if sys.argv[1:] else {}
server, thread = prometheus_client.start_http_server(0, "127.0.0.1", **words)
try:
    print(server.server_port)
    threading.Event().wait()
except KeyboardInterrupt:
    server.shutdown()
    thread.join()
    server.server_close()
    print("down")
