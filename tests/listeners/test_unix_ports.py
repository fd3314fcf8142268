"""Ports of UNIX stream sockets: what they bind, and what they leave."""

import os
import secrets
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from sockserve.listeners.unix_ports import InheritedUNIXEndpoint, UNIXEndpoint

pytestmark = pytest.mark.usefixtures("no_leaks")


class Counting(Factory):
    """A factory that knows whether it serves."""

    noisy = False
    serves = False

    def startFactory(self) -> None:
        self.serves = True

    def stopFactory(self) -> None:
        self.serves = False


class Listening:
    """An endpoint of this kind, and what has come of it."""

    def __init__(self, name: str | Path, **options: Any) -> None:
        self.factory = Counting()
        self.reactor = MemoryReactorClock()
        options = {"backlog": 50, "mode": 0o666, "wants_lock": True, **options}
        self.endpoint: Any = UNIXEndpoint(self.reactor, str(name), **options)

    def open(self) -> Any:
        """The port; raises what the endpoint has failed with."""
        result: Any = []
        self.endpoint.listen(self.factory).addBoth(result.append)
        (self.port,) = result
        if isinstance(self.port, Failure):
            self.port.raiseException()
        assert self.factory.serves
        return self.port

    def close(self) -> None:
        closed: Any = []
        self.port.stopListening().addBoth(closed.append)
        self.reactor.advance(0)
        assert closed == [None]
        assert not self.factory.serves

    def refused(self) -> str:
        with pytest.raises(CannotListenError) as caught:
            self.open()
        assert not self.factory.serves
        return str(caught.value.socketError)


def connects(name: str | Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(name))
        except OSError:
            return False
        return True


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_a_port_has_its_file_and_lock_as_long_as_it_listens(tmp_path: Path, mode: int) -> None:
    listening = Listening(tmp_path / "s", mode=mode)
    for _ in range(2):
        listening.open()
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == mode
        assert sorted(os.listdir(tmp_path)) == ["s", "s.lock"]
        assert connects(tmp_path / "s")
        listening.close()
        assert os.listdir(tmp_path) == []


def test_an_abstract_name_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"\0sockserve {secrets.token_hex(8)}"
    listening, other = Listening(name), Listening(name)
    port = listening.open()
    assert connects(name)
    assert port.socket.getsockname() == os.fsencode(name)
    assert other.refused().endswith("Address already in use")
    assert os.listdir(tmp_path) == []
    listening.close()
    assert not connects(name)


def test_a_port_that_cannot_open_leaves_nothing(tmp_path: Path) -> None:
    name = tmp_path / "s"
    name.write_text("precious")
    assert Listening(name).refused().endswith("Address already in use")
    assert os.listdir(tmp_path) == ["s"]
    assert "too long" in Listening(tmp_path / ("s" * 110)).refused()
    assert os.listdir(tmp_path) == ["s"]
    with pytest.raises(FileNotFoundError):
        Listening(tmp_path / "no" / "s").open()


def test_without_a_lock_a_name_that_is_there_is_in_use(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "s"))
    listening = Listening(tmp_path / "s", wants_lock=False)
    assert listening.refused().endswith("Address already in use")
    os.unlink(tmp_path / "s")
    listening.open()
    assert os.listdir(tmp_path) == ["s"]
    listening.close()


def test_of_two_ports_the_second_is_told_who_listens(tmp_path: Path) -> None:
    first = Listening(tmp_path / "s")
    first.open()
    second = Listening(tmp_path / "s")
    assert second.refused() == (
        f"Cannot acquire lock '{tmp_path}/s.lock': process {os.getpid()} holds it"
    )
    assert connects(tmp_path / "s")
    first.close()
    second.open()
    second.close()
    assert os.listdir(tmp_path) == []


def test_a_lock_that_is_taken_over_meanwhile_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another server has found the lock and nobody listening, and has the name by now."""
    name = tmp_path / "s"

    def be_overtaken(sock: socket.socket, backlog: int) -> None:
        os.unlink(f"{name}.lock")
        os.symlink("1", f"{name}.lock")
        os.rename(name, tmp_path / "ours")
        name.touch()

    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "listen", be_overtaken, raising=False)
        listening = Listening(name)
        assert "process 1 holds it" in listening.refused()
    assert sorted(os.listdir(tmp_path)) == ["ours", "s", "s.lock"]
    assert os.readlink(f"{name}.lock") == "1"


@pytest.mark.parametrize("what", ["gone", "another's"])
def test_a_name_that_is_not_its_own_any_more_does_not_keep_a_port_open(
    tmp_path: Path, what: str
) -> None:
    name = tmp_path / "s"
    listening = Listening(name)
    listening.open()
    os.rename(name, tmp_path / "kept")  # so that its inode is not given to the next
    os.unlink(f"{name}.lock")
    if what == "another's":
        name.touch()
        os.symlink("1", f"{name}.lock")
    listening.close()
    left = ["kept"] if what == "gone" else ["kept", "s", "s.lock"]
    assert sorted(os.listdir(tmp_path)) == left


# Sockets that were there before


@pytest.mark.parametrize("name", ["{}/s", "\0sockserve inherited {}"])
def test_an_inherited_socket_stays_as_it_is(tmp_path: Path, name: str) -> None:
    """It is systemd's, which goes on listening, and has said who may connect."""
    name = name.format(tmp_path)
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(name)
        theirs.listen()
        if name[0] == "/":
            os.chmod(name, 0o600)
        descriptor = os.dup(theirs.fileno())
        os.set_inheritable(descriptor, True)
        listening = Listening(name)
        listening.endpoint = InheritedUNIXEndpoint(listening.reactor, descriptor)
        port = listening.open()
        assert port.getHost().name == os.fsencode(name)
        assert not os.get_inheritable(port.fileno())
        if name[0] == "/":
            assert stat.S_IMODE(os.stat(name).st_mode) == 0o600
        listening.close()
        assert connects(name)
        with theirs.accept()[0]:
            pass
