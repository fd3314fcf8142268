"""Lines of the log about what happens again and again, on a clock that the tests turn."""

import threading

from twisted.internet.task import Clock

from sockserve.core.incidents import SECONDS_BETWEEN_LINES, IncidentLog


def incidents():
    clock, lines = Clock(), []
    return clock, lines, IncidentLog(lines.append, clock.seconds)


def test_a_kind_has_a_line_a_minute_with_how_many_had_none():
    """At 0, 1, 59.5 and 60 s: the second and third are within the minute of the first."""
    clock, lines, log = incidents()
    for number, seconds in enumerate([0, 1, SECONDS_BETWEEN_LINES - 1.5, 0.5]):
        clock.advance(seconds)
        log.add("reset", f"reset by {number}")
    assert lines == ["reset by 0", "reset by 3 (and 2 more like it before)"]
    clock.advance(SECONDS_BETWEEN_LINES)
    log.add("reset", "reset by 4")
    assert lines[2:] == ["reset by 4"]


def test_kinds_do_not_count_together():
    _, lines, log = incidents()
    for kind in ("reset", "closed", "reset"):
        log.add(kind, f"it was {kind}")
    assert lines == ["it was reset", "it was closed"]


def test_the_end_tells_how_many_had_none():
    _, lines, log = incidents()
    for _ in range(3):
        log.add("reset", "reset by a client")
    log.add("closed", "closed by a client")
    log.close()
    assert lines[2:] == ["reset: 2 more like it before"]
    log.close()
    assert len(lines) == 3


def test_threads_count_together():
    _, lines, log = incidents()
    threads = [
        threading.Thread(target=lambda: [log.add("reset", "a reset") for _ in range(100)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert lines == ["a reset", "reset: 799 more like it before"]
