"""What counts more for a command of Django's: its line, class, environment or settings."""

from collections.abc import Mapping

import pytest

from sockserve import ConfigurationError
from sockserve.django.options import make_options
from sockserve.run.server_config import ServerConfig

HANDLER = "socketserver:StreamRequestHandler"


def made(
    given: Mapping[str, object], of_class: Mapping[str, object], settings: object
) -> ServerConfig:
    (server,) = make_options(given, of_class, settings).servers
    assert isinstance(server, ServerConfig)
    return server


def test_the_line_counts_most_then_the_class_the_environment_and_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOCKSERVE_LISTEN", "tcp:3 tcp:33")
    monkeypatch.setenv("SOCKSERVE_THREADS", "3")
    monkeypatch.setenv("SOCKSERVE_MAX_CONNECTIONS", "3")
    settings = {"threads": 4, "max_connections": 4, "max-connections-per-peer": 4}
    server = made({"threads": "1"}, {"listen": "tcp:2", "handler": HANDLER}, settings)
    assert (server.threads, server.listen) == (1, ("tcp:2",))
    assert (server.max_connections, server.max_connections_per_peer) == (3, 4)
    assert made({}, {"handler": HANDLER}, settings).listen == ("tcp:3", "tcp:33")


def test_what_says_the_same_in_another_way_gives_place() -> None:
    settings = {"listen": "tcp:1", "path": ".", "threads": 4}
    server = made({"handler": HANDLER, "port": "0"}, {}, settings)
    assert (server.listen, server.threads) == (("tcp:0:interface=127.0.0.1",), 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "SOCKSERVE_THREADS: 0 is less than 1"),
        ({"threads": "-1"}, "threads: -1 is less than 1"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, given: Mapping[str, object], message: str
) -> None:
    monkeypatch.setenv("SOCKSERVE_THREADS", "0")
    with pytest.raises(ConfigurationError) as caught:
        make_options(given, {"handler": HANDLER}, {"threads": 5})
    assert str(caught.value) == message


def test_a_mistake_in_the_settings_says_so() -> None:
    with pytest.raises(ConfigurationError, match=r"^settings\.SOCKSERVE: threads: 0 is less"):
        make_options({}, {"handler": HANDLER}, {"threads": 0})
