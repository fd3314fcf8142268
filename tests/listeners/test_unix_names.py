"""Names of UNIX sockets, and their lock files."""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from twisted.internet.error import CannotListenError
from twisted.python.lockfile import FilesystemLock

from sockserve.listeners.unix_names import NameLock, is_abstract, remove_stale, unix_name

pytestmark = pytest.mark.usefixtures("no_leaks")

#: A process that lives, and is no server: the one that started this.
SOMEBODY = str(os.getppid())


@pytest.mark.parametrize("text", ["/run/" + "x" * 102, "@" + "x" * 107, "/run/" + "\u20ac" * 34])
def test_a_name_may_be_as_long_as_the_system_takes_it(text):
    """107 bytes and a NUL at one end are the 108 of C{sun_path}."""
    assert unix_name(text)
    with pytest.raises(ValueError, match="and 107 are the most"):
        unix_name(text + "yyy"[: 108 - len(os.fsencode(text.removeprefix("@")))])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/run/s", "/run/s"),
        ("s", "s"),
        ("@s", "\0s"),
        ("\0s", "\0s"),
        ("@@s", "\0@s"),
        ("@a\0b", "\0a\0b"),
        ("./@s", "./@s"),
        ("a@b", "a@b"),
        ("\udcff", "\udcff"),
    ],
)
def test_a_name_begins_with_at_or_nul_if_it_is_abstract(text: str, name: str) -> None:
    assert unix_name(text) == name
    assert is_abstract(name) is name.startswith("\0")
    assert is_abstract(os.fsencode(name)) is name.startswith("\0")


@pytest.mark.parametrize("text", ["", "@", "\0", "/run/\0s"])
def test_what_can_be_no_name(text: str) -> None:
    with pytest.raises(ValueError, match="path"):
        unix_name(text)


@contextmanager
def listening_on(name: str | bytes, *, listens: bool = True) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(name)
        if listens:
            sock.listen()
        yield


def leave_behind(name: Path) -> None:
    """The file of a socket of a server that is gone."""
    with listening_on(str(name)):
        pass
    assert name.is_socket()


# Names that are left behind


def test_only_a_socket_that_nobody_listens_on_is_removed(tmp_path: Path) -> None:
    left, used, file, link = (tmp_path / name for name in ("left", "used", "file", "link"))
    leave_behind(left)
    file.write_text("precious")
    link.symlink_to(used)
    with listening_on(str(used)):
        for name in (left, used, file, link, tmp_path / "none"):
            remove_stale(str(name), socket.SOCK_STREAM)
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "used"]
    remove_stale("\0sockserve test", socket.SOCK_STREAM)


def test_one_whose_queue_is_full_is_listened_on(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as sock, socket.socket(socket.AF_UNIX) as client:
        sock.bind(str(path))
        sock.listen(0)
        client.connect(str(path))
        remove_stale(str(path), socket.SOCK_STREAM)
        assert path.exists()


# Locks


@pytest.fixture
def name(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    return tmp_path / "s.lock"


@pytest.fixture
def lock(name: Path) -> NameLock:
    return NameLock(bytes(name))


def test_a_lock_names_its_holder_as_twisteds_does(lock: NameLock, lock_file: Path) -> None:
    lock.acquire()
    assert os.readlink(lock_file) == str(os.getpid())
    assert not FilesystemLock(str(lock_file)).lock()
    lock.confirm()
    lock.release()
    assert not os.path.lexists(lock_file)
    lock.release()


def ended_process() -> str:
    """The number of a process that was."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return str(ended.pid)


@pytest.mark.parametrize("socket_is_left", [False, True])
@pytest.mark.parametrize("holder", ["ended", "this one", "somebody"])
def test_a_lock_is_stale_when_nobody_listens(
    name: Path, lock_file: Path, lock: NameLock, holder: str, socket_is_left: bool
) -> None:
    """Whoever has the number by now, after a boot or in another container with the same folder."""
    number = {"ended": ended_process(), "this one": str(os.getpid()), "somebody": SOMEBODY}
    lock_file.symlink_to(number[holder])
    if socket_is_left:
        leave_behind(name)
    lock.acquire()
    assert os.readlink(lock_file) == str(os.getpid())
    assert not name.exists()
    lock.release()


@pytest.mark.parametrize("holder", ["1", "this one", "2147483647"])
def test_a_lock_is_held_while_somebody_listens(
    name: Path, lock_file: Path, lock: NameLock, holder: str
) -> None:
    holder = str(os.getpid()) if holder == "this one" else holder
    lock_file.symlink_to(holder)
    with listening_on(str(name)):
        with pytest.raises(CannotListenError) as refused:
            lock.acquire()
        assert refused.value.socketError == (
            f"Cannot acquire lock '{lock_file}': process {holder} holds it"
        )
        assert name.exists()
    assert os.readlink(lock_file) == holder


def test_what_is_no_lock_is_left_alone(lock_file: Path, lock: NameLock) -> None:
    def refused() -> str:
        with pytest.raises(CannotListenError) as caught:
            lock.acquire()
        return str(caught.value.socketError)

    expected = f"Cannot acquire lock '{lock_file}': it is not a server's lock"
    lock_file.write_text("precious")
    assert refused() == expected
    lock.release()
    assert lock_file.read_text() == "precious"
    lock_file.unlink()
    lock_file.mkdir()
    assert refused() == expected
    lock_file.rmdir()
    lock_file.symlink_to("somebody@somewhere")
    assert refused() == expected
    assert os.readlink(lock_file) == "somebody@somewhere"


def test_a_stale_lock_that_cannot_be_removed_is_named(
    lock_file: Path, lock: NameLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's, in a folder such as /tmp."""

    def refuse(path: bytes) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", path)

    lock_file.symlink_to(SOMEBODY)
    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        with pytest.raises(CannotListenError) as caught:
            lock.acquire()
    assert caught.value.socketError == (
        f"Cannot acquire lock '{lock_file}': process {SOMEBODY} has left it:"
        " Operation not permitted"
    )


def test_where_there_can_be_no_file_the_system_says_why(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        NameLock(bytes(tmp_path / "no" / "s")).acquire()


def test_a_file_that_is_no_socket_is_left_alone(
    name: Path, lock_file: Path, lock: NameLock
) -> None:
    name.write_text("precious")
    lock_file.symlink_to(ended_process())
    lock.acquire()
    assert name.read_text() == "precious"
    lock.release()


def test_of_two_that_start_at_the_same_time_one_gives_way(lock_file: Path, lock: NameLock) -> None:
    lock.acquire()
    lock_file.unlink()
    lock.confirm()  # somebody has tidied up; nobody else has it
    lock_file.symlink_to(SOMEBODY)  # has found the lock before there was a listener
    with pytest.raises(CannotListenError) as refused:
        lock.confirm()
    assert f"process {SOMEBODY} holds it" in str(refused.value.socketError)
    lock.release()
    assert os.readlink(lock_file) == SOMEBODY
