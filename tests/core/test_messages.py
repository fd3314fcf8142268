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
