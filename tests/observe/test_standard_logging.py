"""One log: what is written to logging is in Twisted's log, or the other way round."""

import logging
import re
import socketserver
import traceback
from collections.abc import Iterator

import pytest
from twisted.logger import Logger, LogLevel, LogPublisher, formatEvent
from twisted.python.failure import Failure

from sockserve.core.lifecycle import make_and_run, serve_next
from sockserve.core.logs import log_raised
from sockserve.observe.standard_logging import RecordsToTwisted, TwistedToRecords, join_logs


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger that hands nothing on to others."""
    logger = logging.Logger("app.orders", logging.DEBUG)
    yield logger
    for handler in logger.handlers:
        handler.close()


@pytest.mark.parametrize(
    ("number", "level"),
    [
        (5, LogLevel.debug),
        (logging.DEBUG, LogLevel.debug),
        (logging.INFO, LogLevel.info),
        (25, LogLevel.info),
        (logging.WARNING, LogLevel.warn),
        (logging.ERROR, LogLevel.error),
        (logging.CRITICAL, LogLevel.critical),
    ],
)
def test_a_record_keeps_its_level_and_its_loggers_name(log, number, level):
    log.setLevel(1)
    events = []
    log.addHandler(RecordsToTwisted(events.append))
    log.log(number, "order %d of {braces}", 7)
    (event,) = events
    assert event["log_level"] is level
    assert event["log_namespace"] == "app.orders"
    assert formatEvent(event) == "order 7 of {braces}"


def test_an_exception_comes_with_its_traceback(log):
    events = []
    log.addHandler(RecordsToTwisted(events.append))
    try:
        {}["missing"]
    except KeyError:
        log.exception("no order")
    assert "KeyError: 'missing'" in events[0]["log_failure"].getTraceback()


@pytest.mark.parametrize("level", [*LogLevel.iterconstants()], ids=lambda level: level.name)
def test_a_line_keeps_its_level_and_its_namespace(caplog, level):
    caplog.set_level(logging.DEBUG)
    Logger(namespace="sockserve.http", observer=TwistedToRecords()).emit(
        level, "{count} of {{braces}} %s", count=7
    )
    (record,) = caplog.records
    names = {"warn": "WARNING"}
    assert record.levelname == names.get(level.name, level.name.upper())
    assert record.name == "sockserve.http"
    assert record.getMessage() == "7 of {braces} %s"


def test_a_failure_comes_with_its_error(caplog):
    Logger(namespace="x", observer=TwistedToRecords()).failure("no", Failure(KeyError("missing")))
    assert caplog.records[0].exc_info[0] is KeyError


def test_a_handlers_error_comes_with_its_own_code_first_whatever_writes_it(caplog):
    observed = Logger(namespace="sockserve.handlers", observer=TwistedToRecords())

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            {}["missing"]

    class Server:
        def finish_request(self, request, client_address):
            make_and_run(Handler, request, client_address, self)

        def handle_error(self, request, client_address):
            log_raised(observed, "exception while serving {what}", what="GET /")

    error = serve_next(Server(), None, None, False)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    text = logging.Formatter().format(record)
    assert text.startswith("exception while serving GET /\nTraceback (most recent call last):\n")
    functions = re.findall(r"line \d+, in (\w+)$", text, re.MULTILINE)
    assert functions == ["finish_request", "__init__", "handle"]
    assert record.exc_info[1] is error
    assert len(traceback.extract_tb(error.__traceback__)) > len(functions)


@pytest.mark.parametrize(
    ("namespace", "level", "number", "name"),
    [
        ("twisted.internet.base", LogLevel.info, logging.DEBUG, "twisted.internet.base"),
        ("log_legacy", LogLevel.info, logging.DEBUG, "twisted"),
        ("log_legacy", LogLevel.critical, logging.CRITICAL, "twisted"),
        ("twisted.internet.base", LogLevel.warn, logging.WARNING, "twisted.internet.base"),
        ("twistedness", LogLevel.info, logging.INFO, "twistedness"),
    ],
)
def test_what_twisted_says_of_itself_is_for_debugging_unless_it_is_wrong(
    caplog, namespace, level, number, name
):
    caplog.set_level(logging.DEBUG)
    Logger(namespace=namespace, observer=TwistedToRecords()).emit(level, "a line")
    (record,) = caplog.records
    assert (record.name, record.levelno) == (name, number)


def test_nothing_goes_round(log):
    publisher = LogPublisher()
    log.addHandler(RecordsToTwisted(publisher))
    seen = []
    publisher.addObserver(seen.append)
    publisher.addObserver(lambda event: log.error("of an observer"))
    log.error("once")
    assert [formatEvent(event) for event in seen] == ["once"]


def test_a_program_that_has_set_up_logging_has_twisteds_lines_there(caplog):
    root = logging.RootLogger(logging.WARNING)
    root.addHandler(logging.NullHandler())
    observers = []
    join_logs(observers.append, root)
    Logger(namespace="sockserve", observer=observers[0]).error("from here")
    assert [record.getMessage() for record in caplog.records] == ["from here"]
    assert not any(isinstance(each, RecordsToTwisted) for each in root.handlers)


def test_any_other_program_has_its_records_in_twisteds_log():
    root = logging.RootLogger(logging.WARNING)
    observers = []
    join_logs(observers.append, root)
    assert observers == []
    (handler,) = root.handlers
    assert isinstance(handler, RecordsToTwisted)
