"""When a row is tried again, and what the settings of a source may be."""

from typing import Any

import attrs
import pytest

from sockserve import ConfigurationError
from sockserve.sql import RetryPolicy, SourceSettings


def test_each_wait_is_twice_the_one_before_up_to_the_longest() -> None:
    policy = RetryPolicy(attempts=6, first=1.0, longest=6.0, random=lambda: 0.0)
    waits = [policy.delay(attempts) for attempts in range(1, 7)]
    assert waits == [1.0, 2.0, 4.0, 6.0, 6.0, None]


def test_a_wait_is_cut_by_up_to_its_half() -> None:
    assert RetryPolicy(first=8.0, random=lambda: 1.0).delay(1) == 4.0


def test_there_may_be_any_number_of_attempts() -> None:
    assert RetryPolicy(attempts=10**6, longest=5.0, random=lambda: 0.0).delay(99_999) == 5.0


@pytest.mark.parametrize("setting", ["attempts", "first", "longest"])
def test_none_of_it_is_nothing(setting: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{setting}: 0 is not a number above 0"):
        RetryPolicy(**{setting: 0})


@pytest.mark.parametrize("kind", [RetryPolicy, SourceSettings])
def test_no_setting_is_more_than_a_database_takes(kind: Any) -> None:
    """Else a row that has failed, say, would keep all others from being claimed."""
    for field in attrs.fields(kind):
        if field.type in ("int", "float"):
            for value in (float("inf"), float("nan"), 2**63, 0, True, "5"):
                with pytest.raises(ConfigurationError, match=f"^{field.name}: "):
                    kind(**{field.name: value})


def test_a_batch_is_a_whole_number() -> None:
    with pytest.raises(ConfigurationError, match=r"batch: 2.5 is not a whole number"):
        SourceSettings(batch=2.5)
