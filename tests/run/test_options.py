"""The table of options: what is made from it, and that it agrees with what takes the values."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest

from sockserve import ConfigurationError, Deadlines
from sockserve.core.limits import LIMITS, LimitKind
from sockserve.executors.fork import DEFAULT_MAX_CHILDREN
from sockserve.executors.threads import DEFAULT_THREADS
from sockserve.listeners.datagrams import DatagramServer
from sockserve.listeners.stream_factory import StreamFactory
from sockserve.observe.access_log import LOG_FORMATS
from sockserve.run.config_file import read_toml
from sockserve.run.environment import environment_words
from sockserve.run.options.completion import completion
from sockserve.run.options.parser import SHELLS, make_parser, parse
from sockserve.run.options.schema import file_schema
from sockserve.run.options.words import OPTIONS, SERVER_OPTIONS, SOURCE_OPTIONS, override
from sockserve.run.server_config import DEFAULT_LISTEN
from sockserve.run.where import DEFAULT_HOST, DEFAULT_PORT
from sockserve.run.workers import WORKERS
from sockserve.service import DEFAULT_REQUEST_QUEUE_SIZE
from sockserve.sql.server import SQLServer
from sockserve.tap import Options
from tests.integration.servers import certificate_pem

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads(file_schema())


def in_numbers(written: str | None) -> int:
    """A default as a number."""
    number, unit = re.fullmatch("([0-9]+)([kmg]?)", written or "").groups()  # type: ignore[union-attr]
    return int(number) * {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}[unit]


# What the table says


def test_each_limit_is_in_the_table_with_its_default() -> None:
    servers = {
        LimitKind.STREAMS: StreamFactory,
        LimitKind.DATAGRAMS: DatagramServer,
        LimitKind.ROWS: SQLServer,
    }
    for name, limit in LIMITS.items():
        default = getattr(servers[limit.kind], name)
        if name == "request_queue_size":
            default = DEFAULT_REQUEST_QUEUE_SIZE
        assert in_numbers(OPTIONS[name.replace("_", "-")].notes.default) == default


@pytest.mark.parametrize(
    ("word", "default"),
    [
        ("listen", DEFAULT_LISTEN),
        ("host", DEFAULT_HOST),
        ("port", str(DEFAULT_PORT)),
        ("threads", str(DEFAULT_THREADS)),
        ("max-children", str(DEFAULT_MAX_CHILDREN)),
        ("body-rate", f"{Deadlines().body_rate:g}"),
        ("body-grace", f"{Deadlines().body_grace:g}"),
        ("write-rate", f"{Deadlines().write_rate:g}"),
    ],
)
def test_a_default_is_the_one_there_is(word: str, default: str) -> None:
    assert OPTIONS[word].notes.default == default


def test_the_choices_are_those_there_are() -> None:
    assert set(OPTIONS["concurrency"].choices) == set(WORKERS)
    assert set(OPTIONS["log-format"].choices) == set(LOG_FORMATS)


def test_rivals_are_words() -> None:
    known = {**SERVER_OPTIONS, **SOURCE_OPTIONS}
    assert {rival for each in known.values() for rival in each.notes.rivals} <= set(known)


# Command lines


def test_both_commands_have_the_same_options() -> None:
    parser = make_parser()
    names = {name for each in parser.arguments for name in each.option_strings}
    own = {name for name in names if name.startswith("--")}
    twistds = {f"--{name}" for name in Options().known_options()}
    assert twistds - own == set()
    alone = {"--reactor", "--reload", "--verbose", "--print-completion", "--print-schema"}
    assert own - twistds == alone


def test_twistds_help_has_the_short_options() -> None:
    told = Options().getUsage()
    assert [
        option.word
        for option in OPTIONS.values()
        if option.notes.short and f"  -{option.notes.short}, --{option.word}" not in told
    ] == []


def test_the_help_may_be_read_in_part() -> None:
    done = subprocess.run(
        f"{sys.executable} -m sockserve --help | head -n 1; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("usage: sockserve [HANDLER] [options]\n0\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lisen=tcp:0"], "option --lisen not recognized; did you mean '--listen'?"),
        (["--lisen", "tcp:0"], "option --lisen not recognized; did you mean '--listen'?"),
        (["-x"], "option -x not recognized"),
        (["--qqq"], "option --qqq not recognized"),
        (["--check=yes"], "option --check must not have an argument"),
        (["--handler"], "option --handler requires argument"),
        (["a:B", "c"], "'c' belongs to no option; one handler or folder is served"),
        (["--max-conn", "5"], "option --max-conn not recognized"),
    ],
)
def test_what_is_no_option_is_one_line(arguments: list[str], message: str) -> None:
    """In the words of C{twistd}; and no option is known by its beginning."""
    with pytest.raises(ConfigurationError) as caught:
        parse(make_parser(), arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "arguments",
    [
        ["hello:Hello", "--port", "80", "-l", "a", "--listen=b", "-vv"],
        ["--port", "80", "-l", "a", "hello:Hello", "--listen=b", "-v", "-v"],
        ["-v", "-la", "-l", "b", "-v", "--port=80", "hello:Hello"],
    ],
)
def test_the_handler_is_anywhere_among_the_options(arguments: list[str]) -> None:
    found = parse(make_parser(), arguments)
    assert (found.served, found.port, found.listen) == ("hello:Hello", "80", ["a", "b"])
    assert found.verbose == 2


@pytest.mark.parametrize("word", ["check", "reload", "reactor"])
def test_what_is_for_one_call_is_no_variable(word: str) -> None:
    with pytest.raises(ConfigurationError, match=f"an option alone: --{word}$"):
        environment_words({f"SOCKSERVE_{word.upper()}": "1"})


@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_has_all_options_and_their_choices(shell: str) -> None:
    told = completion(shell)
    assert [word for word in OPTIONS if word not in told] == []
    assert "serial" in told


# The schema


def examples() -> list[str]:
    """The texts of configuration files in the documentation, right ones."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    found = [
        text
        for page in sorted(pages)
        for text in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
        if re.search(r"^\[\[(server|source)\]\]", text, re.MULTILINE)
    ]
    return [text for text in found if "max-conections" not in text]


@pytest.mark.parametrize("text", examples())
def test_a_file_of_the_documentation_is_valid(text: str) -> None:
    jsonschema.validate(tomllib.loads(text), SCHEMA)


#: A value of each word as files have it.
FILE = """
[[server]]
handler = "socketserver:StreamRequestHandler"
listen = ["tcp:0", "8080", "http://127.0.0.1:8080/"]
concurrency = "threads"
threads = 4
timeout = { idle = 2.5, handle = "2m", write = "none", user-timeout = 5 }
access-log = "-"
log-format = "json"
stats-log = "stats"
body-rate = "1k"
body-grace = "500ms"
write-rate = 240
max-connections = 10
max-connections-per-peer = 5
request-queue-size = 10
max-body-bytes = "none"
max-request-line-bytes = "4k"
max-header-bytes = 1000
max-header-fields = 10
max-spool-bytes = "1g"
allow = "::1"
deny = ["192.0.2.0/24"]
proxy-from = "::1"
auth = ["memory:alice:wonderland"]

[[server]]
path = "."
header = ["Cache-Control: no-store"]
port = 0
host = "127.0.0.1"
certfile = "both.pem"
keyfile = "both.pem"
keyfile-password-file = "password"

[[server]]
handler = "socketserver:DatagramRequestHandler"
unix = "sock"
concurrency = "fork"
max-children = 4
max-packet-size = "8k"
max-datagrams = "none"
timeout = ["idle=5"]
rpcbind = false

[[source]]
url = "sqlite:///jobs.db?table=jobs"
handler = "socketserver:BaseRequestHandler"
max-rows = "none"

[[source]]
source = ["sqlite:///jobs.db?table=jobs"]
handler = "socketserver:BaseRequestHandler"
"""


def test_what_the_schema_has_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "both.pem").write_bytes(certificate_pem())
    (tmp_path / "password").write_text("secret")
    jsonschema.validate(tomllib.loads(FILE), SCHEMA)
    path = tmp_path / "all.toml"
    path.write_text(FILE)
    assert len(read_toml(str(path))) == 5
    words = {word for tables in tomllib.loads(FILE).values() for table in tables for word in table}
    assert {*SERVER_OPTIONS, *SOURCE_OPTIONS} - words == {"server"}


@pytest.mark.parametrize(
    "text",
    [
        "x = 1",
        "[server]",
        "[[server]]\nlisen = 'tcp:0'",
        "[[server]]\nmax_connections = 5",
        "[[server]]\nmax-connections = 0",
        "[[server]]\nport = 65536",
        "[[server]]\nconcurrency = 'process'",
        "[[server]]\ntimeout = { idel = 5 }",
        "[[server]]\ntimeout = { idle = 'soon' }",
        "[[server]]\nmax-body-bytes = '10 mb'",
        "[[server]]\nlisten = [5]",
        "[[server]]\nconfig = 'x'",
        "[[source]]\nlisten = 'tcp:0'",
    ],
)
def test_what_is_not_taken_the_schema_has_not(tmp_path: Path, text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(text), SCHEMA)
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError):
        read_toml(str(path))


# Places


@pytest.mark.parametrize(
    ("words", "by", "found"),
    [
        ({"threads": 4}, {"threads": "5"}, {"threads": "5"}),
        ({"allow": ["a"]}, {"allow": ["b"]}, {"allow": ["b"]}),
        ({"listen": "tcp:1", "threads": 4}, {"port": "2"}, {"port": "2", "threads": 4}),
        ({"host": "::1", "port": 1}, {"port": "2"}, {"host": "::1", "port": "2"}),
        ({"host": "::1", "port": 1}, {"unix": "s"}, {"unix": "s"}),
        ({"path": "."}, {"handler": "a:B"}, {"handler": "a:B"}),
        ({"handler": "a:B", "listen": "tcp:1"}, {"server": "a:c"}, {"server": "a:c"}),
        ({"url": "x"}, {"source": ["y"]}, {"source": ["y"]}),
        ({"deny": "x"}, {}, {"deny": "x"}),
    ],
)
def test_what_is_said_elsewhere_takes_the_place_of_what_says_the_same(
    words: dict[str, object], by: dict[str, object], found: dict[str, object]
) -> None:
    assert override(words, by) == found


# What only tells needs little


@pytest.mark.parametrize("option", ["--version", "--help", "--print-schema"])
def test_what_is_only_told_imports_no_reactor(option: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c",
         "import sys; from sockserve.__main__ import main; main(sys.argv[1:]);"
         " print(sorted(sys.modules), file=sys.stderr)", option],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    modules = set(ast.literal_eval(done.stderr))
    assert {"twisted.internet.reactor", "OpenSSL", "sockserve.tap", "sockserve.run.config"} & (
        modules
    ) == set()
