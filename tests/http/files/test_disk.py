"""What lies beneath a folder: links, what is no file, and files read piece by piece."""

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from sockserve.http.files import disk
from sockserve.http.files.disk import (
    PIECE_BYTES,
    Entry,
    FileBody,
    OutsideRoot,
    entries,
    open_beneath,
    segments_beneath,
)
from sockserve.http.files.ranges import ByteRange
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder to serve, with a secret beside it."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "file").write_text("file")
    (root / "deep" / "file").write_text("deep file")
    (root / "deep" / "er" / "file").write_text("deeper file")
    return root


def content(root: Path, path: str) -> str:
    descriptor, status = open_beneath(str(root), path.split("/"))
    try:
        assert stat.S_ISREG(status.st_mode)
        return os.read(descriptor, 100).decode()
    finally:
        os.close(descriptor)


def outcome(root: Path, path: str) -> str:
    try:
        return content(root, path)
    except OSError as error:
        return type(error).__name__


def test_a_file_and_a_folder(root):
    assert content(root, "deep/er/file") == "deeper file"
    descriptor, status = open_beneath(str(root), ["deep"])
    os.close(descriptor)
    assert stat.S_ISDIR(status.st_mode)
    descriptor, status = open_beneath(str(root), [])
    os.close(descriptor)
    assert os.path.samestat(status, root.stat())


@pytest.mark.parametrize(
    ("link", "target", "path", "found"),
    [
        ("link", "file", "link", "file"),
        ("link", "deep", "link/er/file", "deeper file"),
        ("deep/link", "../file", "deep/link", "file"),
        ("deep/er/link", "../../deep/er", "deep/er/link/link/file", "deeper file"),
        ("link", "{root}/deep/file", "link", "deep file"),
        ("link", "deep/../../root/file", "link", "file"),
        ("link", "../secret", "link", "OutsideRoot"),
        ("link", "{root}/../secret", "link", "OutsideRoot"),
        ("link", "../outside", "link/secret", "OutsideRoot"),
        ("link", "/", "link/etc/passwd", "OutsideRoot"),
        ("link", "../root2", "link", "OutsideRoot"),
        ("link", "nowhere", "link", "FileNotFoundError"),
        ("link", "file/file", "link", "NotADirectoryError"),
        ("link", "link", "link", "OSError"),
        ("link", "link", "link/file", "OSError"),
    ],
)
def test_links_are_followed_inside_only(root, link, target, path, found):
    Path(f"{root}2").write_text("has a name that begins as the root's")
    (root / link).symlink_to(target.format(root=root))
    assert outcome(root, path) == found


def test_the_root_may_be_a_link(root, tmp_path):
    (tmp_path / "current").symlink_to("root")
    (root / "absolute").symlink_to(tmp_path / "current" / "deep" / "file")
    (root / "relative").symlink_to("deep/file")
    for name in ("absolute", "relative", "deep/file"):
        assert content(tmp_path / "current", name) == "deep file"


def test_everything_is_beneath_the_top():
    assert segments_beneath("/", "/etc/passwd") == ["etc", "passwd"]
    assert segments_beneath("/srv", "/srv") == []
    with pytest.raises(OutsideRoot):
        segments_beneath("/srv", "/srv2/file")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("nothing", "FileNotFoundError"),
        ("nothing/file", "FileNotFoundError"),
        ("file/file", "NotADirectoryError"),
        ("x" * 300, "OSError"),
    ],
)
def test_what_is_not_there(root, path, found):
    assert outcome(root, path) == found


def test_what_is_no_file_is_not_opened(root):
    os.mkfifo(root / "fifo")
    (root / "device").symlink_to("/dev/null")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))
        for name in ("fifo", "null", "socket"):
            assert outcome(root, name) == "FileNotFoundError"
    assert outcome(root, "device") == "OutsideRoot"


def test_a_writer_that_waits_at_a_fifo_notices_nothing(root):
    os.mkfifo(root / "fifo")
    opened = threading.Event()

    def write():
        with open(root / "fifo", "wb"):
            opened.set()

    writer = threading.Thread(target=write)
    writer.start()
    outcome(root, "fifo")
    assert not opened.wait(0.1)
    with open(root / "fifo", "rb"):
        writer.join(PATIENCE_SECONDS)
    assert opened.is_set()


def test_a_fifo_put_in_place_between_looking_and_opening(root, monkeypatch):
    real = os.stat

    def swapping(path, *arguments, **options):
        status = real(path, *arguments, **options)
        if path == "file":
            (root / "file").unlink()
            os.mkfifo(root / "file")
        return status

    monkeypatch.setattr(disk.os, "stat", swapping)
    assert outcome(root, "file") == "FileNotFoundError"


@pytest.mark.parametrize(
    ("replaced", "by"),
    [("deep", "../outside"), ("file", "../secret"), ("deep/er", "../../outside")],
)
def test_a_link_put_in_place_between_looking_and_opening(root, monkeypatch, replaced, by):
    """An attacker who can write in the folder swaps it for a link, at every step there is."""
    path = {"deep": "deep/secret", "file": "file", "deep/er": "deep/er/secret"}[replaced]
    (root / "deep" / "secret").write_text("mine")
    (root / "deep" / "er" / "secret").write_text("mine")
    (root / "entry").symlink_to(path)
    seen = set()
    for asked in (path, "entry"):
        for swap_at in range(20):
            steps = iter(range(100))

            def swapping(call, swap_at=swap_at, steps=steps):
                def step(*arguments, **options):
                    if next(steps) == swap_at:
                        (root / replaced).rename(root / "aside")
                        (root / replaced).symlink_to(by)
                    return call(*arguments, **options)

                return step

            with monkeypatch.context() as patch:
                for name in ("open", "stat", "lstat"):
                    patch.setattr(disk.os, name, swapping(getattr(os, name)))
                seen.add(outcome(root, asked))
            if (root / "aside").exists():
                (root / replaced).unlink()
                (root / "aside").rename(root / replaced)
    assert "secret" not in seen
    assert len(seen) > 1, "the swap never came in between"


# Entries


def test_entries(root):
    for name in ("Beta", "alpha", "gamma.txt", "caf\udce9", ".hidden"):
        (root / name).write_text(name.encode("utf-8", "replace").decode())
    (root / "link").symlink_to("deep")
    (root / "out").symlink_to("../secret")
    (root / "nowhere").symlink_to("nothing")
    (root / "round").symlink_to("round")
    os.mkfifo(root / "fifo")
    os.utime(root / "alpha", (1e9, 1e9))
    shown = {"alpha", "Beta", "caf\udce9", "deep", "file", "gamma.txt", "link"}

    def found(words, dotfiles=False):
        return {entry.name: entry for entry in entries(str(root), words, dotfiles)}

    here = found([])
    assert set(here) == shown
    assert set(found([], dotfiles=True)) == {".hidden", *shown}
    assert set(found(["link", "er"])) == {"file"}
    assert {name for name, entry in here.items() if entry.is_folder} == {"deep", "link"}
    assert here["alpha"] == Entry("alpha", False, 5, 1e9)


@pytest.mark.parametrize("words", [["file"], ["nothing"], ["out"]])
def test_entries_of_what_is_no_folder_inside(root, words):
    (root / "out").symlink_to("../outside")
    with pytest.raises(OSError):  # noqa: PT011
        entries(str(root), words, dotfiles=False)


# Bodies


def opened(root: Path, parts: list[bytes | ByteRange], content: bytes = b"") -> FileBody:
    (root / "body").write_bytes(content)
    body = FileBody()
    body.open(str(root), ["body"])
    body.set_parts(parts)
    return body


def test_a_body_is_read_in_pieces_and_closed_with_the_last(root):
    content = os.urandom(2 * PIECE_BYTES + 10)
    body = opened(root, [ByteRange(0, len(content))], content)
    pieces = []
    while not body.closed:
        pieces.append(body.read())
    assert b"".join(pieces) == content
    assert [len(piece) for piece in pieces] == [PIECE_BYTES, PIECE_BYTES, 10]
    assert body.left == 0


def test_small_parts_are_read_together(root):
    parts = [b"<", ByteRange(1, 3), b"|", ByteRange(0, 1), b">"]
    body = opened(root, parts, b"0123456789")
    assert body.read() == b"<12|0>"
    assert body.closed


@pytest.mark.parametrize("size", [0, 5, PIECE_BYTES, PIECE_BYTES + 5])
def test_a_file_that_shrinks_ends_the_body(root, size):
    whole = 3 * PIECE_BYTES
    body = opened(root, [ByteRange(0, whole), b"after"], b"x" * whole)
    read = len(body.read())
    os.truncate(root / "body", size)
    while not body.closed:
        read += len(body.read())
    assert read == max(PIECE_BYTES, size)
    assert body.left == whole + len(b"after") - read


def test_a_file_that_grows_is_sent_as_long_as_it_was(root):
    body = opened(root, [ByteRange(0, 4)], b"four")
    (root / "body").write_bytes(b"four and more")
    assert body.read() == b"four"
    assert body.closed


def test_close_is_final(root):
    body = opened(root, [ByteRange(0, 4)], b"four")
    body.close()
    body.close()
    for again in (body.read, lambda: body.open(str(root), ["file"])):
        with pytest.raises(ValueError, match="closed"):
            again()


@pytest.mark.parametrize("during", ["open", "pread"])
def test_a_close_while_a_thread_is_busy_leaves_it_to_that(root, monkeypatch, during):
    """Neither does the one that closes wait, nor is the descriptor pulled away or left."""
    arrived, go_on = threading.Event(), threading.Event()
    (root / "body").write_bytes(b"four")
    body = FileBody()
    results = []

    def work():
        body.open(str(root), ["body"])
        body.set_parts([ByteRange(0, 8)])
        results.append(body.read())

    real = getattr(os, during)

    def slow(*arguments, **options):
        arrived.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return real(*arguments, **options)

    def run():
        try:
            work()
        except ValueError as error:
            results.append(str(error))

    with monkeypatch.context() as patch:
        patch.setattr(disk.os, during, slow)
        thread = threading.Thread(target=run)
        thread.start()
        assert arrived.wait(PATIENCE_SECONDS)
        body.close()
        assert body.closed
        go_on.set()
        thread.join(PATIENCE_SECONDS)
    assert results == [{"open": "the file was closed", "pread": b"four"}[during]]
    assert str(root / "body") not in {
        os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()
    }
