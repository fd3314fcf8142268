"""Files of the process in a folder that is served."""

import functools
import os
from http.server import SimpleHTTPRequestHandler

import pytest

from sockserve import ConfigurationError
from sockserve.http import FileRequestHandler
from sockserve.http.files.disk import entries, identities, identity
from sockserve.run.config import server_config
from sockserve.run.config_file import read_toml
from sockserve.run.served_files import OwnFile, files_to_withhold
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
    ("words", "message", "path"),
    [
        ({"access-log": "site/log"}, "access-log 'site/log'", "site/log"),
        ({"stats-log": "site/below/log"}, "stats-log 'site/below/log'", "site/below/log"),
        ({"access-log": "link/log"}, "access-log 'link/log'", "link/log"),
        ({"access-log": "keys/../site/log"}, "access-log 'keys/../site/log'", "site/log"),
        (
            {"access-log": "site/.well-known/log"},
            "access-log 'site/.well-known/log'",
            "site/.well-known/log",
        ),
        # by that link
        ({"access-log": "site/logs/log"}, "access-log 'site/logs/log'", "site/logs/log"),
        (
            {"listen": "ssl:0:site/below/key.pem"},
            "listen 'ssl:0:site/below/key.pem': 'site/below/key.pem'",
            "site/below/key.pem",
        ),
        (
            {"listen": ["tcp:0", "tls:0:site/below"]},
            "listen 'tls:0:site/below': 'site/below/*.pem'",
            "site/below/*.pem",
        ),
    ],
)
def test_a_log_or_a_key_in_the_folder_is_withheld(site, words, message, path):
    assert files_to_withhold([server_config({"path": "site", **words})]) == {
        str(site / path): f"{message}: clients get 404 for it, though it is in the folder"
        f" {str(site / 'site')!r}, which is served"
    }


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
def test_what_is_not_served_is_not_withheld(words):
    assert files_to_withhold([server_config({"path": "site", **words})]) == {}


@pytest.mark.parametrize(
    "handler",
    [
        functools.partial(Dotfiles, directory="site"),
        functools.partial(FileRequestHandler, directory="site", dotfiles=True),
    ],
)
def test_handlers_that_serve_all_names_have_all_withheld(site, handler):
    config = server_config({"handler": handler, "access-log": "site/.log"})
    assert list(files_to_withhold([config])) == [str(site / "site" / ".log")]


def test_a_file_is_refused_where_the_handler_would_serve_it(site):
    config = server_config(
        {
            "handler": functools.partial(SimpleHTTPRequestHandler, directory="site"),
            "access-log": "site/.log",
        }
    )
    with pytest.raises(ConfigurationError) as caught:
        files_to_withhold([config])
    assert str(caught.value) == (
        "access-log 'site/.log': it would be served, as it is in the folder"
        f" {str(site / 'site')!r}; put it elsewhere"
    )


def test_one_server_does_not_serve_what_is_anothers(site):
    file = site / "c.toml"
    file.write_text("[[server]]\npath = 'site'\n[[server]]\npath = 'keys'\nstats-log = 'site/x'\n")
    (line,) = files_to_withhold(read_toml(str(file))).values()
    assert line.startswith(f"{file}:5:13: stats-log 'site/x': clients get 404")


@pytest.mark.usefixtures("site")
def test_a_pid_file_is_named():
    own = OwnFile("pidfile 'site/x.pid'", "site/x.pid")
    (line,) = files_to_withhold([server_config({"path": "site"})], [own]).values()
    assert line.startswith("pidfile 'site/x.pid': clients get 404")


def test_what_is_withheld_has_no_name(site):
    folder = site / "site"
    for name in ("twistd.log", "twistd.log.1", "twistd.log.2", "other.log"):
        (folder / name).write_text("text")
    os.link(folder / "twistd.log", folder / "another")
    withheld = [str(folder / "twistd.pid"), str(folder / "twistd.log")]
    assert {each.name for each in entries(str(folder), [], False, withheld)} == {
        "below", "logs", "other.log",
    }  # fmt: skip
    assert identity(os.stat(folder / "another")) in identities(withheld)
    assert identity(os.stat(folder / "other.log")) not in identities(withheld)


def test_a_key_that_comes_into_a_folder_of_certificates_later_is_withheld(site):
    withheld = [*files_to_withhold([server_config({"path": "site", "listen": "tls:0:site/below"})])]
    (site / "site" / "below" / "later.pem").write_bytes(certificate_pem())
    (site / "site" / "below" / "page").touch()
    assert {each.name for each in entries(str(site / "site"), ["below"], False, withheld)} == {
        "page"
    }


@pytest.mark.usefixtures("site")
def test_handlers_that_follow_links_out_of_the_folder_serve_what_these_lead_to():
    words = {"access-log": "site/out/log"}
    assert files_to_withhold([server_config({"path": "site", **words})]) == {}
    handler = functools.partial(SimpleHTTPRequestHandler, directory="site")
    with pytest.raises(ConfigurationError, match="access-log 'site/out/log': it would be served"):
        files_to_withhold([server_config({"handler": handler, **words})])


def test_a_folder_that_cannot_be_read_is_refused(site, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(ConfigurationError, match=r"^path '.*/site': Permission denied; "):
        server_config({"path": "site"})
