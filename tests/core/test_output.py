"""What a command tells on standard output, to whoever reads it."""

import io
import os
import sys

import pytest

from sockserve.core.output import write_out


def test_a_reader_that_has_gone_has_read_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        write_out("one\ntwo\n")
        stream.write("whatever is flushed at the end")


def test_what_the_encoding_has_not_is_written_as_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    write_out("a\u2013b\udcff\n")
    assert written.getvalue() == rb"a\u2013b\udcff" + b"\n"
