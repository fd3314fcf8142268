"""Servers of one process that would be in each other's way."""

import socket
import socketserver

import pytest

from sockserve import ConfigurationError, DatagramRequestHandler, StreamRequestHandler
from sockserve.run.config import server_config
from sockserve.run.config_file import read_toml
from sockserve.run.server_config import ServerConfig
from sockserve.run.together import check_together


class Lines(StreamRequestHandler):
    async def handle(self):
        pass


class Packet(DatagramRequestHandler):
    async def handle(self):
        pass


def config(*listen, handler=Lines):
    return server_config({"handler": handler, "listen": list(listen)})


#: Pairs of which the second cannot listen beside the first.
RIVALS = [
    ("tcp:7070", "tcp:7070"),
    ("tcp:7070", "tcp:7070:interface=127.0.0.1"),
    ("tcp:7070:interface=127.0.0.1", "tcp:7070:interface=0.0.0.0"),
    ("tcp:7070:interface=127.0.0.1", "tcp:7070:interface=localhost"),
    ("tcp:7070", "tcp6:7070"),
    ("tcp6:7070", "tcp:7070:interface=127.0.0.1"),
    (r"tcp6:7070", r"tcp6:7070:interface=\:\:1"),
    ("tcp:7070:interface=127.0.0.1", r"tcp6:7070:interface=\:\:ffff\:127.0.0.1"),
    ("haproxy:tcp:7070", "tcp:7070:interface=127.0.0.1"),
    ("tls:7070:nowhere", "ssl:7070"),
    ("127.0.0.1:7070", "http://127.0.0.1:7070/"),
    ("unix:s", "unix:./s"),
    ("unix:s", "unix:folder/../s"),
    ("unix:link/s", "unix:folder/s:lockfile=0"),
    ("unix:@name", "unix:@name"),
]
DATAGRAM_RIVALS = [
    ("udp:7070", "udp:7070:interface=127.0.0.1"),
    (r"udp6:7070", r"udp6:7070:interface=\:\:1"),
    ("unixgram:s", "unixgram:./s:mode=600"),
    ("unixgram:@name", "unixgram:@name"),
]
APART = [
    ("tcp:7070", "tcp:7071"),
    ("tcp:0", "tcp:0"),
    ("tcp:7070:interface=127.0.0.1", "tcp:7070:interface=127.0.0.2"),
    ("tcp:7070", r"tcp6:7070:interface=\:\:1"),
    ("unix:s", "unix:folder/s"),
    ("unix:@s", "unix:s"),
]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("first", "second"), RIVALS)
@pytest.mark.parametrize("apart", [False, True])
def test_one_address_has_one_listener(first, second, apart):
    servers = [config(first), config(second)] if apart else [config(first, second)]
    first, second = (each for server in servers for each in server.listen)
    with pytest.raises(ConfigurationError) as caught:
        check_together(servers)
    message = str(caught.value)
    assert message.startswith(f"listen {second!r}: ")
    assert f"is that of {first!r} already" in message


@pytest.mark.parametrize(("first", "second"), DATAGRAM_RIVALS)
def test_one_address_has_one_listener_of_datagrams(first, second):
    with pytest.raises(ConfigurationError, match="is that of "):
        check_together([config(first, second, handler=Packet)])


@pytest.mark.parametrize(("first", "second"), APART)
def test_other_addresses_are_other_listeners(first, second):
    check_together([config(first, second)])


def test_datagrams_go_beside_streams():
    check_together([config("tcp:7070"), config("udp:7070", "udp6:7070", handler=Packet)])


@pytest.mark.parametrize(
    "description", ["tcp:x", "tcp:7070:x=1", "unix:", "ssl:7070:a:b:c:d:e:f:g:h:i"]
)
def test_what_is_no_description_is_told_elsewhere(description):
    check_together([config("tcp:7070:interface=127.0.0.3", description)])


@pytest.mark.parametrize("wildcard", [("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6)])
def test_the_system_refuses_all_addresses_beside_one_of_them(wildcard):
    address, family = wildcard
    with socket.create_server(("127.0.0.1", 0)) as first, socket.socket(family) as second:
        second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            second.bind((address, first.getsockname()[1]))


def test_a_server_object_has_its_address():
    with socketserver.ThreadingTCPServer(
        ("127.0.0.1", 0), socketserver.BaseRequestHandler
    ) as server:
        port = server.server_address[1]
        object_ = ServerConfig(handler=server.RequestHandlerClass, server=server)
        listening = config(f"tcp:{port}")
        with pytest.raises(ConfigurationError, match=r"^listen .*is that of the server object"):
            check_together([object_, listening])
        with pytest.raises(ConfigurationError, match=rf"^server: port {port} is that of 'tcp:"):
            check_together([listening, object_])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[[server]]\nlisten = [\n 'tcp:7070',\n 'tcp:7070',\n]\n", "4:2"),
        ("[[server]]\nlisten = 'tcp:7070'\n[[server]]\nlisten = '127.0.0.1:7070'\n", "4:10"),
        ("[[server]]\nport = 7070\n[[server]]\nport = 7070\n", "4:8"),
        ("[[server]]\n[[server]]\n", "2:1"),
    ],
)
def test_the_second_of_a_file_is_found(tmp_path, text, place):
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=rf"^{file}:{place}: listen .*: port .*is that of"):
        check_together(read_toml(str(file)))


@pytest.mark.parametrize("description", ["unix", "unix:mode=600", "unixgram", "udp", "udp6", "tls"])
def test_a_description_without_a_place_is_left_to_who_listens(description: str) -> None:
    server = ServerConfig(handler=StreamRequestHandler, listen=(description, "tcp:1"))
    check_together([server])
