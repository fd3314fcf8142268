"""The ends of a blocking handler's cycle: its failures, deadlines, a lost client, a drain."""

from typing import Any

import pytest

from tests.http.blocking import (
    Executor,
    Serve,
    StockEcho,
    answer,
    answer_now,
    assert_last,
    begin,
    both,
    each_kind,
    owning_or_not,
    step_logged,
)
from tests.http.connections import GET

# Failures


@both
@pytest.mark.parametrize("begins", [False, True])
def test_a_handler_that_raises_before_anything_has_left_is_answered_for(
    serve: Serve, begins: bool
) -> None:
    def do_GET(self: Any) -> None:
        if begins:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"held back")
        raise ZeroDivisionError

    client = serve(do_GET)
    client.ask()
    assert client.status() == (500, None)
    assert b"held back" not in client.said
    assert client.raised == [ZeroDivisionError]
    assert client.server.statistics.errors == 1
    assert not client.ended


@both
def test_a_handler_that_raises_within_its_answer_ends_the_connection(serve: Serve) -> None:
    def do_GET(self: Any) -> None:
        begin(self, 9)
        self.wfile.write(b"not all")
        raise ZeroDivisionError

    client = serve(do_GET)
    client.ask(GET + GET)
    assert client.body == b"not all"
    assert_last(client)


@both
@pytest.mark.parametrize("handler", [StockEcho])
def test_a_stock_handler_that_raises_is_not_answered_for(serve: Serve) -> None:
    """As in the standard library, whose server closes the connection."""

    def do_GET(self: Any) -> None:
        raise ZeroDivisionError

    client = serve(do_GET)
    client.ask(GET + GET)
    assert client.said == b""
    assert client.ended
    assert client.server.statistics.errors == 1


@both
@each_kind
def test_a_handler_that_leaves_by_exit_leaves_its_connection(serve: Serve) -> None:
    """As a thread, which may end itself silently."""

    def do_GET(self: Any) -> None:
        answer(self)
        raise SystemExit

    client = serve(do_GET)
    client.ask(GET + GET)
    assert client.body == b"answer"
    assert_last(client)
    assert client.server.statistics.errors == 0


def test_a_handler_without_an_answer_is_answered_for(serve: Serve) -> None:
    client = serve(lambda self: None)
    client.send(GET)
    assert step_logged(client) == "Handler: GET /: no response was sent"
    assert client.status() == (500, None)
    assert not client.ended


@both
def test_an_answer_shorter_than_its_length_is_the_last(serve: Serve) -> None:
    def do_GET(self: Any) -> None:
        begin(self, 9)
        self.wfile.write(b"not all")

    client = serve(do_GET)
    client.send(GET + GET)
    assert "2 bytes too short" in step_logged(client)
    assert client.body == b"not all"
    assert client.ended
    assert client.server.statistics.errors == 1


@both
@each_kind
def test_a_handler_that_closes_its_socket_has_closed_the_connection(serve: Serve) -> None:
    def do_GET(self: Any) -> None:
        answer(self)
        self.connection.close()

    client = serve(do_GET)
    client.ask(GET + GET)
    assert client.body == b"answer"
    assert_last(client)
    assert client.is_finished


# A deadline passes while the handler runs


@both
@each_kind
@owning_or_not
def test_a_handler_that_is_too_slow_is_answered_for(serve: Serve) -> None:
    seen: list[object] = []

    def do_GET(self: Any) -> None:
        client.advance(9)
        seen.append(client.said)
        client.advance(1)
        seen.append(client.status())
        answer_now(self)

    client = serve(do_GET, handle=10)
    client.ask()
    assert seen == [b"", (504, "close")]
    assert client.said.count(b"HTTP/1.1") == 1
    assert client.ended
    assert client.raised == [BrokenPipeError]
    assert client.expiries == {"handle": 1}
    (record,) = client.server.records
    assert (record.status, record.outcome) == (504, "expired: handle")
    assert client.server.statistics.errors == 0


@both
@owning_or_not
def test_an_answer_that_has_begun_breaks_off(serve: Serve, owns: bool) -> None:
    def do_GET(self: Any) -> None:
        begin(self, 6)
        self.wfile.write(b"ans")
        if not owns:
            self.request.buffered.runs_long()
        client.advance(10)
        self.wfile.write(b"wer")

    client = serve(do_GET, handle=10)
    client.ask()
    assert client.body == b"ans"
    assert client.ended
    assert client.raised == [BrokenPipeError]
    assert client.is_finished


@each_kind
def test_what_can_be_killed_is_killed_instead(serve: Serve) -> None:
    client = serve(executor=Executor(killable=True), handle=10)
    client.send(GET)
    (job,) = client.executor.jobs
    client.advance(10)
    assert client.executor.killed == [job]
    assert client.said == b""
    assert not client.ended


@both
@each_kind
def test_the_time_of_a_handler_is_its_own(serve: Serve) -> None:
    """10 s for each of two, and none for the queue."""

    def do_GET(self: Any) -> None:
        client.advance(9)
        answer(self)

    client = serve(do_GET, queued=True, handle=10)
    client.send(GET)
    client.advance(60)
    client.executor.begin()
    client.executor.step()
    client.ask()
    client.advance(60)
    assert client.said.count(b"answer") == 2
    assert client.expiries == {}


@both
@each_kind
def test_one_that_was_answered_for_need_not_answer(serve: Serve) -> None:
    client = serve(lambda self: client.advance(10), handle=10)
    client.send(GET)
    assert "no response" not in step_logged(client)
    assert client.status() == (504, "close")


@both
@each_kind
@owning_or_not
def test_a_handler_that_does_not_end_is_abandoned(serve: Serve) -> None:
    """10 s by its deadline, and 5 s to come to its end."""
    counts = []

    def do_GET(self: Any) -> None:
        statistics = self.server.statistics
        for seconds in (14, 1):
            client.advance(seconds)
            counts.append((statistics.active, statistics.abandoned))

    client = serve(do_GET, handle=10, abandon=5)
    client.ask()
    assert counts == [(1, 0), (0, 1)]
    assert client.server.statistics.abandoned == 0
    assert client.status() == (504, "close")
    assert client.ended
    assert len(client.server.records) == 1


# The client is lost while the handler runs


@each_kind
@pytest.mark.parametrize(
    ("plain", "owns"),
    [(True, False), (False, False), (False, True)],
    ids=["lent-held", "pumped-held", "pumped-direct"],
)
def test_a_handler_hears_that_its_client_is_lost_when_it_sends(serve: Serve) -> None:
    gone = []

    def do_GET(self: Any) -> None:
        gone.append(self.request.client_is_gone())
        client.lose()
        gone.append(self.request.client_is_gone())
        answer_now(self)

    client = serve(do_GET)
    client.send(GET)
    assert not client.is_finished
    client.executor.step()
    assert gone == [False, True]
    assert client.raised == [BrokenPipeError]
    assert client.server.statistics.errors == 0
    assert client.server.records[0].outcome == "lost"
    assert client.is_finished


@each_kind
@pytest.mark.parametrize(
    ("plain", "owns"),
    [(True, False), (False, False), (False, True)],
    ids=["lent-held", "pumped-held", "pumped-direct"],
)
@pytest.mark.parametrize("status", [200, 101])
def test_a_handler_of_a_lost_client_may_compute_past_write(serve: Serve, status: int) -> None:
    """Nobody is left to take what it has sent, or to say more."""

    def do_GET(self: Any) -> None:
        self.send_response(status)
        self.end_headers()
        client.turn()
        client.lose()
        client.advance(100)

    client = serve(do_GET, write=5, idle=50)
    request = GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
    client.send(request if status == 101 else GET)
    assert step_logged(client) == ""
    assert client.expiries == {}
    assert client.raised == []
    assert client.server.statistics.abandoned == 0
    assert client.is_finished


# The service stops


@both
@each_kind
def test_a_request_that_has_begun_when_the_service_stops_is_the_last(serve: Serve) -> None:
    client = serve()
    client.send(GET[:20])
    drained = client.server.drain()
    client.ask(GET[20:])
    assert client.body == b"<>"
    assert client.ended
    assert drained.called
    assert client.status() == (200, "close")


@both
@each_kind
@owning_or_not
def test_an_abort_cuts_a_handler_off(serve: Serve) -> None:
    def do_GET(self: Any) -> None:
        self.server.abort()
        answer_now(self)

    client = serve(do_GET)
    client.ask()
    assert client.said == b""
    assert client.ended
    assert client.raised == [BrokenPipeError]


@both
@each_kind
@pytest.mark.parametrize("queued", [True, False])
def test_when_the_service_stops_a_request_is_answered_and_is_the_last(
    serve: Serve, queued: bool
) -> None:
    client = serve(queued=queued, drain=10)
    client.send(GET + GET)
    drained = client.server.drain()
    client.advance(9)
    assert not drained.called
    for _ in range(2):
        assert client.said.count(b"Connection: close") == 0
        if queued:
            client.executor.begin()
        client.executor.step()
    assert client.said.count(b"<>") == 2
    assert client.said.count(b"Connection: close") == 1
    client.end()
    assert_last(client)
    assert drained.called
    assert client.expiries == {}


@both
@each_kind
@owning_or_not
def test_drain_ends_what_does_not_end_by_itself(serve: Serve) -> None:
    def do_GET(self: Any) -> None:
        self.server.drain()
        client.advance(10)
        answer_now(self)

    client = serve(do_GET, drain=10)
    client.ask()
    assert client.said == b""
    assert client.ended
    assert client.expiries == {"drain": 1}
    assert client.raised == [BrokenPipeError]
