"""
A server in a process of its own: C{python -m tests.integration.child DESCRIPTION HANDLER
[DEADLINE=SECONDS …]}.  It prints where it listens, and logs to standard error, until
SIGTERM.
"""

import sys
from importlib import import_module

from sockserve.core.garbage import importing_for_good

with importing_for_good():
    from twisted.logger import globalLogBeginner, textFileLogObserver

    from sockserve import Deadlines
    from sockserve.executors import make_executor
    from sockserve.service import service_from_description


def main(description: str, name: str, *options: str) -> None:
    from twisted.internet import reactor

    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    handler = getattr(import_module("tests.integration.handlers"), name)
    words = dict(option.split("=", 1) for option in options)
    concurrency = words.pop("concurrency", None)
    service = service_from_description(
        reactor,
        description,
        handler,
        deadlines=Deadlines(**{phase: float(seconds) for phase, seconds in words.items()}),
        concurrency=None if concurrency is None else make_executor(reactor, concurrency),
    )
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)

    def start() -> None:
        service.startService()
        print(repr(service.server.server_address), flush=True)  # noqa: T201

    reactor.callWhenRunning(start)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
