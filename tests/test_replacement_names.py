"""The drop-in modules have what the standard library's have: names, signatures, defaults."""

import http.server
import inspect
import socketserver

import pytest

import sockserve.http.server
import sockserve.socketserver

MODULES = [(socketserver, sockserve.socketserver), (http.server, sockserve.http.server)]

PUBLIC = [
    (theirs, ours, name)
    for theirs, ours in MODULES
    for name in dir(theirs)
    if not name.startswith("_") and not inspect.ismodule(getattr(theirs, name))
]
CLASSES = [each for each in PUBLIC if inspect.isclass(getattr(each[0], each[2]))]
#: Taken in by the standard library's modules, and no part of them.
TAKEN_IN = {"BufferedIOBase", "HTTPStatus", "time"}

#: What ours do in place of theirs, under the same signature.
each_name = pytest.mark.parametrize(
    ("theirs", "ours", "name"), PUBLIC, ids=[f"{each[0].__name__}.{each[2]}" for each in PUBLIC]
)
each_class = pytest.mark.parametrize(
    ("theirs", "ours", "name"), CLASSES, ids=[f"{each[0].__name__}.{each[2]}" for each in CLASSES]
)


@each_name
def test_every_name_is_there(theirs, ours, name):
    if name not in TAKEN_IN:
        assert hasattr(ours, name)


@pytest.mark.parametrize(("theirs", "ours"), MODULES, ids=["socketserver", "http.server"])
def test_what_an_import_of_all_gives(theirs, ours):
    assert set(theirs.__all__) <= set(ours.__all__)


@each_class
def test_classes_are_subclasses(theirs, ours, name):
    if name not in TAKEN_IN:
        assert issubclass(getattr(ours, name), getattr(theirs, name))


@each_class
def test_their_methods_take_the_same(theirs, ours, name):
    if name in TAKEN_IN:
        return
    mine, model = getattr(ours, name), getattr(theirs, name)
    for method, function in inspect.getmembers(model, inspect.isfunction):
        wanted = inspect.signature(function).parameters
        given = inspect.signature(getattr(mine, method)).parameters
        assert list(given) == list(wanted), method
        assert [each.default for each in given.values()] == [
            each.default for each in wanted.values()
        ], method


@each_class
def test_their_class_variables_have_the_same_defaults(theirs, ours, name):
    if name in TAKEN_IN:
        return
    mine, model = getattr(ours, name), getattr(theirs, name)
    for variable, value in inspect.getmembers(model, lambda each: not callable(each)):
        if not variable.startswith("_"):
            assert getattr(mine, variable) == value, variable


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (sockserve.socketserver, "ForkingUnixStreamServer"),  # Python 3.12
        (sockserve.socketserver, "ForkingUnixDatagramServer"),  # Python 3.12
        (sockserve.http.server, "HTTPSServer"),  # Python 3.14
        (sockserve.http.server, "ThreadingHTTPSServer"),  # Python 3.14
    ],
)
def test_names_of_later_pythons_are_there_on_every_one(module, name):
    assert name in module.__all__
    assert hasattr(module, name)


def test_https_servers_take_what_python_3_14s_do():
    given = inspect.signature(sockserve.http.server.HTTPSServer).parameters
    assert list(given) == [
        "server_address",
        "RequestHandlerClass",
        "bind_and_activate",
        "certfile",
        "keyfile",
        "password",
        "alpn_protocols",
    ]
    assert given["certfile"].kind is inspect.Parameter.KEYWORD_ONLY


def test_ready_made_servers_mix_in_the_standard_librarys_classes():
    for name in sockserve.socketserver.__all__:
        cls = getattr(sockserve.socketserver, name)
        for kind in ("Threading", "Forking"):
            if name.startswith(kind):
                assert issubclass(cls, getattr(socketserver, f"{kind}MixIn"))


def test_index_pages_of_python_3_12(tmp_path):
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
