"""
The drop-in C{http.server} by itself: its command line up to where it would serve.

What its servers serve is in C{tests.integration} and C{tests.programs}; that the names are those of
the standard library's module, in L{tests.dropin.test_replacement_names}.
"""

import io
import socket
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from sockserve.http import server
from tests.integration.servers import certificate_file

pytestmark = pytest.mark.usefixtures("no_leaks")


# Folders


class Request(server.SimpleHTTPRequestHandler):
    """
    A request for a path in a folder, with nobody to answer.

    @ivar code: the status that was sent.
    """

    protocol_version = "HTTP/1.1"
    code: int

    def __init__(self, folder: Path, path: str) -> None:
        self.directory = str(folder)
        self.path = path
        self.headers = Message()
        self.wfile = io.BytesIO()
        self.fields: dict[str, str] = {}

    def send_response(self, code: int, message: str | None = None) -> None:
        self.code = code

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self.code = code

    def send_header(self, keyword: str, value: str) -> None:
        self.fields[keyword] = value

    def end_headers(self) -> None:
        """It is not sent."""

    def get(self) -> tuple[int, bytes]:
        file = self.send_head()
        if file is None:
            return self.code, b""
        with file:
            return self.code, file.read()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "page").write_text("page")
    (tmp_path / "sub").mkdir()
    return tmp_path


@pytest.mark.parametrize("query", ["", "?a=b/"])
@pytest.mark.parametrize(
    ("pages", "sent"),
    [
        ((), b'href="page"'),
        (("index.htm",), b"index.htm"),
        (("index.htm", "index.html"), b"index.html"),
    ],
)
def test_a_folder_is_its_first_index_page_or_its_listing(
    folder: Path, pages: tuple[str, ...], sent: bytes, query: str
) -> None:
    for page in pages:
        (folder / page).write_text(page)
    request = Request(folder, f"/{query}")
    code, body = request.get()
    assert code == 200
    assert sent in body
    assert request.path == f"/{query}", "which is what is logged"


def test_an_index_page_that_is_a_folder_is_none(folder: Path) -> None:
    (folder / "index.html").mkdir()
    (folder / "index.htm").write_text("file")
    assert Request(folder, "/").get() == (200, b"file")


def test_a_folder_without_its_slash_is_moved_and_other_paths_are_as_ever(folder: Path) -> None:
    request = Request(folder, "/sub")
    assert request.get() == (301, b"")
    assert request.fields["Location"] == "/sub/"
    assert Request(folder, "/page").get() == (200, b"page")
    assert Request(folder, "/nowhere").get() == (404, b"")


# The command line


class Asked:
    """
    A run of the command line that ends where it would serve.

    @ivar words: what it would serve with.
    """

    words: dict[str, Any]

    def __init__(self, *arguments: str) -> None:
        server._main(list(arguments), self._serve)

    def _serve(self, **words: Any) -> None:
        self.words = words


def test_nothing_said_is_what_the_standard_librarys_does() -> None:
    words = Asked().words
    assert words.pop("HandlerClass") is server.SimpleHTTPRequestHandler
    assert issubclass(words.pop("ServerClass"), server.ThreadingHTTPServer)
    assert words == {
        "port": 8000,
        "bind": None,
        "protocol": "HTTP/1.0",
        "tls_cert": None,
        "tls_key": None,
        "tls_password": None,
    }


def test_cgi_is_refused_as_by_python_3_15(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Asked("--cgi")
    assert "--cgi" in capsys.readouterr().err


def test_what_is_said_is_what_serves(tmp_path: Path) -> None:
    pem, password = certificate_file(tmp_path), tmp_path / "password"
    password.write_text("secret\n")
    words = Asked(
        *("-b", "127.0.0.1", "-p", "HTTP/1.1", "9000"),
        *("--tls-cert", str(pem), "--tls-password-file", str(password)),
    ).words
    assert words.pop("HandlerClass") is server.SimpleHTTPRequestHandler
    assert issubclass(words.pop("ServerClass"), server.ThreadingHTTPSServer)
    assert words == {
        "port": 9000,
        "bind": "127.0.0.1",
        "protocol": "HTTP/1.1",
        "tls_cert": str(pem),
        "tls_key": None,
        "tls_password": "secret",  # without the end of its line
    }


def test_its_server_serves_the_folder(folder: Path) -> None:
    asked = Asked("-b", "127.0.0.1", "-d", str(folder))
    with asked.words["ServerClass"](("127.0.0.1", 0), Request) as made:
        assert made.RequestHandlerClass.func is Request
        assert made.RequestHandlerClass.keywords == {
            "directory": str(folder),
            "extra_response_headers": [],
        }


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        asked = Asked("-b", "127.0.0.1", str(port))
        with pytest.raises(SystemExit) as end:
            asked.words["ServerClass"](("127.0.0.1", port), Request)
    assert end.value.code == 1
    assert capsys.readouterr().err == (
        f"python -m sockserve.http.server: 127.0.0.1 port {port}: Address already in use\n"
    )


# Serving


class Loop:
    """
    A server that is interrupted at once.

    @ivar made: what it was made with.
    @ivar closed: whether it was.
    """

    made: tuple[Any, Any, dict[str, Any]]
    address_family = socket.AF_INET
    closed = False
    host: str

    def __init__(self, address: Any, handler: Any, **words: Any) -> None:
        type(self).made = address, handler, words
        self.socket = self

    def getsockname(self) -> Any:
        return self.host, 8000

    def __enter__(self) -> "Loop":
        return self

    def __exit__(self, *error: object) -> None:
        type(self).closed = True

    def serve_forever(self) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("tls", "host", "said"),
    [
        (False, "127.0.0.1", "Serving HTTP on 127.0.0.1 port 8000 (http://127.0.0.1:8000/) ..."),
        (False, "::", "Serving HTTP on :: port 8000 (http://[::]:8000/) ..."),
        (True, "127.0.0.1", "Serving HTTPS on 127.0.0.1 port 8000 (https://127.0.0.1:8000/) ..."),
    ],
)
def test_it_says_where_it_serves_until_it_is_interrupted(
    tls: bool, host: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cls = type("Server", (Loop,), {"host": host})
    handler = type("Handler", (), {})
    words: dict[str, Any] = {"tls_cert": "cert", "tls_password": "secret"} if tls else {}
    with pytest.raises(SystemExit) as end:
        server.test(handler, cls, "HTTP/1.1", 8000, "127.0.0.1", **words)
    assert end.value.code == 0
    assert capsys.readouterr().out == f"{said}\n\nKeyboard interrupt received, exiting.\n"
    assert cls.closed  # type: ignore[attr-defined]
    assert handler.protocol_version == "HTTP/1.1"  # type: ignore[attr-defined]
    given = {"certfile": "cert", "keyfile": None, "password": "secret"} if tls else {}
    assert cls.made == (("127.0.0.1", 8000), handler, given)  # type: ignore[attr-defined]


def test_the_family_is_that_of_the_address(capsys: pytest.CaptureFixture[str]) -> None:
    cls = type("Server", (Loop,), {"host": "::1"})
    with pytest.raises(SystemExit):
        server.test(type("Handler", (), {}), cls, bind="::1")
    assert cls.address_family == socket.AF_INET6  # type: ignore[attr-defined]
    assert cls.made[0][:2] == ("::1", 8000)  # type: ignore[attr-defined]
