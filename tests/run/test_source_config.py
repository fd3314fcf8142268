"""Sources in options and configurations: what is understood, and each mistake's line."""

import http.server
import socketserver
from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock

from sockserve import (
    BaseRequestHandler,
    ConfigurationError,
    DatagramRequestHandler,
    Deadlines,
    StreamRequestHandler,
)
from sockserve.http import GatewayRequestHandler, HTTPRequestHandler
from sockserve.run.asked import servers_asked_for
from sockserve.run.config_file import read_toml
from sockserve.run.source_config import SourceConfig, source_config
from sockserve.sql import SQLRequestHandler
from sockserve.sunrpc import RPCRequestHandler

HANDLER = f"handler = '{__name__}:Handler'"
URL = "sqlite:///jobs.db?table=jobs"


class Handler(BaseRequestHandler):
    def handle(self):
        pass


class Coroutine(BaseRequestHandler):
    async def handle(self):
        pass


def test_a_file_has_servers_and_sources(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        f"""
        [[source]]
        url = "{URL}"
        {HANDLER}
        threads = 4
        max-rows = 9
        timeout = {{ handle = 60 }}

        [[server]]
        listen = "tcp:7000"
        {HANDLER}
        """
    )
    server, source = read_toml(str(path))
    assert server.handler is Handler
    assert source == SourceConfig(
        sources=(URL,),
        handler=Handler,
        threads=4,
        limits={"max_rows": 9},
        deadlines=Deadlines(handle=60.0),
    )
    (service,) = source.build(MemoryReactorClock())
    assert service.server.max_rows == 9
    assert service.server.concurrency.limit == 4


def test_the_summary_says_what_would_run() -> None:
    config = source_config({"source": URL, "handler": f"{__name__}:Coroutine", "max-rows": "7"})
    assert config.summary() == [
        f"source {URL}: Coroutine on the reactor",
        "deadlines handle=none lifetime=none drain=10",
        "limits max_rows=7",
    ]


@pytest.mark.parametrize(
    ("table", "place", "words"),
    [
        (f"url = 'mysql://x'\n{HANDLER}", "2:7", "url: 'mysql://x' is not sqlite:///PATH"),
        (f"{HANDLER}\nurl = 'sqlite:///x?tabel=y'", "3:7", "url: .*'tabel' is not one of"),
        (HANDLER, "1:1", "url: name the table"),
        (f"url = '{URL}'", "1:1", "handler: name the class"),
        (
            f"url = '{URL}'\n{HANDLER}\nlisten = 'tcp:1'",
            "4:10",
            "listen: does not go with a source",
        ),
        (f"url = '{URL}'\n{HANDLER}\nmax-row = 1", "4:1", "unknown word 'max-row'.*max-rows"),
        (f"url = '{URL}'\n{HANDLER}\nmax-rows = 0", "4:12", "max-rows: 0 is not a number of rows"),
        (
            f"url = '{URL}'\n{HANDLER}\ntimeout = 'idle=1'",
            "4:11",
            "timeout idle: a row has no such",
        ),
        (f"url = '{URL}'\nhandler = 'nowhere:X'", "3:11", "handler 'nowhere:X': no module"),
        (f"url = '{URL}'\n{HANDLER}\nmax-children = 2", "4:16", "max-children: goes with"),
    ],
)
def test_a_mistake_is_told_with_its_place(
    tmp_path: Path, table: str, place: str, words: str
) -> None:
    path = tmp_path / "s.toml"
    path.write_text(f"[[source]]\n{table}\n")
    with pytest.raises(ConfigurationError, match=rf"s\.toml:{place}: {words}") as caught:
        read_toml(str(path))
    assert "\n" not in str(caught.value)


def test_the_second_sources_line_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        f"[[server]]\nlisten='tcp:1'\n{HANDLER}\n[[source]]\nurl='{URL}'\n{HANDLER}\n"
        f"[[source]]\nurl='{URL}'\nmax-rows=-1\n{HANDLER}\n"
    )
    with pytest.raises(ConfigurationError, match=r"s\.toml:9:10: max-rows"):
        read_toml(str(path))


@pytest.mark.parametrize(
    "base",
    [
        StreamRequestHandler,
        DatagramRequestHandler,
        HTTPRequestHandler,
        GatewayRequestHandler,
        RPCRequestHandler,
        http.server.SimpleHTTPRequestHandler,
        socketserver.StreamRequestHandler,
        socketserver.DatagramRequestHandler,
    ],
)
def test_a_handler_of_connections_or_datagrams_is_refused(base: type) -> None:
    with pytest.raises(ConfigurationError) as caught:
        source_config({"source": URL, "handler": type("Wrong", (base,), {"do_GET": print})})
    told = "handler Wrong: it serves connections or datagrams, not rows; derive it from "
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize("base", [BaseRequestHandler, SQLRequestHandler])
def test_a_handler_of_any_requests_serves_rows(base: type) -> None:
    handler = type("Right", (base,), {})
    assert source_config({"source": URL, "handler": handler}).handler is handler


@pytest.mark.parametrize(
    ("timeout", "drain"),
    [(["idle=9", "drain=4"], 4), (["keepalive=9"], 10), (["drain=none"], None)],
)
def test_of_the_environment_rows_have_the_deadlines_that_are_theirs(
    timeout: list[str], drain: float | None
) -> None:
    words = {"source": [URL], "handler": Handler}
    (config,) = servers_asked_for(words, {"timeout": timeout, "max-connections": "9"})
    assert config.deadlines.drain == drain
    with pytest.raises(ConfigurationError, match="timeout idle: a row has no such phase"):
        servers_asked_for({**words, "timeout": ["idle=9"]}, {})
