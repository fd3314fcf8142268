"""The first lines of responses, put together once a second, beside those of the handler's own."""

from http import HTTPStatus
from typing import Any

import pytest

from sockserve.http import HTTPRequestHandler, preambles
from sockserve.http.status_lines import RESPONSES

NOW = 784111777.5  # Sun, 06 Nov 1994 08:49:37 GMT


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which the test sets."""
    times = [NOW]
    monkeypatch.setattr(preambles, "time", lambda: times[-1])
    return times


def begun(handler: Any, code: Any, message: str | None = None) -> str:
    """The first lines that a handler makes."""
    handler.send_response(code, message)
    lines = handler._head
    assert isinstance(lines, str)
    return lines


def make(cls: type[HTTPRequestHandler]) -> Any:
    """A handler of a class that a server has been made for."""
    cls.may_block()
    return cls(object(), None, None)


class Usual(HTTPRequestHandler):
    server_version = "Usual/1"


def test_the_usual_lines() -> None:
    assert begun(make(Usual), 404) == (
        "HTTP/1.1 404 Not Found\r\nServer: Usual/1\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    )
    assert begun(make(Usual), HTTPStatus.NOT_FOUND) == begun(make(Usual), 404)


def test_a_second_later_the_date_is_another(now: list[float]) -> None:
    handler = make(Usual)
    dates = []
    for at in (NOW, NOW + 0.4, NOW + 0.5, NOW - 60):  # and when the system's clock is set back
        now.append(at)
        dates.append(begun(handler, 200)[-14:-6])
    assert dates == ["08:49:37", "08:49:37", "08:49:38", "08:48:37"]


def test_lines_that_have_a_phrase_of_their_own_or_none_of_the_rfcs() -> None:
    handler = make(Usual)
    assert begun(handler, 200, "Fine").startswith("HTTP/1.1 200 Fine\r\nServer: Usual/1\r\n")
    assert begun(handler, 299).startswith("HTTP/1.1 299 \r\nServer: Usual/1\r\n")
    with pytest.raises(ValueError, match="it is not within 100 and 999"):
        handler.send_response(1000)


def test_a_handler_without_a_server_made_for_its_class_says_the_same() -> None:
    class Alone(HTTPRequestHandler):
        server_version = "Usual/1"

    lines = begun(Alone(object(), None, None), 200)
    assert lines.startswith("HTTP/1.1 200 OK\r\nServer: Usual/1\r\nDate: ")


class Dated(Usual):
    def date_time_string(self, timestamp: float | None = None) -> str:
        return "today"


class Named(Usual):
    def version_string(self) -> str:
        return "Named"


class Worded(Usual):
    responses = {**RESPONSES, 200: ("Jolly Good", "")}


class Lined(Usual):
    def send_response_only(self, code: int, message: str | None = None) -> None:
        super().send_response_only(code, "As You Like It")


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (Dated, "Date: today\r\n"),
        (Named, "Server: Named\r\n"),
        (Worded, "HTTP/1.1 200 Jolly Good\r\n"),
        (Lined, "HTTP/1.1 200 As You Like It\r\n"),
    ],
)
def test_what_a_subclass_has_to_say_is_said(handler: type[HTTPRequestHandler], said: str) -> None:
    """Though its base class, which a server was made for first, has nothing to say."""
    make(Usual)
    assert said in begun(handler(object(), None, None), 200)
    assert said in begun(make(handler), 200)


def test_each_response_is_told_to_a_log_of_the_classs_own() -> None:
    codes = []

    class Logging(Usual):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            codes.append(code)

    begun(make(Logging), 200)
    begun(make(Logging), 404)
    assert codes == [200, 404]


@pytest.mark.parametrize("of", ["the class", "the handler"])
def test_a_version_that_is_set_later_is_said(of: str) -> None:
    class Changing(HTTPRequestHandler):
        server_version = "Old/1"

    handler = make(Changing)
    assert "Server: Old/1\r\n" in begun(handler, 200)
    changed: Any = Changing if of == "the class" else handler
    changed.server_version = "New/2"
    assert "Server: New/2\r\n" in begun(handler, 200)
    changed.sys_version = "Python"
    assert "Server: New/2 Python\r\n" in begun(handler, 200)


def test_a_method_that_a_program_has_put_in_the_place_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As its own tests may, so that the date is always the same."""
    monkeypatch.setattr(HTTPRequestHandler, "date_time_string", lambda self: "then")

    class Patched(HTTPRequestHandler):
        pass

    assert "Date: then\r\n" in begun(make(Patched), 200)


def test_a_method_that_is_put_in_the_place_of_a_classs_while_it_is_served(
    now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is heard within a second."""

    class Served(HTTPRequestHandler):
        pass

    handler = make(Served)
    assert "Date: Sun, 06 Nov 1994" in begun(handler, 200)
    with monkeypatch.context() as patch:
        patch.setattr(Served, "date_time_string", lambda self: "then")
        now.append(NOW + 1)
        for _ in range(2):
            assert "Date: then\r\n" in begun(handler, 200)
    assert "Date: Sun, 06 Nov 1994 08:49:38" in begun(handler, 200)
