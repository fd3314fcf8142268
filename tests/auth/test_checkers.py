"""What credentials are checked against, and how that is described."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin

from sockserve import ConfigurationError
from sockserve.auth import (
    AddressChecker,
    CertificateChecker,
    IUser,
    UserRealm,
    make_portal,
)
from sockserve.auth.credentials import (
    AddressCredentials,
    CertificateCredentials,
    PasswordCredentials,
)
from sockserve.auth.door import at_once
from sockserve.auth.identity import CertificateNames

SHADOW = "/etc/shadow"


def user_of(portal: Any, credentials: ICredentials) -> str:
    """The name of whoever is logged in."""
    _, user, log_out = at_once(portal.login(credentials, None, IUser))
    log_out()
    return str(user.name)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    path.write_text("alice:wonderland\nbob:builder\n")
    return path


def test_twisteds_descriptions_are_taken(users: Path) -> None:
    portal = make_portal([f"file:{users}"])
    assert user_of(portal, PasswordCredentials(b"alice", b"wonderland")) == "alice"
    for wrong in (b"wonderlanD", b"builder", b""):
        with pytest.raises(UnauthorizedLogin):
            user_of(portal, PasswordCredentials(b"alice", wrong))


def test_users_in_memory_are_found() -> None:
    """Twisted itself makes text of them, while what clients send is bytes."""
    portal = make_portal(["memory:alice:wonderland:bob:büilder"])
    assert user_of(portal, PasswordCredentials(b"alice", b"wonderland")) == "alice"
    assert user_of(portal, PasswordCredentials(b"bob", "büilder".encode())) == "bob"


def test_several_are_asked_one_after_the_other(users: Path) -> None:
    portal = make_portal(["memory:carol:singer", f"file:{users}"])
    assert user_of(portal, PasswordCredentials(b"carol", b"singer")) == "carol"
    assert user_of(portal, PasswordCredentials(b"bob", b"builder")) == "bob"
    with pytest.raises(UnauthorizedLogin):
        user_of(portal, PasswordCredentials(b"bob", b"singer"))


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("fiel:users", "auth: 'fiel' is not one of .*; did you mean 'file'"),
        ("file:", "auth file: write file:PATH"),
        ("file:/no/such", "auth file '/no/such': No such file or directory"),
        ("file:/", "auth file '/': Is a directory"),
        ("file:/dev/null", "auth file '/dev/null': it is no regular file"),
        ("file:users\0", "auth file .*null"),
        ("memory:alice:wonderland:bob", "auth memory: what follows it is wrong; it takes: "),
        ("memory", "auth memory: nobody can log in by it; write memory:NAME:PASSWORD"),
        ("memory:", "auth memory: nobody can log in by it"),
        ("memory::wonderland", "auth memory: nobody can log in by it"),
        ("memory:alice:", "auth memory: nobody can log in by it"),
        ("unix:wonderland", "auth unix: nothing belongs behind it"),
        ("anonymous", "auth anonymous: no client can show here .*; file, memory, unix will do"),
        ("", "auth: '' is not one of"),
    ],
)
def test_a_wrong_description_is_told_without_secrets(description: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        make_portal([description])
    assert "wonderland" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n", "alice\n", ":wonderland\n", "alice:\n", "alice::x"])
def test_a_file_by_which_nobody_can_log_in_is_told(text: str, users: Path) -> None:
    users.write_text(text)
    with pytest.raises(ConfigurationError, match="nobody can log in by it; no line is NAME:PASS"):
        make_portal([f"file:{users}"])


def test_a_pipe_of_users_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "users")
    with pytest.raises(ConfigurationError, match="no regular file"):
        make_portal([f"file:{tmp_path / 'users'}"])


def test_the_systems_users_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their checker, Twisted's, gives their names as text; all others give bytes."""
    crypt = pytest.importorskip("crypt", reason="Python has it up to 3.12")
    if not os.access(SHADOW, os.R_OK):
        pytest.skip(f"needs a user who may read {SHADOW}")
    hashed = crypt.crypt("wonderland", crypt.mksalt(crypt.METHOD_SHA256, rounds=1000))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_passwd=hashed))
    portal = make_portal(["unix"])
    assert user_of(portal, PasswordCredentials(b"alice", b"wonderland")) == "alice"
    with pytest.raises(UnauthorizedLogin):
        user_of(portal, PasswordCredentials(b"alice", b"glass"))


@pytest.fixture
def crypts() -> None:
    """Python's module, which others than root may not be able to read."""
    pytest.importorskip("crypt", reason="Python has it up to 3.12")


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """A process that is not root's."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_passwords_of_the_system_that_cannot_be_read_are_told(
    crypts: None, unprivileged: None
) -> None:
    if not os.path.exists(SHADOW):
        pytest.skip(f"needs {SHADOW}")
    with pytest.raises(ConfigurationError, match=f"auth unix: {SHADOW}: Permission denied; who"):
        make_portal(["unix"])


def names(common_name: str = "", *others: str) -> CertificateCredentials:
    return CertificateCredentials(b"", CertificateNames("", common_name, others))


@pytest.mark.parametrize(
    ("common_name", "others", "wanted", "user"),
    [
        ("alice", (), "", b"alice"),
        ("", ("alice@example.org", "a.example.org"), "", b"alice@example.org"),
        ("alice", ("alice@example.org",), "alice@example.org", b"alice@example.org"),
        ("alice", ("alice@example.org",), "bob", None),
        ("alice", (), "Alice", None),
        ("", (), "", None),
        ("", (), "alice", None),
    ],
)
def test_a_certificate_has_a_user(
    common_name: str, others: tuple[str, ...], wanted: str, user: bytes | None
) -> None:
    credentials = CertificateCredentials(b"", CertificateNames("", common_name, others), wanted)
    answer = CertificateChecker().requestAvatarId(credentials)
    if user is None:
        with pytest.raises(UnauthorizedLogin):
            at_once(answer)
    else:
        assert at_once(answer) == user


@pytest.mark.parametrize(
    ("address", "user"),
    [
        (("10.1.2.3", 1), b"office"),
        (("10.1.1.1", 1), b"boss"),
        (("192.0.2.1", 1), None),
        (("2001:db8::7", 1, 0, 0), b"six"),
        ("/run/socket", None),
        ("", None),
    ],
)
def test_an_address_has_a_user(address: object, user: bytes | None) -> None:
    checker = AddressChecker({"10.0.0.0/8": "office", "10.1.1.1": "boss", "2001:db8::/32": "six"})
    answer = checker.requestAvatarId(AddressCredentials(address))
    if user is None:
        with pytest.raises(UnauthorizedLogin):
            at_once(answer)
    else:
        assert at_once(answer) == user


def test_a_network_that_is_none_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"network '10\.0\.0\.0/99'"):
        AddressChecker({"10.0.0.0/99": "office"})


def test_a_user_has_a_name() -> None:
    with pytest.raises(NotImplementedError):
        UserRealm().requestAvatar((), None, IUser)


def test_credentials_do_not_show_secrets() -> None:
    assert repr(PasswordCredentials(b"alice", b"wonderland")) == "<PasswordCredentials b'alice'>"
