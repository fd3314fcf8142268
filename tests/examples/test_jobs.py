"""The shop of C{examples/jobs}: orders are worked off, and one that cannot be is set aside."""

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.examples.running import PATIENCE_SECONDS, Example


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Example]:
    example = Example("howto/serve-a-table.md", tmp_path)
    try:
        example.wait_for(": serving ", times=2)
        yield example
    finally:
        example.end()


def ask(shop: Example, path: str, order: str | None = None) -> str:
    body = None if order is None else order.encode()
    with urlopen(f"http://127.0.0.1:{shop.port}{path}", body, timeout=PATIENCE_SECONDS) as answer:
        return str(answer.read().decode())


def wait_for(shop: Example, path: str, expected: str) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while (said := ask(shop, path)) != expected:
        assert time.monotonic() < give_up, said
        time.sleep(0.02)


def test_orders_are_worked_off(shop: Example) -> None:
    assert ask(shop, "/orders", "two chairs") == "order 1\n"
    assert ask(shop, "/orders", "a table") == "order 2\n"
    wait_for(shop, "/invoices", "1 for two chairs\n2 for a table\n")


def test_an_order_that_is_no_text_is_refused(shop: Example) -> None:
    with pytest.raises(HTTPError) as caught:
        urlopen(f"http://127.0.0.1:{shop.port}/orders", b"\xff", timeout=PATIENCE_SECONDS)
    with caught.value as error:
        assert (error.code, error.read()) == (400, b"an order is a text in UTF-8\n")


def test_an_order_that_cannot_be_is_set_aside_and_has_no_invoice(shop: Example) -> None:
    for order in ("unicorns", "a lamp"):
        ask(shop, "/orders", order)
    wait_for(shop, "/failed", "1 unicorns\n")
    wait_for(shop, "/invoices", "2 for a lamp\n")
    assert "LookupError: no unicorns in stock" in shop.said


def test_the_worker_ends_after_the_shop_with_one_signal_to_each(shop: Example) -> None:
    shop.end()
    # The second is told when the first has ended, and once.
    _, first, second = shop.said.split("Received SIGTERM")
    assert "Server Shut Down" in first
    assert "again" not in second
