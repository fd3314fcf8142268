"""Lengths of time as users write them."""

import pytest

from sockserve.core.durations import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60", 60), ("2.5", 2.5), (".5", 0.5), ("1e3", 1000), ("500ms", 0.5), ("30s", 30),
        ("1m", 60), ("1.5m", 90), (".5h", 1800), ("2h", 7200), ("1d", 86400), ("1h30m", 5400),
        ("1m30s", 90), ("1s500ms", 1.5), ("0s", 0),
    ],
)  # fmt: skip
def test_a_time_is_so_many_seconds(text: str, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "m", "1 m", "1mm", "1x", "-1m", "1M", "1m-", "m1", "1h 30m", "\u0661m", "5 min"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="not a length of time"):
        seconds_of(text)
