"""Files of the process in a folder that is served."""

import functools
import os
from http.server import SimpleHTTPRequestHandler

import pytest

from sockserve import ConfigurationError
from sockserve.http import FileRequestHandler
from sockserve.http.files.disk import entries, is_withheld
from sockserve.run.config import server_config
from sockserve.run.config_file import read_toml
from sockserve.run.served_files import OwnFile, check_served
from tests.integration.servers import certificate_pem


class Dotfiles(FileRequestHandler):
    dotfiles = True


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder, the current one, whose folder C{site} is served."""
    for name in ("site/below/.hidden", "site/.well-known", "keys"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("site")
    (tmp_path / "site" / "out").symlink_to("../keys")
    (tmp_path / "site" / "logs").symlink_to("below/.hidden")
    for name in ("keys/key.pem", "site/below/key.pem"):
        (tmp_path / name).write_bytes(certificate_pem())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"access-log": "site/log"}, "access-log 'site/log'"),
        ({"stats-log": "site/below/log"}, "stats-log 'site/below/log'"),
        ({"access-log": "link/log"}, "access-log 'link/log'"),
        ({"access-log": "keys/../site/log"}, "access-log 'keys/../site/log'"),
        ({"access-log": "site/.well-known/log"}, "access-log 'site/.well-known/log'"),
        ({"access-log": "site/logs/log"}, "access-log 'site/logs/log'"),  # by that link
        ({"listen": "ssl:0:site/below/key.pem"}, "listen 'ssl:0:site/below/key.pem': 'site/below"),
        ({"listen": ["tcp:0", "tls:0:site/below"]}, "listen 'tls:0:site/below': 'site/below/key"),
    ],
)
def test_a_log_or_a_key_in_the_folder_is_refused(site, words, message):
    with pytest.raises(ConfigurationError) as caught:
        check_served([server_config({"path": "site", **words})])
    text = str(caught.value)
    assert text.startswith(message)
    assert text.endswith(f"it would be served, as it is in the folder {str(site / 'site')!r}; "
                         "put it elsewhere")  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        {"access-log": "log"},
        {"access-log": "-"},
        {"access-log": "none"},
        {"access-log": "site/.log"},
        {"access-log": "site/below/.hidden/log"},
        {"access-log": "site/out/log"},  # no link leads out of what is served
        {"listen": "ssl:0:keys/key.pem"},
        {"listen": "tls:0:keys"},
    ],
)
@pytest.mark.usefixtures("site")
def test_what_is_not_served_is_not_refused(words):
    check_served([server_config({"path": "site", **words})])


@pytest.mark.parametrize(
    "handler",
    [
        functools.partial(Dotfiles, directory="site"),
        functools.partial(SimpleHTTPRequestHandler, directory="site"),
        functools.partial(FileRequestHandler, directory="site", dotfiles=True),
    ],
)
@pytest.mark.usefixtures("site")
def test_handlers_that_serve_all_names_have_all_refused(handler):
    with pytest.raises(ConfigurationError, match="access-log"):
        check_served([server_config({"handler": handler, "access-log": "site/.log"})])


def test_one_server_does_not_serve_what_is_anothers(site):
    file = site / "c.toml"
    file.write_text("[[server]]\npath = 'site'\n[[server]]\npath = 'keys'\nstats-log = 'site/x'\n")
    with pytest.raises(ConfigurationError, match=rf"^{file}:5:13: stats-log 'site/x': it would be"):
        check_served(read_toml(str(file)))


@pytest.mark.usefixtures("site")
def test_a_pid_file_is_named():
    with pytest.raises(ConfigurationError, match=r"^pidfile 'site/x.pid': it would be served"):
        check_served(
            [server_config({"path": "site"})], [OwnFile("pidfile 'site/x.pid'", "site/x.pid")]
        )


def test_what_is_withheld_has_no_name(site):
    folder = site / "site"
    for name in ("twistd.log", "twistd.log.1", "twistd.log.2", "other.log"):
        (folder / name).write_text("text")
    os.link(folder / "twistd.log", folder / "another")
    withheld = [str(folder / "twistd.pid"), str(folder / "twistd.log")]
    assert {each.name for each in entries(str(folder), [], False, withheld)} == {
        "below", "logs", "other.log",
    }  # fmt: skip
    assert is_withheld(os.stat(folder / "another"), withheld)
    assert not is_withheld(os.stat(folder / "other.log"), withheld)


def test_a_folder_that_cannot_be_read_is_refused(site, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(ConfigurationError, match=r"^path '.*/site': Permission denied; "):
        server_config({"path": "site"})
