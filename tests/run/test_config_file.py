"""A configuration file: what it says, and the line of each mistake in it."""

import os
import socketserver

import pytest
from twisted.internet.testing import MemoryReactorClock

from sockserve import ConfigurationError, DatagramRequestHandler, Deadlines
from sockserve.core.admission import parse_network
from sockserve.run.config_file import read_toml
from sockserve.run.server_config import ServerConfig

BLOCKING = "handler = 'socketserver:StreamRequestHandler'"


class Packet(DatagramRequestHandler):
    def handle(self):
        pass


# What is understood


def test_all_words_as_toml_gives_them(tmp_path):
    path = tmp_path / "sockserve.toml"
    path.write_text(
        f"""
        [[server]]
        listen = "tcp:7000"
        {BLOCKING}
        threads = 7
        timeout = {{ idle = 2.5, handle = 3, write = "none" }}
        allow = ["192.0.2.0/24"]

        [[server]]
        listen = ["udp:5300", "udp6:5300"]
        handler = '{__name__}:Packet'
        concurrency = "fork"
        max-children = 3
        [server.timeout]
        handle = 1
        """
    )
    assert read_toml(str(path)) == [
        ServerConfig(
            listen=("tcp:7000",),
            handler=socketserver.StreamRequestHandler,
            threads=7,
            deadlines=Deadlines(idle=2.5, handle=3.0, write=None),
            allow=(parse_network("192.0.2.0/24"),),
        ),
        ServerConfig(
            listen=("udp:5300", "udp6:5300"),
            handler=Packet,
            concurrency="fork",
            max_children=3,
            deadlines=Deadlines(handle=1.0),
        ),
    ]


def test_servers_of_one_file_share_neither(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(
        f"[[server]]\nlisten='tcp:1'\n{BLOCKING}\n[[server]]\nlisten='tcp:2'\n{BLOCKING}\n"
    )
    one, two = (
        next(iter(config.build(MemoryReactorClock()))).server for config in read_toml(str(path))
    )
    assert one.concurrency is not two.concurrency
    assert one.admission is not two.admission


# What is not


TOML_MISTAKES = [
    (
        '[[server]]\nlisten = "tcp:7000"\nthread = 4\n',
        (3, 1),
        "unknown word 'thread'; did you mean",
    ),
    ('[[server]]\n\n# threads = 0\n"threads" = 0\n', (4, 13), "threads: 0 is less than 1"),
    (
        f"[[server]]\n{BLOCKING}\nthreads = 1\n\n[[server]]\nthreads = 0\n",
        (6, 11),
        "threads: 0 is less",
    ),
    (f"[[server]]\n{BLOCKING}\nthreads=1\n[[server]]\nfoo=1\n", (5, 1), "unknown word 'foo'"),
    ("[[server]]\nthreads = 4\n", (2, 11), "threads: handler FileRequestHandler is async def"),
    (
        "[[server]]\nallow = '::1'\nserver = 'nomodule:x'\n",
        (3, 10),
        "server 'nomodule:x': no module",
    ),
    (
        "[[server]]\npath='.'\nconcurrency='serial'\n",
        (3, 13),
        "concurrency: handler FileRequestHandler",
    ),
    ("[[server]]\n\n[server.timeout]\nidle = 'x'\n", (4, 8), "timeout idle: 'x' is not a number"),
    ("[[server]]\n[server.timeout]\nidel = 5\n", (3, 1), "timeout: 'idel' is not one of"),
    ("[[server]]\ntimeout.idle = 0\n", (2, 16), "timeout idle: 0 is not a number of seconds"),
    ("[[server]]\ntimeout = {idle = 0}\n", (2, 19), "timeout idle: 0 is not a number of seconds"),
    ("[[server]]\n# one\nhandler = 'nomodule:X'\n", (3, 11), "handler 'nomodule:X': no module"),
    ("[[server]]\nlisten = [\n 'tcp:1',\n 5,\n]\n", (4, 2), "listen: 5 is not a text"),
    (
        f"[[server]]\n{BLOCKING}\nthreads=4\nconcurrency='fork'\n",
        (3, 9),
        "threads: goes with concurrency",
    ),
    ("[[server]]\nlisten = 'udp:1'\n", (2, 10), "listen 'udp:1': handler FileRequestHandler"),
    ("[[server]]\npath = 'nowhere'\n", (2, 8), "not a directory"),
    (
        "[[server]]\n[[serve]]\nx = 1\n",
        (2, 3),
        "unknown table or word 'serve'; did you mean 'server'?",
    ),
    ("threads = 4\n[[server]]\n", (1, 1), "unknown table or word 'threads'"),
    ("[[server]]\naccess-log = 5\n", (2, 14), "access-log: 5 is not a text"),
    # A word that begins as another does.
    (
        "[[server]]\nmax-connections = 5\nmax-connections-per-peer = 0\n",
        (3, 28),
        "max-connections-per-peer: 0 is less than 1",
    ),
    ("[[server]]\nallow = '::1'\nallow-all = 1\n", (3, 1), "unknown word 'allow-all'"),
    # A word that another table has, too, where it is known or not looked at.
    (
        "[[server]]\n[server.timeout]\nidle = 5\n[[server]]\ntimeout.idle = 0\n",
        (5, 16),
        "timeout idle: 0 is not a number of seconds",
    ),
    ("[[server]]\ntimeout.idle = 5\n[[server]]\nidle = 5\n", (4, 1), "unknown word 'idle'"),
    (
        "[[server]]\n[server.timeout]\nidle = 5\n[[server]]\n\nidle = 5\n",
        (6, 1),
        "unknown word 'idle'",
    ),
    # Tables in a line, or on lines of their own.
    ("# a\n\nserver = [{threads = 0}]\n", (3, 22), "threads: 0 is less than 1"),
    ("server = [\n {path = '.'},\n {threads = 0},\n]\n", (3, 13), "threads: 0 is less than 1"),
    (
        "server = [\n {path = '.'}, {max-connections = 1, 'threads' = 0},\n]\n",
        (2, 50),
        "threads: 0 is",
    ),
    (
        f"server = [ # [[server]]\n{{{BLOCKING}, allow=['::1', '::2']}},\n\n{{timeout.idle = 0}}]",
        (4, 17),
        "timeout idle: 0 is not a number",
    ),
    # What looks like a table, but is in a string or a comment.
    (
        '[[server]]\npath = """.\\\n\n[[server]]"""\nthreads = 0\n',
        (5, 11),
        "threads: 0 is less than 1",
    ),
    (
        "# [[server]]\n[[server]]\npath = '[[server]]'\nthreads = 0 # x\n",
        (4, 11),
        "threads: 0 is less",
    ),
    ("[[server]]\nlisten = [\n'tcp:1',\n]\n'threads' = 0", (5, 13), "threads: 0 is less than 1"),
    ("[[server]]\n[server . timeout]\n idle = 0\n", (3, 9), "timeout idle: 0 is not a number"),
    ("[[server]]\nthreads = 4\n\n[threads]\nx = 1\n", (4, 2), "unknown table or word 'threads'"),
    ("[[server]]\n[[ 'threads' ]]\nx = 1\n", (2, 4), "unknown table or word 'threads'"),
    ("[[server]]\n\n[server.serve]\n", (3, 9), "unknown word 'serve'"),
    ('[[server]]\n\n"it\'s" = 1\n', (3, 1), 'unknown word "it\'s"'),
    # What is a line to TOML, and what is none.
    ("# one\u2028\x85\n[[server]]\r\nthreads = 0\n", (3, 11), "threads: 0 is less than 1"),
    # A key that is not written as it is meant.
    ('\n[[server]]\n"thr\\u0065ads" = 0\n', (3, 18), "threads: 0 is less than 1"),
]


@pytest.mark.parametrize(("text", "place", "message"), TOML_MISTAKES, ids=str)
def test_a_mistake_in_a_file_is_named_with_its_place(tmp_path, monkeypatch, text, place, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text(text, encoding="utf-8", newline="")
    with pytest.raises(ConfigurationError) as caught:
        read_toml("s.toml")
    line, column = place
    assert str(caught.value).startswith(f"s.toml:{line}:{column}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "s.toml: write at least one [[server]] table"),
        (b"[server]\nthreads = 1\n", "s.toml:1:1: write [[server]], in two brackets, for each"),
        (b"server = [1]\n", "s.toml:1:10: write [[server]], in two brackets, for each"),
        (b"\n[source]\n", "s.toml:2:1: write [[source]], in two brackets, for each"),
        (b"server = []\n", "s.toml: write at least one [[server]] table"),
        (b"[[server]]\nthreads 4\n", "s.toml:2:9: Expected '=' after a key in a key/value pair"),
        (
            b"[[server]]\nthreads",
            "s.toml:2:8: Expected '=' after a key in a key/value pair (at the",
        ),
        (b"\xff\xfe", "s.toml:1:1: this is not UTF-8"),
        (b"[[server]]\n# \xe9t\xe9\n", "s.toml:2:3: this is not UTF-8"),
        ("[[server]]\n".encode("utf-16"), "s.toml:1:1: this is not UTF-8"),
        (b"x = " + b"[" * 3000 + b"]" * 3000, "s.toml: its values are nested too deeply"),
        (b"x = " + b"{a=" * 3000 + b"1" + b"}" * 3000, "s.toml: its values are nested too deeply"),
        (b"#" * (2**24 + 1), "config 's.toml': it is larger than 16 MiB"),
        (b"x = 1\r\n\0", "s.toml:2:1: "),
        (b"[[server]]\nthreads = " + 5000 * b"9", "s.toml: Exceeds the limit (4300 digits)"),
        (b"[[server]]\n[[server]]\n[server]\n", "s.toml:3:8: Cannot declare ('server',) twice"),
        (None, "config 's.toml': No such file or directory"),
    ],
    ids=lambda value: str(value and value[:60])[:60],
)
def test_a_file_that_cannot_be_read(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "s.toml").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_toml("s.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(ConfigurationError, match="Is a directory"):
        read_toml(str(tmp_path))


def test_a_pipe_will_do():
    """As a shell's C{<(…)} is one."""
    out, into = os.pipe()
    with open(out, "rb"):
        with open(into, "w") as file:
            file.write(f"[[server]]\n{BLOCKING}\nlisten = 'tcp:1'\n")
        (server,) = read_toml(f"/dev/fd/{out}")
    assert server.listen == ("tcp:1",)


def test_one_that_nobody_writes_into_is_not_waited_for_without_end(tmp_path):
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    with pytest.raises(ConfigurationError) as caught:
        read_toml(path, pipe_seconds=0.01)
    assert str(caught.value) == f"config {path!r}: nobody writes into this pipe"


# What else counts


TWO = f"""
[[server]]
listen = "tcp:1"
{BLOCKING}
threads = 4
[[server]]
port = 2
path = "."
[[source]]
url = "sqlite:///jobs.db?table=jobs"
handler = 'socketserver:BaseRequestHandler'
"""


def test_options_override_the_words_of_each_table_that_has_them(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(TWO)
    one, two, rows = read_toml(
        str(path), options={"host": "::1", "max-connections": "9", "timeout": ["drain=1m"]}
    )
    assert one.listen == (r"tcp6:8000:interface=\:\:1",), "a host takes the place of listen"
    assert two.listen == (r"tcp6:2:interface=\:\:1",), "and goes with a port"
    assert (one.threads, one.max_connections, two.max_connections) == (4, 9, 9)
    assert {each.deadlines.drain for each in (one, two, rows)} == {60}


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        (
            "[[server]]\nhost = '127.0.0.1'\n[[server]]\nhost = '::1'\n",
            ["tcp:7070:interface=127.0.0.1", r"tcp6:7070:interface=\:\:1"],
        ),
        (
            "[[server]]\n[[server]]\nhandler = 'socketserver:DatagramRequestHandler'\n",
            ["tcp:7070:interface=127.0.0.1", "udp:7070:interface=127.0.0.1"],
        ),
    ],
    ids=["hosts", "kinds"],
)
def test_one_port_is_for_several_servers_where_they_do_not_meet(tmp_path, text, listen):
    file = tmp_path / "s.toml"
    file.write_text(text)
    found = read_toml(str(file), options={"port": "7070"})
    assert [config.listen for config in found] == [(each,) for each in listen]


def test_an_option_counts_more_than_a_variable_and_that_more_than_the_file(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(f"[[server]]\n{BLOCKING}\nthreads = 1\nmax-connections = 1\nport = 1\n")
    (server,) = read_toml(
        str(path),
        options={"threads": "3"},
        variables={"threads": "2", "max-connections": "2", "unix": "s"},
    )
    assert (server.threads, server.max_connections, server.listen) == (3, 2, ("unix:s",))


@pytest.mark.parametrize(
    ("options", "variables", "message"),
    [
        ({"threads": "0"}, {}, "threads: 0 is less than 1"),
        ({}, {"threads": "0"}, "SOCKSERVE_THREADS: 0 is less than 1"),
        ({"threads": "0"}, {"threads": "0"}, "threads: 0 is less than 1"),
        ({"max-datagrams": "4"}, {}, "max-datagrams: it is for datagrams, and no listener"),
        ({}, {"timeout": ["idle=x"]}, "SOCKSERVE_TIMEOUT idle: 'x' is not a number"),
        ({"source": ["x"]}, {}, "source: there is no table in s.toml that it goes with"),
        ({"port": "1"}, {"listen": ["tcp:1"]}, "s.toml:2:10: max-children: goes with"),
    ],
)
def test_a_mistake_that_is_not_the_files_is_told_where_it_is(
    tmp_path, monkeypatch, options, variables, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text(f"[[server]]\n{BLOCKING}\nmax-children = 1\n")
    if not message.startswith("s.toml"):
        (tmp_path / "s.toml").write_text(f"[[server]]\n{BLOCKING}\n")
    with pytest.raises(ConfigurationError) as caught:
        read_toml("s.toml", options=options, variables=variables)
    assert str(caught.value).startswith(message.replace("2:10", "3:16"))


def test_a_server_object_is_not_asked_to_have_what_others_get(tmp_path):
    """An option is an error only where no table has a use for it."""
    path = tmp_path / "s.toml"
    path.write_text(f"[[server]]\nserver = '{__name__}:make_server'\n[[server]]\n{BLOCKING}\n")
    one, two = read_toml(str(path), options={"port": "0", "threads": "3"})
    one.server.server_close()
    assert (one.threads, two.threads) == (3, 3)
    assert two.listen == ("tcp:0:interface=127.0.0.1",)


def make_server():
    return socketserver.ThreadingTCPServer(("127.0.0.1", 0), socketserver.StreamRequestHandler)


def test_what_turns_out_when_the_services_are_made_is_named_with_its_line(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(f"[[server]]\nlisten='tcp:1'\n[[server]]\n{BLOCKING}\nlisten = 'tpc:1'\n")
    one, two = read_toml(str(path))
    one.build(MemoryReactorClock())
    with pytest.raises(ConfigurationError) as caught:
        two.build(MemoryReactorClock())
    assert str(caught.value).startswith(f"{path}:5:10: listen 'tpc:1': ")
