"""The drop-in modules have what the standard library's have: names, signatures, defaults."""

import http.server
import inspect
import io
import socketserver

import pytest

import sockserve.http.server
import sockserve.socketserver
from tests.integration.servers import certificate_file

MODULES = [(socketserver, sockserve.socketserver), (http.server, sockserve.http.server)]
#: Of theirs, by the name of the module a class is from.
OURS = {theirs.__name__: ours for theirs, ours in MODULES}

OURS_TO_THEIRS = {ours.__name__: theirs for theirs, ours in MODULES}

PUBLIC = [
    (theirs, ours, name)
    for theirs, ours in MODULES
    for name in dir(theirs)
    if not name.startswith("_") and not inspect.ismodule(getattr(theirs, name))
]
#: Without what the standard library's modules have taken in from elsewhere.
CLASSES = [
    (theirs, ours, name)
    for theirs, ours, name in PUBLIC
    if inspect.isclass(getattr(theirs, name)) and getattr(theirs, name).__module__ in OURS
]

each_name = pytest.mark.parametrize(
    ("theirs", "ours", "name"), PUBLIC, ids=[f"{each[0].__name__}.{each[2]}" for each in PUBLIC]
)
each_class = pytest.mark.parametrize(
    ("theirs", "ours", "name"), CLASSES, ids=[f"{each[0].__name__}.{each[2]}" for each in CLASSES]
)


def own(module, name):
    """
    What one of our modules has by itself.  Asked for a name it lacks, it gives the standard
    library's, of which everything below would be true.
    """
    assert name in vars(module), f"{module.__name__} has no {name} of its own"
    return vars(module)[name]


def is_replaced(model):
    """Whether a class of the standard library's has to be another one here."""
    return issubclass(model, socketserver.BaseServer) or model.__name__.endswith("MixIn")


def arguments(function):
    """Names, kinds and defaults."""
    return [
        (each.name, each.kind, each.default)
        for each in inspect.signature(function).parameters.values()
    ]


#: What Python 3.15 has added to C{SimpleHTTPRequestHandler}'s.
EXTRA = ("extra_response_headers", inspect.Parameter.KEYWORD_ONLY, None)


@each_name
def test_every_name_is_there(theirs, ours, name):
    assert hasattr(ours, name)


@pytest.mark.parametrize(("theirs", "ours"), MODULES, ids=["socketserver", "http.server"])
def test_what_an_import_of_all_gives(theirs, ours):
    assert set(theirs.__all__) <= set(ours.__all__) <= set(vars(ours))


@each_class
def test_classes_are_subclasses(theirs, ours, name):
    mine, model = own(ours, name), getattr(theirs, name)
    assert issubclass(mine, model)
    assert mine is not model or not is_replaced(model)


@each_class
def test_bases_are_replaced_as_well(theirs, ours, name):
    mine, model = own(ours, name), getattr(theirs, name)
    replaced = [base for base in model.__mro__ if is_replaced(base)]
    assert {own(OURS[base.__module__], base.__name__) for base in replaced} <= set(mine.__mro__)


@each_class
def test_methods_are_looked_up_in_the_same_order(theirs, ours, name):
    model = getattr(theirs, name).__mro__
    mine = own(ours, name).__mro__
    assert [each for each in mine if not each.__module__.startswith("sockserve")] == list(model)


@each_class
def test_their_methods_take_the_same(theirs, ours, name):
    mine, model = own(ours, name), getattr(theirs, name)
    for method, function in inspect.getmembers(model, inspect.isfunction):
        takes, model_takes = arguments(getattr(mine, method)), arguments(function)
        if (name, method) == ("SimpleHTTPRequestHandler", "__init__"):  # one more since 3.15
            takes.remove(EXTRA)
            model_takes = [each for each in model_takes if each != EXTRA]
        assert takes == model_takes, method


@each_name
def test_their_functions_take_the_same(theirs, ours, name):
    model = getattr(theirs, name)
    if inspect.isfunction(model) and (ours, name) != (sockserve.http.server, "test"):
        assert arguments(getattr(ours, name)) == arguments(model)


@each_class
def test_their_class_variables_have_the_same_defaults(theirs, ours, name):
    mine, model = own(ours, name), getattr(theirs, name)
    for variable, value in inspect.getmembers(model, lambda each: not callable(each)):
        if not variable.startswith("_"):
            assert getattr(mine, variable) == value, variable


#: The class variables that a program may set, beyond the standard library's.
SETTINGS = {
    *("deadlines", "max_threads", "parks_connections", "max_datagrams", "max_body_bytes"),
    *("max_request_line_bytes", "max_header_bytes", "max_header_fields", "max_spool_bytes"),
}


@pytest.mark.parametrize("name", [*sockserve.socketserver.__all__, "HTTPServer"])
def test_a_programs_own_attributes_are_not_taken_for_anything_else(name):
    """What servers have besides is a setting, or has the name of its class in its own."""
    module = sockserve.http.server if name == "HTTPServer" else sockserve.socketserver
    for cls in own(module, name).__mro__:
        theirs = dir(getattr(OURS_TO_THEIRS.get(cls.__module__), cls.__name__, object))
        added = {each for each in vars(cls) if each not in theirs and not each.endswith("__")}
        if cls.__module__.startswith("sockserve."):
            hidden = {each for each in added if each.startswith(f"_{cls.__name__}__")}
            assert added - hidden <= SETTINGS


def test_a_variable_of_a_base_is_not_that_of_a_class_with_its_own(monkeypatch):
    """C{TCPServer.allow_reuse_address = True}, as many programs have it, is not for UDP."""
    for variable, value in (("allow_reuse_address", True), ("address_family", 10)):
        for module, names in (
            (socketserver, ("TCPServer", "UDPServer", "UnixStreamServer", "ThreadingUDPServer")),
            (http.server, ("HTTPServer", "ThreadingHTTPServer")),
        ):
            ours = OURS[module.__name__]
            with monkeypatch.context() as patch:
                patch.setattr(socketserver.TCPServer, variable, value)
                expected = [getattr(getattr(module, name), variable) for name in names]
            with monkeypatch.context() as patch:
                patch.setattr(sockserve.socketserver.TCPServer, variable, value)
                assert [getattr(own(ours, name), variable) for name in names] == expected


# Names that are in nobody's __all__, but in programs


@pytest.mark.parametrize(("theirs", "ours"), MODULES, ids=["socketserver", "http.server"])
def test_names_that_are_not_public_are_there(theirs, ours):
    names = [name for name in vars(theirs) if not name.startswith("__") or name == "__version__"]
    assert [name for name in names if not hasattr(ours, name)] == []


@pytest.mark.parametrize("name", ["DEFAULT_ERROR_MESSAGE", "DEFAULT_ERROR_CONTENT_TYPE"])
def test_what_an_error_page_is_made_of(name):
    assert getattr(sockserve.http.server, name) == getattr(http.server, name)


@pytest.mark.parametrize("name", ["_SocketWriter", "_Threads", "_NoThreads", "_ServerSelector"])
def test_internals_of_socketserver(name):
    assert getattr(sockserve.socketserver, name) is getattr(socketserver, name)


@pytest.mark.parametrize("module", ["sockserve.socketserver", "sockserve.http.server"])
def test_a_name_that_neither_has(module):
    with pytest.raises(ImportError, match=f"cannot import name 'Nonsense' from '{module}'"):
        exec(f"from {module} import Nonsense")
    with pytest.raises(AttributeError, match=f"^module '{module}' has no attribute 'Nonsense'$"):
        exec(f"import {module}; {module}.Nonsense")


# What is as of CPython 3.14, or 3.15, on every Python


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            sockserve.socketserver,
            """
            BaseRequestHandler BaseServer DatagramRequestHandler ForkingMixIn ForkingTCPServer
            ForkingUDPServer ForkingUnixDatagramServer ForkingUnixStreamServer
            StreamRequestHandler TCPServer ThreadingMixIn ThreadingTCPServer
            ThreadingUDPServer ThreadingUnixDatagramServer ThreadingUnixStreamServer UDPServer
            UnixDatagramServer UnixStreamServer
            """,
        ),
        (
            sockserve.http.server,
            """
            BaseHTTPRequestHandler HTTPSServer HTTPServer SimpleHTTPRequestHandler
            ThreadingHTTPSServer ThreadingHTTPServer
            """,
        ),
    ],
)
def test_names(module, names):
    gone_with_3_15 = {"CGIHTTPRequestHandler"}
    assert set(module.__all__) - gone_with_3_15 == set(names.split())
    for name in module.__all__:
        assert own(module, name).__name__ == name


@pytest.mark.parametrize(
    ("server", "values"),
    [
        ("TCPServer", {"request_queue_size": 5, "allow_reuse_address": False}),
        ("TCPServer", {"allow_reuse_port": False, "timeout": None}),
        ("UDPServer", {"allow_reuse_port": False, "max_packet_size": 8192}),
        ("ThreadingTCPServer", {"daemon_threads": False, "block_on_close": True}),
        ("ForkingTCPServer", {"timeout": 300, "max_children": 40, "block_on_close": True}),
        ("ForkingUnixStreamServer", {"timeout": 300, "max_children": 40}),
        ("ForkingUnixDatagramServer", {"timeout": 300, "max_packet_size": 8192}),
    ],
)
def test_defaults(server, values):
    cls = own(sockserve.socketserver, server)
    assert {name: getattr(cls, name) for name in values} == values


def test_https_servers_take_what_python_3_14s_do():
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    keyword, empty = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    for cls in (sockserve.http.server.HTTPSServer, sockserve.http.server.ThreadingHTTPSServer):
        assert arguments(cls) == [
            ("server_address", positional, empty),
            ("RequestHandlerClass", positional, empty),
            ("bind_and_activate", positional, True),
            ("certfile", keyword, empty),
            ("keyfile", keyword, None),
            ("password", keyword, None),
            ("alpn_protocols", keyword, None),
        ]
    assert sockserve.http.server.ThreadingHTTPSServer.daemon_threads is True


def test_https_servers_listen_with_the_context_they_make(tmp_path):
    made = []

    class Server(sockserve.http.server.HTTPSServer):
        def _create_context(self):
            made.append(super()._create_context())
            return made[0]

    handler = sockserve.http.server.BaseHTTPRequestHandler
    pem = certificate_file(tmp_path)
    with Server(("127.0.0.1", 0), handler, certfile=pem) as server:
        assert server.socket.context is made[0]
        assert (server.keyfile, server.password) == (None, None)
        assert server.alpn_protocols == ["http/1.1"]


def test_the_function_that_serves_takes_what_python_3_14s_does():
    function = own(sockserve.http.server, "test")
    assert {name: default for name, _, default in arguments(function)} == {
        "HandlerClass": sockserve.http.server.BaseHTTPRequestHandler,
        "ServerClass": sockserve.http.server.ThreadingHTTPServer,
        "protocol": "HTTP/1.0",
        "port": 8000,
        "bind": None,
        "tls_cert": None,
        "tls_key": None,
        "tls_password": None,
    }
    of_this_python = [name for name, *_ in arguments(http.server.test)]
    assert list(inspect.signature(function).parameters)[: len(of_this_python)] == of_this_python


def test_ready_made_servers_mix_in_the_standard_librarys_classes():
    for name in sockserve.socketserver.__all__:
        cls = own(sockserve.socketserver, name)
        for kind in ("Threading", "Forking"):
            if name.startswith(kind):
                assert issubclass(cls, getattr(socketserver, f"{kind}MixIn"))


def test_index_pages_of_python_3_12(tmp_path):
    handler = sockserve.http.server.SimpleHTTPRequestHandler
    assert tuple(handler.index_pages) == ("index.html", "index.htm")
    (tmp_path / "start.html").write_text("start")
    (tmp_path / "index.html").write_text("index")

    class Handler(sockserve.http.server.SimpleHTTPRequestHandler):
        index_pages = ("start.html",)
        sent = b""

        def __init__(self):
            self.directory = str(tmp_path)
            self.path = "/?a=b"

        def send_response(self, code, message=None):
            self.code = code

        def send_header(self, keyword, value):
            """Nothing depends on it."""

        def end_headers(self):
            """Nothing depends on it."""

        @property
        def headers(self):
            return {}

    handler = Handler()
    with handler.send_head() as file:
        assert file.read() == b"start"
    assert (handler.code, handler.path) == (200, "/?a=b")


def sent(cls, path, folder, **words):
    """What a handler of C{cls} sends for a path, as lines."""

    class Handler(cls):
        def setup(self):
            self.path, self.headers, self.command = path, {}, "GET"
            self.request_version, self.requestline = "HTTP/1.1", ""
            self.wfile = io.BytesIO()

        def handle(self):
            file = self.send_head()
            if file is not None:
                file.close()

        def finish(self):
            self.server.append(self.wfile.getvalue().decode())

        def log_message(self, *arguments):
            """Nobody reads it."""

    said = []
    Handler("request", ("client", 1), said, directory=folder, **words)
    return said[0].splitlines()


EXTRA_FIELDS = [("X-One", "1"), ("X-One", "2"), ("Content-Type", "text/x")]


def test_extra_response_headers_of_python_3_15(tmp_path):
    """After the handler's own, which they do not replace; with status 200 only."""
    (tmp_path / "file.txt").write_text("text")
    (tmp_path / "folder").mkdir()
    base = sockserve.http.server.SimpleHTTPRequestHandler
    for path in ("/file.txt", "/", "/folder/"):
        plain = sent(base, path, tmp_path)
        extra = sent(base, path, tmp_path, extra_response_headers=EXTRA_FIELDS)
        at = plain.index("")
        assert extra[at : at + 4] == ["X-One: 1", "X-One: 2", "Content-Type: text/x", ""]
        assert plain[0] == extra[0] == "HTTP/1.0 200 OK"
    for path in ("/none", "/folder"):
        extra = sent(base, path, tmp_path, extra_response_headers=EXTRA_FIELDS)
        assert not any(line.startswith("X-One") for line in extra)


def test_extra_response_headers_and_overrides(tmp_path):
    """They come with what an override adds, but not with a list of the program's own making."""

    class Handler(sockserve.http.server.SimpleHTTPRequestHandler):
        def end_headers(self):
            self.send_header("X-Last", "3")
            super().end_headers()

    class Lists(sockserve.http.server.SimpleHTTPRequestHandler):
        def list_directory(self, path):
            self.send_response(200)
            self.end_headers()

    (tmp_path / "file").write_text("text")
    lines = sent(Handler, "/file", tmp_path, extra_response_headers=EXTRA_FIELDS[:1])
    assert {"X-One: 1", "X-Last: 3"} < set(lines)
    assert "X-One: 1" not in sent(Lists, "/", tmp_path, extra_response_headers=EXTRA_FIELDS)


def test_default_content_type_of_python_3_15():
    class Handler(sockserve.http.server.SimpleHTTPRequestHandler):
        default_content_type = "text/x"
        extensions_map = {".own": "text/own"}

    def guess(cls, name):
        return cls.guess_type(cls.__new__(cls), name)

    base = sockserve.http.server.SimpleHTTPRequestHandler
    assert base.default_content_type == "application/octet-stream"
    names = ["a", "a.none", "a.txt", "a.bin", "a.own", "a.OWN", "folder.txt/a"]
    assert [guess(Handler, name) for name in names] == [
        *("text/x", "text/x", "text/plain", "application/octet-stream"),
        *("text/own", "text/own", "text/x"),
    ]
    names += ["a.tar.gz", "a.gz", "a.Z", "a.xz", ".txt", "a.TXT"]
    theirs = http.server.SimpleHTTPRequestHandler
    assert [guess(base, name) for name in names] == [guess(theirs, name) for name in names]
