"""Values that are kept by their keys: how many, and for threads that ask at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

from sockserve.sunrpc.xdr.kept import Kept


def test_of_more_values_than_are_kept_the_oldest_is_forgotten() -> None:
    kept = Kept[int, str](str, 2)
    assert [kept.make(number) for number in (1, 2, 3)] == ["1", "2", "3"]
    assert kept.values == {2: "2", 3: "3"}


def test_threads_that_ask_at_once_get_their_values_and_no_more_are_kept() -> None:
    """8 threads make a value each at the same time, 50 times, where 4 values are kept."""
    together = threading.Barrier(8)

    def made(key: int) -> str:
        together.wait()
        return str(key)

    kept = Kept[int, str](made, 4)

    def ask(first: int) -> None:
        for key in range(first, first + 50):
            assert kept.make(key) == str(key)
            assert len(kept.values) <= 4

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(8)))
    assert len(kept.values) == 4
