"""Coroutine HTTP handlers and the clients people have: curl, wrk, ab, a browser."""

import email
import email.policy
import functools
import gzip
import json
import re
import subprocess
import time

import pytest
from twisted.internet.task import deferLater

from sockserve import Deadlines
from sockserve.http import FileRequestHandler, HTTPRequestHandler
from sockserve.observe.access_log import AccessLog
from tests.integration.servers import (
    PATIENCE_SECONDS,
    certificate_file,
    connect,
    connect_tls,
    counts,
    description,
    in_thread,
    is_ended,
    serving,
    until,
)
from tests.integration.test_twistd import Twistd
from tests.integration.web import Conversation, get, post
from tests.tools import need_tool

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

#: What loading a machine with two processors twice over may take.
LONG_SECONDS = 90.0


class Site(HTTPRequestHandler):
    """A few of the things sites do."""

    async def do_GET(self):
        if self.path == "/slow":
            await deferLater(self.server.reactor, 0.01)
        body = b"Hello, world!"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    async def do_PUT(self):
        size = 0
        while piece := await self.rfile.read(65536):
            size += len(piece)
        framing = self.headers["Transfer-Encoding"] or self.headers["Content-Length"]
        self.send_response(201)
        self.end_headers()
        self.wfile.write(f"{size} {framing}".encode())

    async def do_POST(self):
        """Tell the fields of a form."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        form = email.message_from_bytes(head + await self.rfile.read(), policy=email.policy.HTTP)
        fields = {
            part.get_param("name", header="Content-Disposition"): len(part.get_payload(decode=True))
            for part in form.iter_parts()
        }
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(fields).encode())


async def run(program, *arguments, input=None, seconds=LONG_SECONDS):
    """A program's output; it is to end well."""
    command = [need_tool(program), *map(str, arguments)]
    ended = await in_thread(
        lambda: subprocess.run(
            command, input=input, capture_output=True, timeout=seconds, check=False
        )
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout


async def curl(*arguments, **options):
    return await run("curl", "-sS", "--max-time", PATIENCE_SECONDS, *arguments, **options)


def url(server, path="/", scheme="http"):
    host, port = server.server_address[:2]
    return f"{scheme}://{host}:{port}{path}"


# curl

HELLO = b"Hello, world!"
LARGE = b"x" * 3_000_000


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], HELLO),
        (["--http1.0"], HELLO),
        (["--http1.0", "-H", "Connection: keep-alive"], HELLO),
        (["--compressed"], HELLO),
        (["-X", "BREW", "-o", "/dev/null", "-w", "%{http_code}"], b"501"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/slow"])
async def test_curl(arguments, expected, path):
    async with serving(Site) as server:
        assert await curl(*arguments, url(server, path)) == expected


async def test_curl_uses_its_connection_again():
    async with serving(Site) as server:
        said = await curl("-w", " %{num_connects} ", *[url(server), url(server, "/slow")] * 2)
    assert said == b" 1 ".join([HELLO, b" 0 ".join([HELLO] * 3)]) + b" 0 "


@pytest.mark.parametrize(
    ("arguments", "body", "framing"),
    [
        (["-T", "-"], LARGE, b"chunked"),
        (["-T", "-"], b"", b"chunked"),
        (["-X", "PUT", "--data-binary", "@-"], LARGE, b"3000000"),
        # It would wait a minute for the 100 that it asks for.
        (["-T", "-", "-H", "Expect: 100-continue", "--expect100-timeout", "60"], LARGE, b"chunked"),
    ],
)
async def test_curl_uploads(arguments, body, framing):
    async with serving(Site) as server:
        said = await curl(*arguments, url(server), input=body)
    assert said == b"%d %b" % (len(body), framing)


async def test_curl_as_of_1991():
    """HTTP/0.9 has no head to answer, whatever the client would understand."""

    class OldSite(Site):
        default_request_version = "HTTP/0.9"

    async with serving(OldSite) as server:

        def client():
            with Conversation(server.server_address) as conversation:
                conversation.send(b"GET /\r\n")
                return conversation.rest()

        assert await in_thread(client) == HELLO
        # curl speaks 1.1 here, and no worse for being ready for 0.9.
        assert await curl("--http0.9", url(server)) == HELLO


async def test_curl_head():
    async with serving(Site) as server:
        head = (await curl("-I", url(server))).decode()
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert head.endswith("\r\n\r\n")
    assert "Content-Type: text/plain\r\n" in head


async def test_curl_uploads_a_form(tmp_path):
    file = tmp_path / "file.bin"
    file.write_bytes(bytes(range(256)) * 1000)
    async with serving(Site) as server:
        said = await curl("-F", "name=value", "-F", f"file=@{file}", url(server))
    assert json.loads(said) == {"name": 5, "file": 256_000}


def files_in(folder):
    """A handler of the files in C{folder}, as C{--path} has it."""
    return functools.partial(FileRequestHandler, directory=str(folder))


async def test_curl_resumes_a_download(tmp_path):
    (tmp_path / "file").write_bytes(LARGE[:-3] + b"end")
    async with serving(files_in(tmp_path)) as server:
        assert await curl("-r", "-3", url(server, "/file")) == b"end"
        assert await curl("-r", "2999995-", url(server, "/file")) == b"xxend"
        (tmp_path / "part").write_bytes(LARGE[:1000])
        await curl("-C", "-", "-o", tmp_path / "part", url(server, "/file"))
    assert (tmp_path / "part").read_bytes() == (tmp_path / "file").read_bytes()


# Load


@pytest.mark.parametrize("path", ["/", "/slow"])
async def test_wrk(path):
    async with serving(Site) as server:
        answered = 0
        while not answered:  # a busy machine may answer nothing in a second
            where = url(server, path)
            said = (await run("wrk", "-t2", "-c50", "-d1s", "--timeout", "60s", where)).decode()
            assert "Socket errors" not in said
            assert "Non-2xx" not in said
            answered = int(re.search(r"(\d+) requests in", said)[1])
        await until(lambda: not server.statistics.active)
        assert 0 < answered <= server.statistics.requests
        assert set(counts(server)) == {"accepted", "requests"}


@pytest.mark.parametrize("keep_alive", [[], ["-k"]])
@pytest.mark.parametrize("path", ["/", "/slow"])
async def test_ab(keep_alive, path):
    async with serving(Site) as server:
        options = ["-q", "-n", 500, "-c", 20, *keep_alive]
        said = (await run("ab", *options, url(server, path))).decode()
        assert re.search(r"Complete requests:\s+500\b", said)
        assert re.search(r"Failed requests:\s+0\b", said)
        assert "Non-2xx" not in said
        await until(lambda: not server.statistics.active)
        assert counts(server)["requests"] == 500
        # A handler that waits does not know its length: to HTTP/1.0, that ends the connection.
        kept = bool(keep_alive) and path == "/"
        assert bool(re.search(r"Keep-Alive requests:\s+500\b", said)) == kept


# A browser

ASSETS = {
    "css": (8, ".c { color: red }\n" + "/* . */" * 10_000),
    "js": (6, "window.scripts = (window.scripts || 0) + 1\n" + "// .\n" * 10_000),
    "svg": (6, '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
}

LINKS = {
    "css": "<link rel=stylesheet href={}>",
    "js": "<script src={}></script>",
    "svg": "<img src={}>",
}

PAGE = """<!doctype html><title>loading</title>
{links}<p id=count></p>
<script>
onload = () => {{
    const styles = [...document.styleSheets].filter(sheet => sheet.cssRules.length == 1)
    const images = [...document.images].filter(image => image.naturalWidth == 9)
    document.getElementById("count").textContent =
        `${{styles.length}} styles, ${{window.scripts}} scripts, ${{images.length}} images`
}}
</script>
"""


def write_page(folder):
    """A page with twenty assets, which says how many of them are there."""
    links = []
    for kind, (count, text) in ASSETS.items():
        for number in range(count):
            name = f"{number}.{kind}"
            (folder / name).write_text(text)
            links.append(LINKS[kind].format(name))
    (folder / "page.html").write_text(PAGE.format(links="\n".join(links)))


async def browse(address, profile):
    """The page as a browser has it once it is loaded."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options += [f"--user-data-dir={profile}", "--virtual-time-budget=20000"]
    return (await run("chromium", *options, "--dump-dom", address)).decode()


async def test_a_browser_gets_a_page_and_all_it_asks_for(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    write_page(site)
    async with serving(files_in(site)) as server:
        dom = await browse(url(server, "/page.html"), tmp_path / "profile")
        assert "8 styles, 6 scripts, 6 images" in dom
        assert counts(server)["requests"] >= 21
        assert "errors" not in counts(server)
        classes = server.statistics.snapshot()["responses"]
        assert classes["2xx"] >= 21
        assert set(classes) <= {"2xx", "4xx"}  # it asks for an icon of its own accord


async def test_a_browser_browses_a_folder(tmp_path):
    site = tmp_path / "site"
    (site / "sub folder").mkdir(parents=True)
    for name in ("a&b.txt", "caf\xe9.txt", '<i>"x".txt'):
        (site / name).write_text(name)

    def start():
        arguments = ["--path", str(site), "--listen", "tcp:0:interface=127.0.0.1"]
        return Twistd(tmp_path, "sockserve", *arguments, up=(": serving ", 1))

    twistd = await in_thread(start)
    try:
        dom = await browse(f"http://127.0.0.1:{twistd.port()}/", tmp_path / "profile")
        assert '<a href="sub%20folder/">sub folder/</a>' in dom
        assert ">a&amp;b.txt</a>" in dom
        assert ">caf\xe9.txt</a>" in dom
        assert "&lt;i&gt;" in dom
        assert "<i>" not in dom
        await in_thread(twistd.end)
    finally:
        twistd.kill()


# HTTPS


@pytest.mark.parametrize("kind", ["tls", "ssl"])
async def test_https(kind, tmp_path):
    where = description(kind, tmp_path)
    certificate = certificate_file(tmp_path)
    async with serving(Site, where) as server:
        assert await curl("-k", url(server, scheme="https")) == HELLO
        # By name, checked: the certificate signs itself.
        port = server.server_address[1]
        named = ["--resolve", f"localhost:{port}:127.0.0.1", "--cacert", certificate]
        options = ["-v", "--http1.1", "--stderr", "-", f"https://localhost:{port}/"]
        said = await curl(*named, *options)
        assert said.endswith(HELLO) or HELLO in said
        assert b"ALPN: server accepted http/1.1" in said
        upload = await curl("-k", "-T", "-", url(server, scheme="https"), input=LARGE)
        assert upload == b"3000000 chunked"


async def test_https_clients_read_their_errors_and_answers(tmp_path):
    deadlines = Deadlines(linger=PATIENCE_SECONDS)
    async with serving(Site, description("ssl", tmp_path), deadlines=deadlines) as server:

        def client(request):
            with Conversation(connect_tls(server.server_address)) as conversation:
                conversation.send(request)
                return conversation.answer().status

        assert await in_thread(client, get("/" + "x" * 70_000) + b"x" * 2**20) == 414
        assert await in_thread(client, post(b"x" * 2**22, target="/ignored")) == 200


@pytest.mark.parametrize("kind", ["tls", "ssl"])
async def test_a_client_that_does_not_shake_hands_is_ended(kind, tmp_path):
    deadlines = Deadlines(handshake=0.5)
    async with serving(Site, description(kind, tmp_path), deadlines=deadlines) as server:
        before = time.monotonic()
        with await in_thread(connect, server.server_address) as client:
            client.sendall(b"\x16\x03\x01")
            assert await in_thread(is_ended, client)
        assert time.monotonic() - before > 0.4
        await until(lambda: not server.statistics.active)
        assert counts(server)["expiries"] == {"handshake": 1}


# Access log


@pytest.mark.parametrize("log_format", ["combined", "json"])
async def test_the_access_log_has_each_request(log_format, tmp_path):
    from twisted.internet import reactor

    path = tmp_path / "access.log"
    log = AccessLog(reactor, str(path), log_format)
    log.startService()
    try:
        async with serving(Site) as server:
            server.observers.append(log.observer("web"))
            await curl("-A", 'a "quoted" agent', "-e", "http://from.example/", url(server, "/?q=1"))
            await curl("-I", url(server))

            def refused():
                with Conversation(server.server_address) as conversation:
                    conversation.send(b'GET /"\x1b HTTP/1.1\r\n\r\n')
                    return conversation.answer().status

            assert await in_thread(refused) == 400

            def gone():
                client = connect(server.server_address)
                client.sendall(get("/gone", "Content-Length: 3", method="PUT"))
                client.close()

            await in_thread(gone)
            await until(lambda: server.statistics.requests == 4)
            await until(lambda: not server.statistics.active)
    finally:
        log.stopService()
    lines = path.read_text().splitlines()
    if log_format == "combined":
        when = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\]"
        first, second, third, last = lines
        assert re.fullmatch(
            rf'127\.0\.0\.1 - - {when} "GET /\?q=1 HTTP/1\.1" 200 13'
            r' "http://from\.example/" "a \\"quoted\\" agent"',
            first,
        )
        expected = rf'127\.0\.0\.1 - - {when} "HEAD / HTTP/1\.1" 200 - "-" "curl/[0-9.]+"'
        assert re.fullmatch(expected, second)
        assert re.fullmatch(rf'127\.0\.0\.1 - - {when} "- \(.+\)" 400 \d+ "-" "-"', third)
        assert '"PUT /gone HTTP/1.1"' in last
    else:
        shown = [json.loads(line) for line in lines]
        names = ["listener", "method", "target", "protocol", "status", "sent", "user_agent"]
        assert [shown[0][name] for name in names] == [
            *("web", "GET", "/?q=1", "HTTP/1.1", 200, 13),
            'a "quoted" agent',
        ]
        assert [line["status"] for line in shown][:3] == [200, 200, 400]
        assert [line["outcome"] for line in shown] == ["ok", "ok", "refused", "lost"]
        assert shown[2]["method"] is None
