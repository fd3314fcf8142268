"""What the tests of cycles share."""

from collections.abc import Callable, Iterator

import pytest

from tests.http import connections as memory


@pytest.fixture
def connect(no_leaks: None) -> Iterator[Callable[..., memory.Connection]]:
    """Makes connections in memory to a handler."""
    yield from memory.connections()
