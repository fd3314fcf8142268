"""What the tests of cycles share."""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.http.blocking import Echo, Executor, Serve
from tests.http.connections import Connection, connections


@pytest.fixture
def connect(no_leaks: None) -> Iterator[Callable[..., Connection]]:
    """Makes connections in memory to a handler."""
    yield from connections()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is not freed by its last reference stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# Blocking handlers


@pytest.fixture
def plain() -> bool:
    """Whether the connection is lent, or pumped; C{both} is each."""
    return True


@pytest.fixture
def handler() -> type:
    """The handler's class; C{each_kind} is each."""
    return Echo


@pytest.fixture
def owns() -> bool:
    """Whether the handler begins by taking the connection for itself; C{owning_or_not} is each."""
    return False


@pytest.fixture
def serve(connect: Callable[..., Connection], handler: type, plain: bool, owns: bool) -> Serve:
    """Makes connections to a handler of the test's kind."""

    def serve(
        do_GET: Callable[[Any], object] | None = None,
        do_POST: Callable[[Any], object] | None = None,
        *,
        queued: bool = False,
        **options: Any,
    ) -> Connection:
        """
        @param do_GET: instead of the handler's, as C{do_POST}.
        @param queued: whether requests wait until there is a place.
        @param options: as L{Connection.__init__}.
        """

        def method(function: Callable[[Any], object]) -> Callable[[Any], object]:
            def call(self: Any) -> None:
                if owns:
                    self.connection.fileno()
                function(self)

            return call

        methods = {"do_GET": do_GET, "do_POST": do_POST}
        own = {name: method(each) for name, each in methods.items() if each is not None}
        made = type("Handler", (handler,), own) if own else handler
        return connect(
            made, **({"plain": plain, "executor": Executor(0 if queued else 1)} | options)
        )

    return serve
