"""Which of a server's methods are the program's own, and where its requests are taken over."""

import functools
import socketserver

import pytest

import sockserve.socketserver
from sockserve.dropin.overriding import (
    StandardMethods,
    accepts_takeover,
    is_overridden,
    take_over,
)

NAMES = ("get_request", "finish_request", "shutdown_request", "close_request")
MODULES = pytest.mark.parametrize("module", [socketserver, sockserve.socketserver])


def make(cls):
    """A server of the class that has opened nothing."""
    return cls.__new__(cls)


@MODULES
@pytest.mark.parametrize("kind", ["TCPServer", "ThreadingUDPServer", "UnixStreamServer"])
def test_nothing_is_overridden_in_a_class_of_the_module(module, kind):
    server = make(getattr(module, kind))
    standard = StandardMethods(server)
    for name in NAMES:
        assert not is_overridden(server, name)
        assert getattr(standard, name) == getattr(server, name)
    assert standard.process_request_thread == getattr(server, "process_request_thread", None)


@MODULES
@pytest.mark.parametrize("name", [*NAMES, "process_request_thread"])
def test_what_a_program_sets_on_a_server_or_its_class_is_seen_at_once(module, name):
    class Server(module.ThreadingTCPServer):
        """The program's."""

    server = make(Server)
    standard = StandardMethods(server)
    usual = getattr(standard, name)
    assert getattr(server, name) == usual

    setattr(server, name, lambda *arguments: None)
    assert is_overridden(server, name)
    assert usual != getattr(server, name)
    delattr(server, name)
    assert usual == getattr(server, name)

    setattr(Server, name, lambda self, *arguments: None)
    assert is_overridden(server, name)
    assert usual != getattr(server, name)
    delattr(Server, name)
    assert usual == getattr(server, name)


@MODULES
def test_an_override_that_is_there_from_the_start_may_go(module):
    class Server(module.ThreadingTCPServer):
        def finish_request(self, request, client_address):
            """The program's."""

    server = make(Server)
    standard = StandardMethods(server)
    assert standard.finish_request != server.finish_request
    del Server.finish_request
    assert standard.finish_request == server.finish_request


def test_a_wrapper_is_an_override_whatever_its_name_says():
    class Server(socketserver.TCPServer):
        @functools.wraps(socketserver.TCPServer.finish_request)
        def finish_request(self, request, client_address):
            """The program's."""

    assert Server.finish_request.__module__ == "socketserver"
    assert is_overridden(make(Server), "finish_request")
    assert is_overridden(Server, "finish_request")


def test_what_a_server_does_not_have_is_not_overridden():
    server = make(socketserver.TCPServer)
    assert not is_overridden(server, "process_request_thread")
    assert StandardMethods(server).process_request_thread is None


def test_requests_are_taken_over_on_the_server_itself():
    server, taken = make(socketserver.ThreadingTCPServer), []
    assert accepts_takeover(server)
    take_over(server, lambda *request: taken.append(request))
    server.process_request("request", "address")
    assert taken == [("request", "address")]
    assert type(server) is socketserver.ThreadingTCPServer


def test_requests_are_taken_over_below_a_process_request_that_calls_super():
    class Server(socketserver.ThreadingTCPServer):
        """The program's."""

        def process_request(self, request, client_address):
            seen.append(request)
            super().process_request(request + "!", client_address)

    seen, taken = [], []
    server = make(Server)
    assert accepts_takeover(server)
    take_over(server, lambda *request: taken.append(request))
    server.process_request("request", "address")
    assert seen == ["request"]
    assert taken == [("request!", "address")]
    assert isinstance(server, Server)
    assert (type(server).__name__, type(server).__doc__) == ("Server", "The program's.")


def _does_not_call(self, request, client_address):
    """Serves by itself."""


def _is_its_own_kind(self, request, client_address):
    super(type(self), self).process_request(request, client_address)


@pytest.mark.parametrize("method", [_does_not_call, _is_its_own_kind, print])
def test_requests_of_a_process_request_that_cannot_be_followed_are_left(method):
    cls = type("Server", (socketserver.ThreadingTCPServer,), {"process_request": method})
    assert not accepts_takeover(make(cls))


def test_requests_of_a_server_that_forks_are_left():
    assert not accepts_takeover(make(socketserver.ForkingTCPServer))


def test_requests_are_left_where_another_class_would_be_noticed():
    class Base(socketserver.ThreadingTCPServer):
        def __init_subclass__(cls):
            """Hears of one."""

        def process_request(self, request, client_address):
            super().process_request(request, client_address)

    assert not accepts_takeover(make(Base))
    server = make(socketserver.ThreadingTCPServer)
    server.process_request = functools.partial(server.process_request)
    assert not accepts_takeover(server)
