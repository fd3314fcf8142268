"""What a user may ask for, and the line that says what is wrong with it."""

import functools
import socketserver
import sys
from operator import attrgetter

import pytest
from cryptography.hazmat.primitives import serialization
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.testing import MemoryReactorClock

from sockserve import (
    ConfigurationError,
    DatagramRequestHandler,
    Deadlines,
    StreamRequestHandler,
)
from sockserve.core.admission import parse_network
from sockserve.http import FileRequestHandler
from sockserve.listeners.service import listeners_of
from sockserve.run.config import server_config
from sockserve.run.served_files import files_to_withhold
from sockserve.run.server_config import DEFAULT_LISTEN, ServerConfig
from sockserve.sql import SQLRequestHandler
from tests.integration.servers import certificate_pem


class Coroutine(StreamRequestHandler):
    async def handle(self):
        pass


class Blocking(StreamRequestHandler):
    def handle(self):
        pass


class Packet(DatagramRequestHandler):
    def handle(self):
        pass


class Either(socketserver.BaseRequestHandler):
    pass


class Rows(SQLRequestHandler):
    pass


class StdlibStream(socketserver.StreamRequestHandler):
    pass


class StdlibPacket(socketserver.DatagramRequestHandler):
    pass


bound = functools.partial(Blocking)


def here(name):
    return f"{__name__}:{name}"


# What is understood


def test_nothing_asked_for_serves_the_current_folder_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = server_config({})
    assert config.listen == (DEFAULT_LISTEN,) == ("tcp:8000:interface=127.0.0.1",)
    assert config.handler.func is FileRequestHandler
    assert config.handler.keywords == {"directory": str(tmp_path)}


def test_header_fields_go_to_the_handler_of_files(tmp_path):
    config = server_config({"path": str(tmp_path), "header": ["X-A: b:c ", "X-Empty:"]})
    assert config.handler.keywords == {
        "directory": str(tmp_path),
        "extra_response_headers": (("X-A", "b:c"), ("X-Empty", "")),
    }
    own = server_config({"handler": "sockserve.http:FileRequestHandler", "header": "X: y"})
    assert own.handler.keywords == {"extra_response_headers": (("X", "y"),)}


def test_all_words_as_the_command_line_gives_them():
    config = server_config(
        {
            "listen": ["tcp:7000", "unix:sock"],
            "handler": here("Blocking"),
            "concurrency": "threads",
            "threads": "7",
            "timeout": ["idle=2.5", "write=none"],
            "body-rate": "1k",
            "body-grace": "2.5",
            "write-rate": "2k",
            "max-body-bytes": "10m",
            "max-request-line-bytes": "4096",
            "max-header-bytes": "16K",
            "max-header-fields": "50",
            "max-spool-bytes": "0",
            "request-queue-size": "128",
            "max-connections": "100",
            "max-connections-per-peer": "3",
            "allow": ["192.0.2.0/24", "2001:db8::/32"],
            "deny": ["192.0.2.1"],
            "proxy-from": ["10.0.0.0/8"],
            "access-log": "-",
            "log-format": "json",
            "stats-log": "stats",
        }
    )
    assert config == ServerConfig(
        listen=("tcp:7000", "unix:sock"),
        handler=Blocking,
        concurrency="threads",
        threads=7,
        deadlines=Deadlines(idle=2.5, write=None, body_rate=1024, body_grace=2.5, write_rate=2048),
        limits={
            "max_body_bytes": 10 * 2**20,
            "max_request_line_bytes": 4096,
            "max_header_bytes": 16 * 1024,
            "max_header_fields": 50,
            "max_spool_bytes": 0,
            "request_queue_size": 128,
        },
        max_connections=100,
        max_connections_per_peer=3,
        allow=(parse_network("192.0.2.0/24"), parse_network("2001:db8::/32")),
        deny=(parse_network("192.0.2.1"),),
        proxy_from=(parse_network("10.0.0.0/8"),),
        access_log="-",
        log_format="json",
        stats_log="stats",
    )


def test_what_checks_who_clients_are_is_one_portal_for_all_listeners():
    words = {
        "listen": ["tcp:0", "udp:0"],
        "auth": ["memory:alice:wonderland", "memory:bob:builder"],
    }
    config = server_config({**words, "handler": here("Either")})
    servers = [service.server for service in config.build(MemoryReactorClock())]
    assert servers[0].portal is servers[1].portal is config.portal is not None
    assert IUsernamePassword in config.portal.checkers
    assert "wonderland" not in repr(config) + "".join(config.summary())


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("10k", 10 * 1024),
        ("10K", 10 * 1024),
        ("10m", 10 * 1024**2),
        ("3g", 3 * 1024**3),
        ("3G", 3 * 1024**3),
        ("none", None),
        (3 * 2**30, 3 * 2**30),
    ],
)
def test_a_size_may_be_written_short(written, size):
    assert server_config({"max-body-bytes": written}).limits == {"max_body_bytes": size}


def test_the_limits_of_datagrams_and_of_streams_go_to_listeners_of_their_kind():
    config = server_config(
        {
            "listen": ["tcp:0", "tcp:0:backlog=7", "udp:0"],
            "handler": here("Either"),
            "max-header-bytes": "1k",
            "request-queue-size": 9,
            "max-packet-size": "2k",
            "max-datagrams": "none",
        }
    )
    first, second, datagrams = (each.server for each in config.build(MemoryReactorClock()))
    assert (first.max_header_bytes, second.max_header_bytes) == (1024, 1024)
    assert (first.request_queue_size, second.request_queue_size) == (9, None)
    assert (datagrams.max_packet_size, datagrams.max_datagrams) == (2048, None)


def test_a_summary_has_the_limits_given():
    config = server_config(
        {"max-body-bytes": "1m", "body-rate": "none", "body-grace": 7, "max-header-fields": 20}
    )
    assert config.summary()[1:] == [
        "deadlines handshake=10 idle=300 header=30 body=none handle=none write=60 lifetime=none"
        " drain=10 keepalive=60 user-timeout=120 body_rate=none body_grace=7",
        "limits max_body_bytes=1048576 max_header_fields=20",
    ]


@pytest.mark.parametrize(
    ("words", "listen"),
    [
        ({"port": "8080"}, "tcp:8080:interface=127.0.0.1"),
        ({"port": 0}, "tcp:0:interface=127.0.0.1"),
        ({"host": "0.0.0.0"}, "tcp:8000:interface=0.0.0.0"),
        ({"host": "localhost", "port": 80}, "tcp:80:interface=localhost"),
        ({"host": "::1", "port": 80}, r"tcp6:80:interface=\:\:1"),
        ({"host": "[::1]", "port": 80}, r"tcp6:80:interface=\:\:1"),
        ({"unix": "a:b.sock"}, r"unix:a\:b.sock"),
        ({"unix": "@name"}, "unix:@name"),
        ({"handler": here("Packet"), "port": 53}, "udp:53:interface=127.0.0.1"),
        ({"handler": here("Packet"), "host": "::1"}, r"udp6:8000:interface=\:\:1"),
        ({"handler": here("StdlibPacket"), "unix": "sock"}, "unixgram:sock"),
        ({"handler": here("Either"), "port": 53}, "tcp:53:interface=127.0.0.1"),
        ({"listen": "8080"}, "tcp:8080"),
        ({"listen": ["[::1]:80"]}, r"tcp6:80:interface=\:\:1"),
    ],
)
def test_where_to_listen_may_be_said_in_a_shorter_way(words, listen):
    """A port, a host and a path are of UDP, or datagrams, for a handler of nothing else."""
    assert server_config(words).listen == (listen,)


@pytest.fixture
def pem_files(tmp_path, monkeypatch):
    """A folder with a certificate, its key, and both in one file."""
    monkeypatch.chdir(tmp_path)
    both = certificate_pem()
    key, mark, certificate = both.partition(b"-----BEGIN CERTIFICATE-----")
    encrypted = serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    contents = {"key": key, "cert": mark + certificate, "both": both, "encrypted": encrypted}
    for name, content in contents.items():
        (tmp_path / f"{name}.pem").write_bytes(content)
    (tmp_path / "other.pem").write_bytes(certificate_pem("other"))
    (tmp_path / "password").write_text("secret\n")


@pytest.mark.usefixtures("pem_files")
@pytest.mark.parametrize(
    ("words", "listen"),
    [
        (
            {"certfile": "cert.pem", "keyfile": "key.pem", "port": 8443},
            "ssl:8443:interface=127.0.0.1:privateKey=key.pem:certKey=cert.pem",
        ),
        (
            {"certfile": "both.pem", "host": "::1"},
            r"ssl:8000:interface=\:\:1:privateKey=both.pem:certKey=both.pem",
        ),
        (
            {
                "certfile": "cert.pem",
                "keyfile": "encrypted.pem",
                "keyfile-password-file": "password",
            },
            "ssl:8000:interface=127.0.0.1:privateKey=encrypted.pem:certKey=cert.pem"
            ":passwordFile=password",
        ),
    ],
)
def test_a_certificate_makes_it_tls(words, listen):
    config = server_config({"handler": here("Either"), **words})
    assert config.listen == (listen,)
    config.build(MemoryReactorClock())


@pytest.mark.usefixtures("pem_files")
@pytest.mark.parametrize(
    ("words", "word", "message"),
    [
        (
            {"certfile": "cert.pem"},
            "certfile",
            "'cert.pem': no private key in it; name the file of",
        ),
        ({"certfile": "key.pem"}, "certfile", "'key.pem': no certificate in it"),
        (
            {"certfile": "cert.pem", "keyfile": "other.pem"},
            "keyfile",
            "'other.pem': it is not the key of the certificate of certfile 'cert.pem'",
        ),
        (
            {"certfile": "cert.pem", "keyfile": "encrypted.pem"},
            "keyfile",
            "say where it is by keyfile-password-file",
        ),
        (
            {"certfile": "both.pem", "keyfile-password-file": "nowhere"},
            "keyfile-password-file",
            "'nowhere': No such file or directory",
        ),
    ],
)
def test_a_file_of_tls_that_cannot_be_used_is_named_by_its_word(words, word, message):
    with pytest.raises(ConfigurationError) as caught:
        server_config(words)
    assert caught.value.word == word
    assert str(caught.value).startswith(f"{word} ")
    assert message in str(caught.value)


@pytest.mark.usefixtures("pem_files")
@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"certfile": "both.pem"}, ["certfile 'both.pem'"]),
        ({"certfile": "cert.pem", "keyfile": "key.pem"}, ["keyfile 'key.pem'"]),
        (
            {"certfile": "both.pem", "keyfile-password-file": "password"},
            ["certfile 'both.pem'", "keyfile-password-file 'password'"],
        ),
    ],
)
def test_a_private_key_is_not_served_with_the_files_beside_it(words, named):
    lines = files_to_withhold([server_config(words)]).values()
    assert [line.partition(": clients get 404 for it")[0] for line in lines] == named


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("1m", 60), ("500ms", 0.5), ("2h", 7200), ("1m30s", 90), ("none", None)],
)
def test_a_time_may_have_its_unit(written, seconds):
    words = {"timeout": {"idle": written}, "body-grace": written}
    assert server_config(words).deadlines == Deadlines(idle=seconds, body_grace=seconds)
    assert server_config({"timeout": f"idle={written}"}).deadlines == Deadlines(idle=seconds)


@pytest.mark.parametrize("words", [{}, {"access-log": "none"}, {"access-log": "-"}])
def test_a_server_knows_whether_lines_of_requests_are_settled(words):
    (listener,) = listeners_of(server_config(words).build(MemoryReactorClock()))
    assert listener.server.logs_requests == bool(words)


def test_no_access_log_is_said_by_a_word_of_its_own():
    config = server_config({"access-log": "none", "stats-log": "none"})
    (service,) = config.build(MemoryReactorClock())
    assert service.server.observers == []


# What is not


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"lisen": "tcp:1"}, "unknown word 'lisen'; did you mean 'listen'?"),
        ({"max_connections": 1}, "unknown word 'max_connections'; did you mean 'max-connections'?"),
        ({"qqq": 1}, "unknown word 'qqq'"),
        ({"listen": 7000}, "listen: 7000 is not a text"),
        ({"listen": ""}, "listen: it is empty"),
        ({"listen": ["tcp:1", 2]}, "listen: 2 is not a text"),
        ({"listen": []}, "listen: give at least one"),
        ({"path": "nowhere/here"}, "nowhere/here': not a directory"),
        ({"handler": "a:B", "path": "."}, "handler and path: give one of them"),
        ({"header": "Cache-Control"}, "header 'Cache-Control': write it as 'Name: value'"),
        ({"header": ["X: y", "a b: c"]}, "header 'a b: c': header field 'a b': a name is letters"),
        ({"header": "X: a\r\nY: b"}, "it must not have CR, LF, NUL"),
        ({"header": "content-length: 5"}, "header field content-length: the server makes it by"),
        ({"header": 5}, "header: 5 is not a text"),
        ({"header": "X: y", "handler": here("Blocking")}, "header: it is for files;"),
        (
            {"concurrency": "thread"},
            "concurrency: 'thread' is not one of serial, threads, fork; did you mean 'threads'?",
        ),
        ({"rpcbind": "yes"}, "rpcbind: 'yes' is neither true nor false"),
        ({"rpcbind": True}, "rpcbind: handler FileRequestHandler is no sockserve.sunrpc"),
        ({"log-format": "jsno"}, "log-format: 'jsno' is not one of combined, json; did you mean"),
        ({"threads": "many"}, "threads: 'many' is not a whole number"),
        ({"threads": 2.0}, "threads: 2.0 is not a whole number"),
        ({"threads": True}, "threads: True is not a whole number"),
        ({"threads": [1]}, "threads: [1] is not a whole number"),
        ({"threads": 0}, "threads: 0 is less than 1"),
        ({"max-children": "-1"}, "max-children: -1 is less than 1"),
        ({"max-connections": "1e3"}, "max-connections: '1e3' is not a whole number"),
        ({"max-connections-per-peer": 0}, "max-connections-per-peer: 0 is less than 1"),
        (
            {"allow": "10.0.0.1/8"},
            "allow: network '10.0.0.1/8': 10.0.0.1/8 has host bits set; write an address or",
        ),
        ({"deny": ["localhost"]}, "deny: network 'localhost': "),
        ({"proxy-from": "2001:db8::/129"}, "proxy-from: network '2001:db8::/129': "),
        ({"allow": 10}, "allow: 10 is not a text"),
        *[
            (
                {"max-body-bytes": value},
                f"max-body-bytes: {value!r} is not a number of bytes, 0 or more, such as 10m"
                " (k, m and g are powers of 1024), nor none",
            )
            for value in (
                "-1",
                "10mb",
                "1.5g",
                "m",
                "",
                "10 m",
                "\u0661k",
                -1,
                1.0,
                True,
                [1],
                None,
            )
        ],
        ({"max-spool-bytes": "none"}, "max-spool-bytes: 'none' is not a number of bytes, 0 or"),
        ({"max-header-bytes": "0"}, "max-header-bytes: '0' is not a number of bytes, 2 or more"),
        (
            {"max-header-fields": "1k"},
            "max-header-fields: '1k' is not a number of fields, 1 or more",
        ),
        (
            {"request-queue-size": "none"},
            "request-queue-size: 'none' is not a number of connections within 0 to 2147483647",
        ),
        (
            {"handler": f"{__name__}:Packet", "listen": "udp:0", "max-packet-size": "1g"},
            "max-packet-size: '1g' is not a number of bytes within 1 to 1048576, such as 10m",
        ),
        (
            {"handler": f"{__name__}:Packet", "listen": "udp:0", "max-datagrams": 0},
            "max-datagrams: 0 is not a number of datagrams, 1 or more, nor none",
        ),
        ({"max-datagrams": 5}, "max-datagrams: it is for datagrams, and no listener here is one"),
        (
            {"handler": f"{__name__}:Packet", "listen": "udp:0", "max-body-bytes": 5},
            "max-body-bytes: it is for streams, and no listener here is one of these",
        ),
        ({"body-rate": "0"}, "body-rate: '0' is not a number of bytes a second above 0, nor none"),
        ({"body-rate": True}, "body-rate: True is not a number of bytes a second above 0"),
        ({"body-rate": "fast"}, "body-rate: 'fast' is not a number of bytes a second above 0"),
        ({"body-grace": "5k"}, "body-grace: '5k' is not a number of seconds above 0, nor none"),
        ({"body-grace": "nan"}, "body-grace: 'nan' is not a number of seconds above 0, nor none"),
        ({"body-grace": None}, "body-grace: None is not a number of seconds above 0, nor none"),
        ({"max_body_bytes": 1}, "unknown word 'max_body_bytes'; did you mean 'max-body-bytes'?"),
        ({"timeout": "60"}, "timeout '60': write PHASE=SECONDS"),
        (
            {"timeout": "idel=60"},
            "timeout: 'idel' is not one of handshake, idle, header, body, handle, write,"
            " lifetime, drain, keepalive, user-timeout; did you mean 'idle'?",
        ),
        ({"timeout": {"hand": 60}}, "timeout: 'hand' is not one of "),
        ({"timeout": "idle=soon"}, "timeout idle: 'soon' is not a number of seconds above 0"),
        ({"timeout": "idle=0"}, "timeout idle: '0' is not a number of seconds above 0, nor none"),
        ({"timeout": "idle=-1"}, "timeout idle: '-1' is not a number"),
        ({"timeout": "idle=nan"}, "timeout idle: 'nan' is not a number"),
        ({"timeout": "idle=inf"}, "timeout idle: 'inf' is not a number"),
        ({"timeout": {"idle": True}}, "timeout idle: True is not a number"),
        ({"timeout": {"idle": [1]}}, "timeout idle: [1] is not a number"),
        ({"timeout": "=5"}, "timeout: '' is not one of "),
        ({"access-log": True}, "access-log: True is not a text"),
        ({"port": -1}, "port: -1 is not within 0 to 65535"),
        ({"port": 1.0}, "port: 1.0 is not a whole number"),
        ({"port": "http"}, "port: 'http' is not a whole number"),
        ({"host": "eth0:1"}, "host: 'eth0:1' is not an address; write one of"),
        ({"host": "fe80::1"}, "host: 'fe80::1' is link-local and needs its zone"),
        ({"host": ""}, "host: it is empty"),
        ({"port": 1, "listen": "tcp:1"}, "port: does not go with listen, which says where"),
        ({"unix": "s", "port": 1}, "port: does not go with unix, which says where"),
        ({"unix": "s", "listen": "tcp:1"}, "unix: does not go with listen, which says where"),
        ({"max-rows": 1}, "max-rows: it is for rows, and this is no source of them"),
        ({"workers": 1}, "unknown word 'workers'; it is one process; threads says how many"),
        (
            {"listen": "https://localhost/"},
            "listen 'https://localhost/': https needs a certificate",
        ),
    ],
    ids=str,
)
def test_a_wrong_word(words, message):
    with pytest.raises(ConfigurationError) as caught:
        server_config(words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


STREAMS = ("tcp:0", "unix:s", "tls:0:d", "systemd:domain=INET:index=0", "haproxy:tcp:0", "fd:3")
PACKETS = ("udp:0", "udp6:0", "unixgram:s")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        *(
            (
                {"handler": here(name), "listen": listen},
                f"listen {listen!r}: handler {name} serves datagrams; listen on udp:, udp6: or",
            )
            for name in ("Packet", "StdlibPacket")
            for listen in STREAMS
        ),
        *(
            (
                {"handler": here(name), "listen": listen},
                f"listen {listen!r}: handler {name} serves streams; listen on tcp:, tls: or unix:",
            )
            for name in ("Coroutine", "StdlibStream")
            for listen in PACKETS
        ),
        *(
            ({"handler": here("Rows"), "listen": listen}, "handler Rows serves the rows of a table")
            for listen in (*STREAMS, *PACKETS)
        ),
        ({"listen": "udp:8000"}, "handler FileRequestHandler serves streams"),
        ({"listen": "udp:8000", "max-datagrams": 9}, "handler FileRequestHandler serves streams"),
        (
            {"handler": here("Packet"), "listen": ["udp:5300", "tcp:5300"]},
            "listen 'tcp:5300': handler Packet serves datagrams",
        ),
        *(
            (
                {"handler": here("Coroutine"), word: value},
                f"{word}: handler Coroutine is async def and runs on the reactor; leave {word} out",
            )
            for word, value in (("threads", 4), ("concurrency", "fork"), ("max-children", 4))
        ),
        *(
            (
                {"handler": here("Blocking"), "threads": 4, "concurrency": concurrency},
                f"threads: goes with concurrency threads, not {concurrency}",
            )
            for concurrency in ("serial", "fork")
        ),
        *(
            (
                {"handler": here("Blocking"), "max-children": 4, **more},
                "max-children: goes with concurrency fork",
            )
            for more in ({}, {"concurrency": "threads"}, {"concurrency": "serial"})
        ),
    ],
    ids=str,
)
def test_words_that_do_not_go_together(words, message):
    with pytest.raises(ConfigurationError) as caught:
        server_config(words)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "listen",
    ["tcp:0", "udp:0"],
)
def test_a_handler_that_does_not_say_serves_both(listen):
    """As a DNS handler does; the stdlib's BaseRequestHandler knows neither."""
    config = server_config({"listen": listen, "handler": "socketserver:BaseRequestHandler"})
    (service,) = config.build(MemoryReactorClock())
    assert service.description == listen


# What would run


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ({"handler": here("Coroutine")}, "Coroutine on the reactor"),
        ({"handler": here("Blocking")}, "Blocking on threads"),
        ({"handler": here("bound"), "concurrency": "serial"}, "Blocking on one thread"),
        ({"handler": here("Blocking"), "concurrency": "fork"}, "Blocking on child processes"),
        ({}, "FileRequestHandler on the reactor"),
        ({"path": "."}, "FileRequestHandler on the reactor"),
        (
            {"handler": "http.server:SimpleHTTPRequestHandler"},
            "SimpleHTTPRequestHandler on threads",
        ),
    ],
)
def test_summary_says_where_the_handler_runs(words, place):
    config = server_config({"listen": ["tcp:1", "unix:two"], **words})
    assert config.summary()[:2] == [f"listen tcp:1: {place}", f"listen unix:two: {place}"]


@pytest.mark.parametrize(
    "given", [["keepalive=30", "user-timeout=50"], {"keepalive": 30, "user-timeout": 50}]
)
def test_keepalive_is_among_the_deadlines(given):
    config = server_config({"handler": "http.server:SimpleHTTPRequestHandler", "timeout": given})
    assert (config.deadlines.keepalive, config.deadlines.user_timeout) == (30, 50)
    assert config.summary()[-1].endswith(" keepalive=30 user-timeout=50")


def test_summary_says_the_deadlines():
    config = server_config({"timeout": ["idle=2.5", "write=none"]})
    deadlines = config.summary()[-1]
    assert deadlines.startswith("deadlines handshake=10 idle=2.5 ")
    assert " write=none " in deadlines


def test_listeners_of_one_server_share_workers_and_caps():
    config = server_config(
        {
            "listen": ["tcp:0", "udp:0"],
            "handler": "socketserver.BaseRequestHandler",
            "max-connections": 5,
            "threads": 3,
        }
    )
    one, two = (service.server for service in config.build(MemoryReactorClock()))
    assert one.concurrency is two.concurrency
    assert one.concurrency.limit == 3
    assert one.admission is two.admission
    assert one.admission.max_connections == 5


SERVER_MODULE = """
import socketserver
import sockserve.socketserver

made = []

def make_of(kind):
    made.append(kind(("127.0.0.1", 0), socketserver.BaseRequestHandler))
    return made[-1]

class Server(socketserver.ThreadingTCPServer):
    pass

class Own(socketserver.ThreadingTCPServer):
    def process_request(self, request, client_address):
        super().process_request(request, client_address)

def threading():
    return make_of(Server)

def serial():
    return make_of(socketserver.TCPServer)

def forking():
    return make_of(socketserver.ForkingTCPServer)

def datagrams():
    return make_of(socketserver.ThreadingUDPServer)

def own():
    return make_of(Own)

class Alone(socketserver.ThreadingTCPServer):
    def process_request(self, request, client_address):
        self.shutdown_request(request)

def alone():
    return make_of(Alone)

def plain():
    return make_of(sockserve.socketserver.ThreadingTCPServer)

class Patient(sockserve.socketserver.ThreadingTCPServer):
    deadlines = sockserve.Deadlines(body_rate=1000)

def patient():
    return make_of(Patient)
"""


@pytest.fixture
def server_module(tmp_path, monkeypatch):
    (tmp_path / "servermodule.py").write_text(SERVER_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "servermodule"
    module = sys.modules.pop("servermodule", None)
    for server in module.made if module else ():
        server.server_close()


def test_a_server_object_has_its_own_socket_and_handler(server_module):
    config = server_config({"server": f"{server_module}:threading", "threads": "3"})
    server = config.server
    assert config.handler is server.RequestHandlerClass
    assert config.threads == 3
    assert config.summary()[0] == f"server Server: BaseRequestHandler on {server.server_address}"


@pytest.mark.parametrize(
    "word",
    [
        *("listen", "handler", "path", "concurrency", "proxy-from"),
        *("max-packet-size", "request-queue-size", "header"),
    ],
)
def test_what_a_server_object_comes_with_is_not_given(server_module, word):
    value = {"listen": "tcp:1", "concurrency": "threads", "path": "."}.get(word, "192.0.2.1")
    with pytest.raises(ConfigurationError, match=f"^{word}: does not go with server"):
        server_config({word: value, "server": f"{server_module}:threading"})


@pytest.mark.parametrize(
    ("make", "words", "message"),
    [
        (
            "serial",
            {"threads": "3"},
            "threads: does not go with this server: TCPServer is no socketserver.ThreadingMixIn"
            " and serves one request at a time",
        ),
        (
            "forking",
            {"threads": "3"},
            "threads: does not go with this server: ForkingTCPServer processes requests by itself",
        ),
        (
            "forking",
            {"max-connections": "3"},
            "max-connections: does not go with this server: ForkingTCPServer processes"
            " requests by itself",
        ),
        (
            "forking",
            {"max-connections-per-peer": "3"},
            "max-connections-per-peer: does not go with this server: ForkingTCPServer processes"
            " requests by itself",
        ),
        (
            "forking",
            {"access-log": "-"},
            "access-log: does not go with this server: ForkingTCPServer processes requests by"
            " itself",
        ),
        (
            "forking",
            {"stats-log": "-"},
            "stats-log: does not go with this server: ForkingTCPServer processes requests by"
            " itself",
        ),
        (
            "forking",
            {"timeout": ["handshake=5", "idle=5"]},
            "timeout idle: does not go with this server: ForkingTCPServer processes requests by"
            " itself",
        ),
        (
            "alone",
            {"max-connections": "3"},
            "max-connections: does not go with this server: Alone processes requests by itself",
        ),
        (
            "datagrams",
            {"timeout": "idle=3"},
            "timeout idle: does not go with this server: ThreadingUDPServer has no connections",
        ),
        (
            "datagrams",
            {"max-connections": "3"},
            "max-connections: does not go with this server: ThreadingUDPServer has no connections",
        ),
        (
            "datagrams",
            {"max-body-bytes": "3k"},
            "max-body-bytes: does not go with this server: ThreadingUDPServer has no connections",
        ),
        (
            "threading",
            {"max-datagrams": "3"},
            "max-datagrams: does not go with this server: Server serves no datagrams",
        ),
        (
            "forking",
            {"max-header-fields": "3"},
            "max-header-fields: does not go with this server: ForkingTCPServer processes requests"
            " by itself",
        ),
        (
            "forking",
            {"body-rate": "3"},
            "body-rate: does not go with this server: ForkingTCPServer processes requests by"
            " itself",
        ),
    ],
)
def test_what_would_not_apply_to_a_server_object_is_not_given(server_module, make, words, message):
    with pytest.raises(ConfigurationError) as caught:
        server_config({"server": f"{server_module}:{make}", **words})
    assert str(caught.value) == message


def test_the_deadlines_of_a_server_object_are_its_own_but_for_those_given(server_module):
    words = {"server": f"{server_module}:patient", "timeout": "idle=5", "body-grace": "6"}
    assert server_config(words).deadlines == Deadlines(idle=5, body_rate=1000, body_grace=6)
    words = {"server": f"{server_module}:plain", "timeout": "idle=5", "body-rate": "7"}
    assert server_config(words).deadlines == Deadlines(idle=5, body_rate=7)


@pytest.mark.parametrize(
    ("make", "words", "applied"),
    [
        (
            "threading",
            {"max-connections": "3", "max-connections-per-peer": "2", "access-log": "-"},
            {"max_connections": 3, "max_connections_per_peer": 2, "access_log": "-"},
        ),
        (
            "serial",
            {"max-connections": "3", "timeout": "idle=5", "deny": "192.0.2.1"},
            {"max_connections": 3, "deadlines.idle": 5, "deny": ["192.0.2.1/32"]},
        ),
        (
            "forking",
            {"timeout": ["handshake=5", "drain=3"], "allow": "192.0.2.1"},
            {"deadlines.handshake": 5, "deadlines.drain": 3, "allow": ["192.0.2.1/32"]},
        ),
        (
            "own",
            {"deny": "192.0.2.1", "threads": "3", "max-connections": "3"},
            {"deny": ["192.0.2.1/32"], "threads": 3, "max_connections": 3},
        ),
        (
            "datagrams",
            {"threads": "3", "deny": "192.0.2.1", "access-log": "-"},
            {"threads": 3, "deny": ["192.0.2.1/32"], "access_log": "-"},
        ),
        ("datagrams", {"max-datagrams": "3"}, {"limits": {"max_datagrams": 3}}),
        (
            "serial",
            {"max-body-bytes": "none", "body-rate": "1k", "body-grace": "none"},
            {
                "limits": {"max_body_bytes": None},
                "deadlines.body_rate": 1024,
                "deadlines.body_grace": None,
            },
        ),
    ],
)
def test_what_applies_to_a_server_object(server_module, make, words, applied):
    config = server_config({"server": f"{server_module}:{make}", **words})
    for name, value in applied.items():
        found = attrgetter(name)(config)
        if name in ("allow", "deny"):
            found = [str(network) for network in found]
        assert found == value, name
