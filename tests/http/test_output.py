"""What a thread has sent and a client has not taken: memory, then a file, then the thread waits."""

import errno
import mmap
import os
import threading
from collections.abc import Callable
from io import FileIO
from typing import Any

import pytest

from sockserve.http import output
from sockserve.http.output import MEMORY_BYTES, OutputQueue, SpoolAllowance

MIB = 2**20


class Taker:
    """
    The reactor's part.

    @ivar woken: set while there is something to take.
    @ivar times: how often it was woken.
    """

    def __init__(
        self, pieces: list[bytes] | None = None, limit: int = 2**30, **options: float
    ) -> None:
        self.woken = threading.Event()
        self.times = 0
        self.allowance = SpoolAllowance(limit)
        self.queue = OutputQueue(pieces or [], self.allowance, self._wake, **options)

    def _wake(self) -> None:
        self.times += 1
        self.woken.set()

    def take(self) -> bytes:
        return b"".join(self.queue.take())

    def is_free(self, size: int) -> bool:
        """Whether so many bytes may be kept in files."""
        taken = self.allowance.take(size)
        if taken:
            self.allowance.give_back(size)
        return taken


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def numbered(size: int) -> bytes:
    return b"".join(b"%07d " % number for number in range(size // 8))


def test_what_fits_into_memory_is_taken_as_it_was_sent() -> None:
    taker = Taker([b"first "])
    taker.queue.write(b"second ", None)
    taker.queue.write(b"third", None)
    assert taker.take() == b"first second third"
    assert taker.take() == b""


def test_the_reactor_is_woken_once_until_it_has_taken_all() -> None:
    taker = Taker()
    for _ in range(3):
        taker.queue.write(b"x", None)
    assert taker.times == 1
    assert taker.take() == b"xxx"
    taker.queue.write(b"y", None)
    assert taker.times == 1, "it looks again by itself"
    assert taker.take() == b"y"
    assert taker.take() == b""
    taker.queue.write(b"z", None)
    assert taker.times == 2


def test_a_thread_whose_client_takes_nothing_is_free_once_all_is_in_a_file(no_leaks: None) -> None:
    taker, sent = Taker(), numbered(8 * MIB)
    taker.queue.write(sent, None)  # and does not wait
    assert not taker.is_free(2**30 - 1)
    pieces = taker.queue.take()
    assert b"".join(pieces) == sent
    assert sum(len(piece) for piece in pieces if type(piece) is bytes) <= MEMORY_BYTES
    pieces.clear()
    assert taker.is_free(2**30), "nobody has its bytes any more"


def test_what_is_taken_at_once_needs_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file(**options: Any) -> Any:
        raise AssertionError("it has room in memory")

    monkeypatch.setattr(output, "TemporaryFile", no_file)
    taker, sent, got = Taker(room_seconds=10), numbered(8 * MIB), bytearray()
    thread = in_thread(lambda: taker.queue.write(sent, None))
    while len(got) < len(sent):
        assert taker.woken.wait(10)
        taker.woken.clear()
        while data := taker.take():
            got += data
    thread.join()
    assert bytes(got) == sent


def test_order_is_kept_when_some_is_in_a_file() -> None:
    taker, got = Taker(), b""
    sent = [numbered(2 * MIB), b"small ", numbered(MIB), b"last"]
    for each in sent:
        taker.queue.write(each, None)
    got += taker.take()
    taker.queue.write(b"!", None)
    got += taker.take()
    assert got == b"".join(sent) + b"!"


@pytest.mark.parametrize("limit", [0, 16 * MIB])
def test_a_thread_waits_when_the_file_is_full_too(limit: int) -> None:
    """One response gets a sixteenth."""
    taker, sent, got = Taker(limit=limit), numbered(5 * MIB), bytearray()
    written = threading.Event()

    def write() -> None:
        taker.queue.write(sent, None)
        written.set()

    thread = in_thread(write)
    assert not written.wait(0.5)
    while len(got) < len(sent):
        got += taker.take()
    thread.join(10)
    assert written.is_set()
    assert bytes(got) == sent
    assert taker.is_free(limit)


def test_all_responses_share_what_there_is() -> None:
    allowance = SpoolAllowance(16 * MIB)
    assert allowance.share == MIB
    assert allowance.take(16 * MIB)
    queue = OutputQueue([], allowance, lambda: None)
    with pytest.raises(TimeoutError):
        queue.write(bytes(MEMORY_BYTES + 1), 0.01)
    allowance.give_back(MIB)
    queue.write(bytes(MIB), 0.01)
    queue.close()


def test_a_handlers_own_timeout_ends_the_wait() -> None:
    with pytest.raises(TimeoutError, match="timed out"):
        Taker(limit=0).queue.write(bytes(2 * MIB), 0.01)


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOSPC])
def test_without_a_file_the_client_is_waited_for(
    error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_file(**options: Any) -> Any:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(output, "TemporaryFile", no_file)
    taker = Taker()
    with pytest.raises(TimeoutError):
        taker.queue.write(bytes(2 * MIB), 0.01)
    assert len(taker.take()) == MEMORY_BYTES
    assert taker.is_free(2**30)


def test_a_closed_queue_breaks_those_that_write_and_those_that_wait() -> None:
    taker, raised = Taker(limit=0), []

    def write() -> None:
        try:
            taker.queue.write(bytes(2 * MIB), None)
        except OSError as error:
            raised.append(error)

    thread = in_thread(write)
    assert taker.woken.wait(10)
    assert taker.queue.close()
    thread.join(10)
    assert [type(error) for error in raised] == [BrokenPipeError]
    with pytest.raises(BrokenPipeError):
        taker.queue.write(b"x", None)
    assert taker.queue.take() == taker.queue.close() == []


def test_what_is_dropped_gives_its_room_back(no_leaks: None) -> None:
    taker = Taker()
    taker.queue.write(bytes(4 * MIB), None)
    taker.queue.close()
    assert taker.is_free(2**30)


def no_descriptor(*arguments: Any, **options: Any) -> Any:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize("last", [False, True], ids=["take", "close"])
def test_a_file_that_cannot_be_read_is_given_up(
    last: bool, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    """What was in it is lost, so nothing may leave after that."""
    monkeypatch.setattr(mmap, "mmap", no_descriptor)
    taker = Taker()
    taker.queue.write(bytes(4 * MIB), None)
    assert not taker.is_free(2**30)
    with pytest.raises(OSError, match="open files"):
        (taker.queue.close if last else taker.queue.take)()
    assert taker.is_free(2**30)
    with pytest.raises(BrokenPipeError):
        taker.queue.write(b"more", None)
    assert taker.queue.take() == taker.queue.close() == []


def test_a_thread_that_waits_hears_that_the_file_is_given_up(
    monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    monkeypatch.setattr(mmap, "mmap", no_descriptor)
    taker, raised = Taker(limit=16 * MIB), []

    def write() -> None:
        try:
            taker.queue.write(b"more", None)
        except OSError as error:
            raised.append(type(error))

    taker.queue.write(bytes(2 * MIB), None)  # one in memory, one in the file: no room for more
    thread = in_thread(write)
    with pytest.raises(OSError, match="open files"):
        taker.queue.take()
    thread.join(10)
    assert raised == [BrokenPipeError]
    assert taker.is_free(16 * MIB)


def test_what_is_discarded_is_not_read(monkeypatch: pytest.MonkeyPatch, no_leaks: None) -> None:
    monkeypatch.setattr(mmap, "mmap", no_descriptor)
    taker = Taker()
    taker.queue.write(bytes(4 * MIB), None)
    taker.queue.discard()
    assert taker.is_free(2**30)
    with pytest.raises(BrokenPipeError):
        taker.queue.write(b"more", None)
    assert taker.queue.take() == taker.queue.close() == []


class FullDisk(FileIO):
    """A file of which only the first piece has room."""

    def __init__(self) -> None:
        super().__init__(os.memfd_create("full") if hasattr(os, "memfd_create") else 0, "r+")
        self.pieces = 0

    def write(self, data: Any, /) -> int:
        self.pieces += 1
        if self.pieces > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="its file is in memory")
def test_when_the_disk_is_full_the_rest_waits_for_the_client(
    monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    monkeypatch.setattr(output, "TemporaryFile", lambda **options: FullDisk())
    taker, sent, got = Taker(), numbered(4 * MIB), bytearray()
    thread = in_thread(lambda: taker.queue.write(sent, None))
    while len(got) < len(sent):
        assert taker.woken.wait(10)
        taker.woken.clear()
        while data := taker.take():
            got += data
    thread.join(10)
    assert bytes(got) == sent
    assert taker.is_free(2**30)
