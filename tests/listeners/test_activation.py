"""Sockets that a process was handed, by what its environment says."""

import os
import subprocess
import sys

import pytest

from sockserve.listeners.activation import handed_descriptor


@pytest.fixture
def handed(monkeypatch):
    """Sets the environment; None leaves a word out."""

    def set_words(fds, pid=None, names=None):
        words = {
            "LISTEN_FDS": fds,
            "LISTEN_PID": str(os.getpid()) if pid is None else pid,
            "LISTEN_FDNAMES": names,
        }
        for word, value in words.items():
            if value is None:
                monkeypatch.delenv(word, raising=False)
            else:
                monkeypatch.setenv(word, value)

    return set_words


@pytest.mark.parametrize("names", [None, "", "web:admin", "web", "a:b:c"])
def test_an_index_needs_no_names(handed, names):
    handed("2", names=names)
    assert [handed_descriptor(str(index), None) for index in range(2)] == [3, 4]


def test_names_are_in_the_order_of_the_descriptors(handed):
    handed("2", names="web:admin")
    assert handed_descriptor(None, "web") == 3
    assert handed_descriptor(None, "admin") == 4


@pytest.mark.parametrize(
    ("words", "index", "name"),
    [
        ({"fds": "1"}, "1", None),
        ({"fds": "1"}, "-1", None),
        ({"fds": "1"}, None, "web"),
        ({"fds": "1", "names": "web"}, None, "admin"),
        ({"fds": "1", "names": "web:admin"}, None, "web"),
        ({"fds": "0"}, "0", None),
        ({"fds": "-1"}, "0", None),
        ({"fds": "many"}, "0", None),
        ({"fds": "1", "pid": "1"}, "0", None),  # they are another process's
        ({"fds": "1", "pid": ""}, "0", None),
    ],
)
def test_what_was_not_handed(handed, words, index, name):
    handed(**words)
    with pytest.raises(LookupError):
        handed_descriptor(index, name)


@pytest.mark.parametrize(
    ("words", "index", "name", "has"),
    [
        ({"fds": "0"}, "0", None, ", nor any other"),
        ({"fds": "0"}, None, "web", ", nor any other"),
        ({"fds": "2"}, "2", None, "; its are 0 to 1"),
        ({"fds": "2", "names": "web:admin"}, None, "wbe", "; its are web, admin"),
        ({"fds": "2", "names": "web"}, None, "web", "; its have no names"),
    ],
)
def test_what_there_is_instead_is_told(handed, words, index, name, has):
    handed(**words)
    with pytest.raises(LookupError) as caught:
        handed_descriptor(index, name)
    assert str(caught.value) == f"this process was not handed such a socket{has}"


@pytest.mark.parametrize(("index", "name"), [(None, None), ("0", "web"), ("first", None)])
def test_one_of_the_two_is_given(handed, index, name):
    handed("1", names="web")
    with pytest.raises(ValueError, match=r"index or name|invalid literal"):
        handed_descriptor(index, name)


def test_the_words_are_found_though_twisted_has_taken_them_away():
    """Its endpoints do so when they are imported, perhaps long before a description is read."""
    script = (
        "import os, twisted.internet.endpoints;"
        "os.environ.pop('LISTEN_FDS', None), os.environ.pop('LISTEN_PID', None);"
        "from sockserve.listeners.activation import handed_descriptor;"
        "print(handed_descriptor('1', None))"
    )
    # LISTEN_PID is that of the process, which knows it itself only.
    wrapper = (
        "import os, sys; os.environ.update(LISTEN_FDS='2', LISTEN_PID=str(os.getpid()));"
        "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", wrapper, script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "4\n"
