"""Messages: the pieces of the one line that tells a user of a mistake."""

import pytest

from sockserve.core.messages import nearest, one_line


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("haeder", "; did you mean 'header'?"),
        ("headers", "; did you mean 'header'?"),
        ("header", "; did you mean 'header'?"),
        ("handel", "; did you mean 'handle'?"),
        ("xyzzy", ""),
        ("", ""),
    ],
)
def test_the_nearest_word_is_hinted_at(word: str, hint: str) -> None:
    assert nearest(word, ["handle", "header", "idle"]) == hint


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("--port", ""),
        ("--workers", ""),
        ("--bind", ""),
        ("--Path", "; did you mean '--path'?"),
        ("--paht", "; did you mean '--path'?"),
        ("--serverr", "; did you mean '--server'?"),
        ("--tpc", "; did you mean '--tcp'?"),
    ],
)
def test_what_is_not_near_is_no_hint(word: str, hint: str) -> None:
    """The dashes that all options have make none of them near, nor does a capital make it far."""
    assert nearest(word, ["--path", "--server", "--rpcbind", "--tcp"]) == hint


def test_what_all_words_begin_with_makes_none_near() -> None:
    words = ["SOCKSERVE_PORT", "SOCKSERVE_PATH"]
    assert nearest("SOCKSERVE_HOSTS", words, "SOCKSERVE_") == ""
    assert nearest("SOCKSERVE_PROT", words, "SOCKSERVE_") == "; did you mean 'SOCKSERVE_PORT'?"


def test_of_no_words_none_is_near() -> None:
    assert nearest("idle", iter(())) == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one line"), "one line"),
        (ValueError("two\nlines,\r\n  indented"), "two lines, indented"),
        (ValueError(), "ValueError"),
        (ValueError(" \n "), "ValueError"),
        (
            OSError(2, "No such file or directory", "a\nb"),
            "[Errno 2] No such file or directory: 'a\\nb'",
        ),
        (KeyError("name"), "'name'"),
    ],
)
def test_an_error_is_told_on_one_line(error: BaseException, line: str) -> None:
    assert one_line(error) == line
