"""A call: the way of a function's result, from a thread back to who waits for it."""

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from sockserve.executors.call import Call
from sockserve.interfaces import IJob, Outcome


class Unusual(BaseException):
    """What no C{except Exception} catches."""


def fired(result: Deferred[Any]) -> list[Any]:
    """What a call has given, as soon as it has."""
    given: list[Any] = []
    result.addBoth(given.append)
    return given


def test_it_is_a_job() -> None:
    assert verifyObject(IJob, Call(len, ("",)))


def test_a_function_is_called_when_the_job_is_served_and_its_result_given_when_that_has_ended() -> (
    None
):
    calls: list[Any] = []

    def function(*arguments: object) -> int:
        calls.append(arguments)
        return len(arguments)

    call = Call(function, ("a", 2))
    given = fired(call.result)
    call.started()
    assert calls == []
    assert call.serve() is Outcome.OK
    call.runs_long()
    assert calls == [("a", 2)]
    assert given == []  # it would be the worker's thread
    call.ended(Outcome.OK)
    assert given == [2]
    assert calls == [("a", 2)]


@pytest.mark.parametrize("result", [None, False, (), OSError("a result like another")], ids=repr)
def test_a_result_is_given_as_it_is(result: object) -> None:
    call = Call(lambda: result, ())
    call.started()
    call.serve()
    given = fired(call.result)
    call.ended(Outcome.OK)
    assert given == [result]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), Unusual()], ids=repr)
def test_what_the_function_raises_is_its_result(error: BaseException) -> None:
    """Whatever it is: it would go unheard on the thread, and the caller would wait for ever."""

    def function() -> None:
        raise error

    call = Call(function, ())
    call.started()
    assert call.serve() is Outcome.OK
    given = fired(call.result)
    call.ended(Outcome.OK)
    (failure,) = given
    assert isinstance(failure, Failure)
    assert failure.value is error
    assert "in function" in failure.getTraceback()


def test_without_a_thread_the_caller_gets_the_error() -> None:
    call = Call(len, ("",))
    given = fired(call.result)
    call.started()
    error = OSError("no thread to be had")
    call.failed(error)
    assert [failure.value for failure in given] == [error]


def test_a_caller_that_has_given_up_hears_nothing_more() -> None:
    call = Call(len, ("four",))
    given = fired(call.result)
    call.started()
    call.result.cancel()
    call.serve()
    call.ended(Outcome.OK)
    (failure,) = given
    assert failure.check(CancelledError)
