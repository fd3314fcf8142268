"""
A process that serves a table's rows: C{python -m tests.sql.worker URL LOG}.  Each id goes into
LOG, a line each, at the start of its handler.
"""

import sys

from twisted.internet import reactor
from twisted.internet.task import deferLater

from sockserve import BaseRequestHandler
from sockserve.sql import SQLRequestService, SQLSource


class Handler(BaseRequestHandler):
    async def handle(self) -> None:
        log.write(b"%d\n" % self.request.id)  # unbuffered, so that a kill loses nothing
        await deferLater(reactor, 0.001)


if __name__ == "__main__":
    log = open(sys.argv[2], "ab", buffering=0)  # noqa: SIM115 (until it is killed)
    service = SQLRequestService(SQLSource(reactor, sys.argv[1]), Handler)
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
