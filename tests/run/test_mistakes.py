"""
A hundred mistakes of users: each has one line, with its culprit and, where there is one, the right
word; no traceback; and the exit status is 1.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

import pytest

ROOT = Path(__file__).parents[2]

#: What lies in the folder.
FILES = {
    "shop.py": """
from sockserve import DatagramRequestHandler, StreamRequestHandler
from sockserve.http import HTTPRequestHandler


class Page(HTTPRequestHandler):
    async def do_GET(self):
        pass


class Lines(StreamRequestHandler):
    async def handle(self):
        pass


class Slow(StreamRequestHandler):
    def handle(self):
        pass


class Packet(DatagramRequestHandler):
    async def handle(self):
        pass


class Empty(HTTPRequestHandler):
    pass


def wsgi(environ, start_response):
    return []


number = 7
""",
    "site.py": "class Page:\n    pass\n",  # Python has one of that name
    "unfinished.py": "class Page(\n",
    "misspelt.py": "Page = undefned\n",
    "lonely.py": "import a_module_that_is_not_there\n",
    "halfway.py": "from sockserve.http import HttpRequestHandler\n",
    "quits.py": "import sys; sys.exit('enough')\n",
    "stdlib.py": """
import socketserver
from http.server import BaseHTTPRequestHandler


class Lines(socketserver.StreamRequestHandler):
    async def handle(self):
        pass


class Page(BaseHTTPRequestHandler):
    async def do_GET(self):
        pass
""",
    # Configuration files; WHERE:LINE:COLUMN of the mistake is in the table below.
    "bracket.toml": "[[server]\nhandler = 'shop:Page'\n",
    "bare.toml": "[[server]]\nhandler = shop:Page\n",
    "single.toml": "[server]\nhandler = 'shop:Page'\n",
    "none.toml": "",
    "float.toml": "[[server]]\nhandler = 'shop:Slow'\nthreads = 4.5\n",
    "seconds.toml": "[[server]]\nhandler = 'shop:Lines'\ntimeout = 5\n",
    "plural.toml": "[[server]]\n[[servers]]\nhandler = 'shop:Page'\n",
    "number.toml": "[[server]]\nlisten = 7000\n",
    "under.toml": "[[server]]\nmax_connections = 5\n",
    "nested.toml": "[[server]]\nlisten = 'tcp:0'\n  [server.timeout]\n  idle = 5\n  hedr = 4\n",
    "dotted.toml": "[[server]]\ntimeout.idle = 5\ntimeout.hedr = 4\n",
    "inline.toml": "server = [\n  { listen = 'tcp:0' },\n  { max-conections = 3 },\n]\n",
    "items.toml": "# [[server]]\n[[server]]\nlisten = [\n  'tcp:0',\n  'tpc:0',\n]\n",
    "networks.toml": "[[server]]\nallow = ['10.0.0.0/8',\n  'nonsense']\n",
    "long.toml": '[[server]]\nlisten = """\\\ntcp:0\\\n"""\n[server.timeout]\nheader = "x"\n',
    "second.toml": "[[server]]\n[[server]]\nhandler = 'shop:Pgae'\n",
    "defaults.toml": "[defaults]\nthreads = 4\n[[server]]\n",
    "folder.toml": "[[server]]\npath = 'nowhere'\n",
    "other.toml": "[[server]]\nworkers = 4\n",
    "empty.toml": "[[server]]\nhandler = 'shop:Empty'\n",
    "twice.toml": "[[server]]\nport = 1\nlisten = 'tcp:0'\n",
    "good.toml": "[[server]]\nhandler = 'shop:Lines'\n",
    "two.toml": "[[server]]\nport = 7070\n[[server]]\nport = 7071\n",
    "reload.toml": "[[server]]\nreload = true\n",
    "program.py": "print('it has no handler')\n",
    "web.py": "import http.server\n\n\nclass Web(http.server.BaseHTTPRequestHandler):\n    pass\n",
    "goods/list.py": "",
    "notes.txt": "",
}

Mistakes: TypeAlias = dict[str, tuple[str, ...]]

#: By command line: what its one line has in it.
OF_BOTH: Mistakes = {
    # What is served
    "-H shpo:Page": ("handler 'shpo:Page': no module 'shpo'; did you mean 'shop'?",),
    "-H shop:Pgae": ("handler 'shop:Pgae': no 'Pgae' in shop", "'Page'"),
    "-H site:Page": ("no 'Page' in site", "not the site.py of this folder", "another name"),
    "-H shop": ("handler 'shop': write MODULE:CLASS", "'shop:Lines'", "'shop:Packet'"),
    "-H store:Slow": ("no module 'store'; did you mean 'shop:Slow'?",),
    "-H shop:Nothing": ("no 'Nothing' in shop; it has shop:Page, shop:Lines",),
    "-H goods.lst:Page": ("no module 'goods.lst'", "did you mean 'goods.list'?"),
    "-H shop.py:Page": ("handler 'shop.py:Page'", "did you mean 'shop:Page'?"),
    "-H ./shop:Page": ("handler './shop:Page'", "did you mean 'shop:Page'?"),
    "-H shop/Page": ("handler 'shop/Page'", "did you mean 'shop:Page'?"),
    "-H shop:number": ("handler 'shop:number': 7 is not a class or callable",),
    "-H shop:Empty": ("handler 'shop:Empty': it has no do_ method", "do_GET"),
    "-H shop:wsgi": ("handler 'shop:wsgi': it is a WSGI application", "gunicorn"),
    "-l tcp:7070 -l 127.0.0.1:7070": ("listen 'tcp:7070:interface=127.0.0.1': port 7070 is that",),
    "-H http.server:SimpleHTTPRequestHandler --access-log log": (
        "access-log 'log': it would be served",
        "put it elsewhere",
    ),
    "-H unfinished:Page": ("handler 'unfinished:Page'", "SyntaxError", "unfinished.py"),
    "-H misspelt:Page": ("handler 'misspelt:Page'", "name 'undefned' is not defined"),
    "-H lonely:Page": ("handler 'lonely:Page'", "a_module_that_is_not_there"),
    "-H halfway:Page": ("handler 'halfway:Page'", "HttpRequestHandler"),
    "-H quits:Page": ("handler 'quits:Page'", "enough"),
    "-H stdlib:Lines": ("Lines: handle is async def", "derive from sockserve's class"),
    "-H stdlib:Page": ("Page: do_GET is async def", "derive from sockserve's class"),
    "-H shop:Page -p .": ("handler and path: give one of them",),
    "-H shop:Page -p 8080": ("handler and path: give one of them; a port is --port 8080",),
    "-p nowhere": ("nowhere': not a directory",),
    "-p shop.py": ("shop.py': not a directory",),
    "-p 8080": ("8080': not a directory", "--port 8080"),
    "--server shop:Page": ("server 'shop:Page': it is a handler's class", "handler"),
    "--server shop:number": ("server 'shop:number': 7 is not a socketserver.BaseServer",),
    # Where
    "--port http": ("port: 'http' is not a whole number",),
    "--port 99999": ("port: 99999 is not within 0 to 65535",),
    "--port 8080 --listen tcp:0": ("port: does not go with listen",),
    "--unix s --host ::1": ("host: does not go with unix",),
    "--certfile shop.py": ("certfile 'shop.py': it is not a PEM file: no private key in it",),
    "--certfile nowhere.pem": ("certfile 'nowhere.pem': No such file or directory",),
    "--keyfile key.pem": ("keyfile: the certificate is missing; name it by certfile",),
    "--certfile c.pem --listen tcp:0": ("certfile: does not go with listen", "write tls: or ssl:"),
    "--certfile c.pem --unix s": ("certfile: does not go with unix",),
    "--certfile c.pem -H shop:Packet": ("certfile: the handler serves datagrams",),
    "--host nowhere.invalid": ("host: 'nowhere.invalid' is not an address",),
    "--host 127.0.0.1:80": ("host: '127.0.0.1:80' is not an address",),
    "-l tcp:8080:inteface=127.0.0.1": ("unknown word 'inteface'", "did you mean 'interface'?"),
    "-l http:8080": ("unknown kind 'http'", "did you mean 'tcp:8080'?"),
    "-l tpc:8080": ("unknown kind 'tpc'", "did you mean 'tcp'?"),
    "-l https://127.0.0.1/": ("https needs a certificate", "tls:443:FOLDER"),
    "-l tcp:99999": ("listen 'tcp:99999': port 99999 is not within 0 to 65535",),
    "-l tcp:http": ("listen 'tcp:http': port 'http' is not a number",),
    "-l tcp:0:interface=nowhere.invalid": ("interface 'nowhere.invalid' is not an address",),
    "-l tcp6:0:interface=::1": ("a colon within a value is written \\:", "interface=\\:\\:1"),
    "-l ssl:0": ("listen 'ssl:0': privateKey 'server.pem', as none is given",),
    "-l ssl:0:privateKey=nowhere.pem": ("nowhere.pem", "No such file"),
    "-l tls:0:nowhere": ("certificates in 'nowhere': No such file or directory",),
    "-l tls:7443": ("certificates in '7443'",),
    "-l udp:0 -H shop:Page": ("handler Page serves streams", "tcp:"),
    "-l tcp:0 -H shop:Packet": ("handler Packet serves datagrams", "udp:"),
    "-l fd:99": ("listen 'fd:99': Bad file descriptor",),
    "-l systemd:domain=INET:index=0": ("this process was not handed such a socket",),
    "-l haproxy:udp:0": ("write haproxy: and a stream description after it",),
    "-l unix:" + "x" * 200: ("AF_UNIX path too long",),
    "-l ''": ("listen: it is empty",),
    # Times and numbers
    "--timeout idle": ("timeout 'idle': write PHASE=SECONDS", "idle=60"),
    "--timeout 60": ("timeout '60': write PHASE=SECONDS", "handle=60"),
    "--timeout idel=60": ("timeout: 'idel' is not one of", "did you mean 'idle'?"),
    "--timeout idle=0": ("timeout idle: '0' is not a number of seconds above 0",),
    "--timeout idle=-5": ("timeout idle: '-5' is not a number of seconds above 0",),
    "--timeout idle=soon": ("timeout idle: 'soon' is not", "500ms"),
    "--timeout idle=5x": ("timeout idle: '5x' is not", "1h30m"),
    "--timeout idle=nan": ("timeout idle: 'nan' is not",),
    "--timeout idle=inf": ("timeout idle: 'inf' is not",),
    "--threads 0 -H shop:Slow": ("threads: 0 is less than 1",),
    "--threads many -H shop:Slow": ("threads: 'many' is not a whole number",),
    "--threads 4 -H shop:Page": ("threads: handler Page is async def", "leave threads out"),
    "--concurrency process -H shop:Slow": ("'process' is not one of serial, threads, fork",),
    "--concurrency fork --threads 5 -H shop:Slow": ("threads: goes with concurrency threads",),
    "--max-connections lots": ("max-connections: 'lots' is not a whole number",),
    "--max-body-bytes 10mb": ("max-body-bytes: '10mb'", "10m"),
    "--max-rows 5": ("max-rows: it is for rows",),
    "--allow 10.0.0.0/33": ("allow: network '10.0.0.0/33'",),
    "--allow 10.0.0.1/8": ("allow: network '10.0.0.1/8'", "host bits"),
    "--allow localhost": ("allow: network 'localhost'",),
    "--access-log nowhere/log": ("access-log 'nowhere/log': No such file or directory",),
    "--access-log .": ("access-log '.': Is a directory",),
    "--log-format common": ("'common' is not one of combined, json",),
    "--log-format JSON": ("'JSON' is not one of combined, json", "did you mean 'json'?"),
    # Options of nobody, and of others
    "--handlr shop:Page": ("option --handlr not recognized", "did you mean '--handler'?"),
    "--max-conections 5": ("did you mean '--max-connections'?",),
    "--workers 4": ("option --workers not recognized", "--threads"),
    "--bind 0.0.0.0:80": ("option --bind not recognized", "--host"),
    "--ssl-keyfile key.pem": ("option --ssl-keyfile not recognized", "here it is --keyfile"),
    "--ca-certs ca.pem": ("option --ca-certs not recognized", "client_authority"),
    "--keep-alive 5": ("option --keep-alive not recognized", "--timeout idle="),
    "--graceful-timeout 5": ("option --graceful-timeout not recognized", "--timeout drain="),
    "--backlog 5": ("option --backlog not recognized", "--request-queue-size"),
    "--directory .": ("option --directory not recognized", "--path"),
    "--listen": ("option --listen requires argument",),
    "--check=yes": ("option --check must not have an argument",),
    # Files
    "-c nowhere.toml": ("config 'nowhere.toml': No such file or directory",),
    "-c .": ("config '.': Is a directory",),
    "-c bracket.toml": ("bracket.toml:1:9: ",),
    "-c bare.toml": ("bare.toml:2:11: Invalid value; a text is written in quotation marks",),
    "-c single.toml": ("single.toml:1:1: write [[server]], in two brackets",),
    "-c none.toml": ("none.toml: write at least one [[server]] table",),
    "-c float.toml": ("float.toml:3:11: threads: 4.5 is not a whole number",),
    "-c seconds.toml": ("seconds.toml:3:11: timeout: 5 is not a text", "{ idle = 5 }"),
    "-c plural.toml": ("plural.toml:2:3: unknown table or word 'servers'", "'server'?"),
    "-c number.toml": ("number.toml:2:10: listen: 7000 is not a text", "'tcp:7000'"),
    "-c under.toml": ("under.toml:2:1: unknown word 'max_connections'", "'max-connections'?"),
    "-c nested.toml": ("nested.toml:5:3: timeout: 'hedr' is not one of", "header"),
    "-c dotted.toml": ("dotted.toml:3:9: timeout: 'hedr' is not one of", "header"),
    "-c inline.toml": ("inline.toml:3:5: unknown word 'max-conections'", "'max-connections'?"),
    "-c items.toml": ("items.toml:5:3: listen 'tpc:0': unknown kind 'tpc'", "'tcp'?"),
    "-c networks.toml": ("networks.toml:3:3: allow: network 'nonsense'",),
    "-c long.toml": ("long.toml:6:10: timeout header: 'x' is not a number of seconds",),
    "-c second.toml": ("second.toml:3:11: handler 'shop:Pgae': no 'Pgae' in shop", "'Page'?"),
    "-c defaults.toml": ("defaults.toml:1:2: unknown table or word 'defaults'",),
    "-c folder.toml": ("folder.toml:2:8: ", "nowhere': not a directory"),
    "-c other.toml": ("other.toml:2:1: unknown word 'workers'", "threads"),
    "-c twice.toml": ("twice.toml:2:8: port: does not go with listen",),
    "-c empty.toml": ("empty.toml:2:11: handler 'shop:Empty': it has no do_ method",),
    "-c good.toml --threads 4": ("threads: handler Lines is async def",),
    "-c two.toml --port 8080": ("port: 2 servers of two.toml would listen there", "table of each"),
    "-c two.toml -l tcp:0 -l unix:s": ("listen: 2 servers of two.toml would listen there",),
    "-c reload.toml": ("reload.toml:2:1: unknown word 'reload'", "an option alone: --reload"),
    "-c good.toml --max-rows 4": ("max-rows: there is no table in good.toml",),
}
OF_TWISTD: Mistakes = {
    "shop:Page": ("'shop:Page' belongs to no option", "--handler shop:Page"),
    "8080": ("'8080' belongs to no option", "--port 8080"),
    "-n": ("option -n not recognized", "twistd", "before sockserve"),
    "--pidfile=": ("option --pidfile not recognized", "twistd", "before sockserve"),
}
OF_SOCKSERVE: Mistakes = {
    "shop:Pgae": ("handler 'shop:Pgae': no 'Pgae' in shop", "'Page'?"),
    "nowhere": ("'nowhere': there is no such folder",),
    "shop": ("'shop': there is no such folder; did you mean 'shop:Page' or 'shop:Lines'",),
    "shpo": ("'shpo': there is no such folder", "did you mean 'shop'?"),
    "gods": ("'gods': there is no such folder", "did you mean 'goods'?"),
    "program": ("no handler in program.py; to run that write sockserve program.py",),
    "--port 8080 web.py": ("'web.py' is a program", "sockserve web.py [ITS", "web:Web --port"),
    "--port 8080 program.py": ("'program.py' is a program", "as in sockserve MODULE:CLASS"),
    "--port 8080 nowhere.py": ("'nowhere.py': there is no such file",),
    "./nowhere": ("'./nowhere': there is no such folder",),
    "shop/Page": ("'shop/Page'", "did you mean 'shop:Page'?"),
    "good.toml": ("'good.toml' is a file", "--config good.toml"),
    "notes.txt": ("'notes.txt' is a file; name its folder", "sockserve run notes.txt"),
    "--port 8080 run web.py": ("'web.py' belongs to no option", "without options before run"),
    "shop:Page shop:Lines": ("'shop:Lines' belongs to no option",),
    "shop:Page -H shop:Lines": ("handler: does not go with 'shop:Page'",),
    "shop:Page -p .": ("handler and path: give one of them",),
    "shop:Page -p 8000": ("handler and path: give one of them; a port is --port 8000",),
    "8080": ("'8080' is no folder", "--port 8080"),
    ":8080": ("':8080' is no folder", "--listen :8080"),
    "127.0.0.1:8080": ("'127.0.0.1:8080' is no folder", "--listen 127.0.0.1:8080"),
    "http://localhost:8080/": ("is no folder", "--listen http://localhost:8080/"),
    "-n shop:Page": ("option -n not recognized", "foreground"),
    "--reactor epol": ("reactor 'epol'", "did you mean 'epoll'?"),
    "--print-completion powershell": ("powershell", "fish"),
}
CASES = [
    *(("twistd", line) for line in {**OF_BOTH, **OF_TWISTD}),
    *(("sockserve", line) for line in {**OF_BOTH, **OF_SOCKSERVE}),
]

#: The environment of a process that looks nowhere else for what it imports.
ENVIRON = {
    name: value for name, value in os.environ.items() if not name.startswith("SOCKSERVE_")
} | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list[object]]:
    """What each command line leads to, by command and line: status, and standard error."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    found = {}
    for command in ("twistd", "sockserve"):
        lines = [line for each, line in CASES if each == command]
        arguments = [["" if word == "''" else word for word in line.split()] for line in lines]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tests.run.mistakes", command],
            cwd=folder,
            env=ENVIRON,
            # Should one of them be none, it is not served.
            input=json.dumps([["--check", *words] for words in arguments]),
            capture_output=True,
            text=True,
            check=True,
        )
        results = json.loads(done.stdout)
        found.update({(command, line): each for line, each in zip(lines, results, strict=True)})
    return found


@pytest.mark.parametrize(("command", "line"), CASES)
def test_a_mistake_has_one_line_that_helps(
    said: dict[tuple[str, str], list[object]], command: str, line: str
) -> None:
    status, error = said[command, line]
    assert isinstance(error, str)
    assert (status, error.count("\n")) == (1, 1), error
    assert error.startswith("sockserve: ")
    of_command = OF_TWISTD if command == "twistd" else OF_SOCKSERVE
    for words in {**OF_BOTH, **of_command}[line]:
        assert words in error


def test_there_are_a_hundred() -> None:
    assert len({**OF_BOTH, **OF_TWISTD, **OF_SOCKSERVE}) >= 100
