"""Spools: where a request's bytes are, and how each kind of handler reads them."""

import io
import os
import stat

import pytest

from sockserve.http.spool import (
    SPOOL_BYTES,
    Spool,
    StockInput,
    StockSwitchingFile,
    SwitchingFile,
    stock_file,
)

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n"
#: What http.server asks of readline where a request line or header field is due.
HEAD_LINE = 65537


@pytest.fixture
def spool():
    spool = Spool()
    yield spool
    spool.close()


@pytest.mark.parametrize("size", [0, 1, SPOOL_BYTES, SPOOL_BYTES + 1])
def test_a_spool_gives_back_what_was_written(spool, size):
    data = bytes(range(256)) * (size // 256 + 1)
    for start in range(0, size, 100_000):
        spool.write(data[start : min(start + 100_000, size)])
    assert spool.size == size
    with spool.open() as file:
        assert file.read() == data[:size]


@pytest.mark.parametrize("make", ["memory", "file", "switching"])
def test_a_bodys_file_has_no_descriptor_of_the_connection(spool, make):
    """As those of C{io} that have none: it raises; one on the disk has that one's."""
    if make == "switching":
        body = io.BufferedReader(SwitchingFile(b"body", lambda: None))
    else:
        spool.write(bytes(SPOOL_BYTES + 1 if make == "file" else 1))
        body = spool.open()
    with body:
        if make == "file":
            assert stat.S_ISREG(os.fstat(body.fileno()).st_mode)
        else:
            with pytest.raises(io.UnsupportedOperation):
                body.fileno()


def test_a_spool_keeps_in_memory_what_is_not_too_large(spool):
    spool.write(b"x" * SPOOL_BYTES)
    with spool.open() as file:
        assert isinstance(file, io.BytesIO)
    spool.write(b"y")
    with spool.open() as file:
        assert isinstance(file, io.BufferedReader)
        assert file.read() == b"x" * SPOOL_BYTES + b"y"


@pytest.mark.parametrize("size", [4, SPOOL_BYTES + 1])
def test_a_stock_handlers_file_begins_with_the_head(spool, size):
    spool.write(HEAD)
    spool.write(b"b" * size)
    with spool.open_for_stock(HEAD) as file:
        assert file.head == HEAD
        assert file.peek(4)[:4] == b"POST"
        assert file.readline() == b"POST / HTTP/1.1\r\n"
        file.seek(len(HEAD))
        assert file.read() == b"b" * size


# One request as http.server's handlers read it


def read_head(file):
    while file.readline(HEAD_LINE) not in (b"\r\n", b""):
        pass


def test_a_handler_that_reads_on_after_its_request_looks_for_the_next():
    with stock_file(HEAD) as file:
        read_head(file)
        assert not file.wants_next
        assert file.readline(HEAD_LINE) == b""
        assert file.wants_next


def test_a_read_of_another_size_looks_for_no_request():
    with stock_file(HEAD) as file:
        read_head(file)
        assert file.readline() == b""
        assert file.read(10) == b""
        assert not file.wants_next


def test_lines_of_the_body_are_read_before_the_answer_and_not_after(spool):
    """A part of the body may have a head, read as a request's is; before the answer only."""
    spool.write(HEAD + b"Part: 1\r\nPart: 2\r\n")
    with spool.open_for_stock(HEAD) as file:
        read_head(file)
        assert file.readline(HEAD_LINE) == b"Part: 1\r\n"
        file.answered()
        assert file.readline(HEAD_LINE) == b""
        assert file.wants_next
        assert file.read() == b"Part: 2\r\n"


def test_an_answer_forgets_that_the_end_was_met_before_it():
    with stock_file(HEAD) as file:
        read_head(file)
        file.readline(HEAD_LINE)
        file.answered()
        assert not file.wants_next
        file.readline(HEAD_LINE)
        file.answered()  # only the first counts
        assert file.wants_next


class Socket:
    """As much of a socket as a file that holds it open knows."""

    _io_refs = 0

    def _decref_socketios(self):
        self._io_refs -= 1


def test_a_file_holds_its_socket_open_until_it_is_closed():
    sock = Socket()
    file = stock_file(HEAD)
    file.hold_open(sock)
    file.hold_open(sock)
    assert sock._io_refs == 1
    file.close()
    file.close()
    assert sock._io_refs == 0
    assert file.closed


# What may follow a request


def test_a_switching_file_goes_on_with_what_follows():
    """End of file is only for now: the connection may be had later."""
    following = []
    raw = SwitchingFile(b"request", lambda: following.pop() if following else None)
    assert raw.readable()
    assert raw.read(3) == b"req"
    assert raw.read(100) == b"uest"
    assert raw.read(100) == b""
    following.append((b"early", io.BytesIO(b"later")))
    assert raw.read(2) == b"ea"
    assert raw.read(100) == b"rly"
    assert raw.read(100) == b"later"
    assert raw.read(100) == b""


def test_closing_a_switching_file_closes_what_follows():
    connection = io.BytesIO(b"later")
    raw = SwitchingFile(b"", lambda: (b"", connection))
    assert raw.read(1) == b"l"
    raw.close()
    assert connection.closed


def test_a_stock_handler_looks_for_the_next_request_at_the_end_of_a_switching_file():
    following = []
    with StockSwitchingFile(
        SwitchingFile(HEAD, lambda: following.pop() if following else None)
    ) as file:
        assert isinstance(file, StockInput)
        read_head(file)
        assert not file.wants_next
        assert file.readline(HEAD_LINE) == b""
        assert file.wants_next
        following.append((b"line\n", io.BytesIO()))
        assert file.readline(HEAD_LINE) == b"line\n"
