"""What the tests of channels share."""

from collections.abc import Callable, Iterator

import pytest

from tests.streams import owner as memory


@pytest.fixture
def owner(no_leaks: None) -> Iterator[Callable[..., memory.Owner]]:
    """Makes connections in memory that own a channel."""
    yield from memory.owners()
