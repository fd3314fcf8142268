"""What the log says of an error that a handler has raised: its author's lines, as Python's own."""

import re
import socketserver
from traceback import walk_tb
from typing import Any

import pytest

from sockserve.core.lifecycle import make_and_run
from sockserve.core.tracebacks import HandlerFailure, folded_traceback
from sockserve.http.fields import check_text


def told(handle: Any) -> str:
    """The traceback of a blocking handler, made and run as the server does, that has raised."""
    cls = type("Handler", (socketserver.BaseRequestHandler,), {"handle": handle})
    with pytest.raises(Exception) as caught:  # noqa: PT011 (each test looks at what it is)
        make_and_run(cls, None, None, None)
    return without_first(caught.value)


def without_first(error: BaseException) -> str:
    """The traceback of an error but for this file's line, as the server's code is all above it."""
    assert error.__traceback__ is not None
    return HandlerFailure(error.with_traceback(error.__traceback__.tb_next)).getTraceback()


def functions(traceback: str) -> list[str]:
    return re.findall(r'^ +File "[^"]+", line \d+, in (\w+)$', traceback, re.MULTILINE)


def look_up():
    return {}["missing"]


def test_it_begins_with_the_handlers_own_code():
    def handle(self):
        look_up()

    traceback = told(handle)
    assert functions(traceback) == ["handle", "look_up"]
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert traceback.endswith("\nKeyError: 'missing'\n")


def test_of_what_the_handler_calls_in_sockserve_the_last_line_is_told():
    def handle(self):
        check_text("field X:", "\r\n")

    traceback = told(handle)
    assert functions(traceback) == ["handle", "check_text"]
    assert "ValueError: field X:" in traceback


def test_what_it_was_raised_from_is_told_too():
    def handle(self):
        try:
            look_up()
        except KeyError as error:
            error.add_note("the note")
            raise RuntimeError("no answer") from error

    traceback = told(handle)
    assert functions(traceback) == ["handle", "look_up", "handle"]
    assert "\nKeyError: 'missing'\nthe note\n" in traceback
    assert "direct cause" in traceback
    assert traceback.endswith("\nRuntimeError: no answer\n")


def test_each_error_of_a_group_is_told():
    def handle(self):
        errors = []
        for _ in range(2):
            try:
                look_up()
            except KeyError as error:
                errors.append(error)
        raise ExceptionGroup("both", errors)

    assert told(handle).count("KeyError: 'missing'") == 2


def test_an_error_of_ours_alone_is_told_whole():
    with pytest.raises(ValueError, match="field X:") as caught:
        check_text("field X:", "\r\n")
    assert functions(without_first(caught.value)) == ["check_text"]


def test_a_traceback_can_be_folded_as_an_object():
    def handle(self):
        check_text("field X:", "\r\n")

    cls = type("Handler", (socketserver.BaseRequestHandler,), {"handle": handle})
    with pytest.raises(ValueError, match="field X:") as caught:
        make_and_run(cls, None, None, None)
    error = caught.value
    error.__traceback__ = error.__traceback__.tb_next  # without this file's line, as above
    names = [frame.f_code.co_name for frame, _ in walk_tb(folded_traceback(error))]
    assert names == ["handle", "check_text"]
    assert len(list(walk_tb(error.__traceback__))) > len(names)
