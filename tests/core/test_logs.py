"""The namespaces of the log: each named in one place, and on the page about the log."""

import ast
import logging
import re
from pathlib import Path

import pytest
from twisted.logger import LogEvent

from sockserve.core.logs import Topic, logger, standard_logger

ROOT = Path(__file__).parents[2]
HOUSE = ROOT / "sockserve"
#: The room that makes all loggers.
LOGS = HOUSE / "core" / "logs.py"
#: The room that writes lines to the log by names that others have given them.
JOINED = HOUSE / "observe" / "standard_logging.py"

each_room = pytest.mark.parametrize(
    "path", sorted(HOUSE.rglob("*.py")), ids=lambda path: path.relative_to(HOUSE).as_posix()
)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _called(node: ast.AST | None) -> str | None:
    """The name, without its module, of what a call calls."""
    if not isinstance(node, ast.Call):
        return None
    return getattr(node.func, "attr", None) or getattr(node.func, "id", None)


def test_a_line_carries_its_topic_and_not_the_room_that_logs_it() -> None:
    events: list[LogEvent] = []
    logger(Topic.HTTP, events.append).info("seen")
    assert [event["log_namespace"] for event in events] == ["sockserve.http"]


def test_a_standard_logger_has_the_same_name() -> None:
    assert standard_logger(Topic.WORKERS) is logging.getLogger("sockserve.workers")


def test_all_topics_are_sockserves() -> None:
    """So one filter can name them all."""
    assert {topic.partition(".")[0] for topic in Topic} == {"sockserve"}


@each_room
def test_no_other_room_makes_a_logger(path: Path) -> None:
    if path in (LOGS, JOINED):
        return
    assert {_called(node) for node in ast.walk(_tree(path))}.isdisjoint({"Logger", "getLogger"})


@each_room
def test_no_logger_is_an_attribute_of_a_class(path: Path) -> None:
    """Read through a class, a Twisted logger is named after that, whatever it was given."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ClassDef):
            values = [getattr(each, "value", None) for each in node.body]
            assert "logger" not in {_called(value) for value in values}


def test_every_topic_is_documented() -> None:
    page = (ROOT / "docs" / "howto" / "logs-and-counters.md").read_text()
    documented = re.findall(r"^\| `(sockserve[.a-z]*)` \|", page, re.MULTILINE)
    assert documented == [topic.value for topic in Topic]
