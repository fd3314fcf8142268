"""What a server says in its log while a test runs."""

from collections.abc import Iterator

import pytest
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher


@pytest.fixture
def errors() -> Iterator[list[str]]:
    """
    Whatever is logged as an error or worse.  A test that expects some looks at them and
    clears the list; whatever is left there fails it.
    """
    logged: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            failure = event.get("log_failure")
            logged.append(
                formatEvent(event) + ("" if failure is None else f": {failure.getTraceback()}")
            )

    globalLogPublisher.addObserver(observe)
    yield logged
    globalLogPublisher.removeObserver(observe)
    assert logged == []
