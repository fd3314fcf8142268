"""Development servers of web frameworks, wsgiref below and beside them, and XML-RPC."""

import threading
import xmlrpc.client

import pytest

from tests.integration.servers import certificate_file, connect
from tests.integration.socketservers import eventually
from tests.programs.running import connections_of, curl, on_both, running, status_of

pytestmark = [pytest.mark.usefixtures("no_leaks"), on_both]


@pytest.mark.parametrize("kind", ["threaded", "processes"])
def test_flask_on_werkzeugs_server(modules, kind):
    with running("flask_app", modules, kind) as program:
        url = program.url
        assert connections_of(f"{url}/?[1-3]") == ["1", "1", "1"]  # it says Connection: close
        assert curl(f"{url}/", f"{url}/") == "hello world" * 2
        assert curl("--data", "name=x", f"{url}/") == "hello x"
        assert curl("--form", "name=y", f"{url}/") == "hello y"
        assert curl("--data-binary", "x" * 100, f"{url}/upload") == "100 None"
        chunked = ["--header", "Transfer-Encoding: chunked"]
        sent = curl(*chunked, "--data-binary", "@-", f"{url}/upload", input="x" * 2_000_000)
        assert sent == "2000000 chunked"  # which waits for 100 Continue first
        head = curl("--include", f"{url}/stream").split("\n\n")
        assert "Transfer-Encoding: chunked" in head[0]
        assert head[1] == "0\n1\n2\n"
        assert curl("--head", f"{url}/").startswith("HTTP/1.1 200 OK\n")
        failed = curl("--include", f"{url}/fail", f"{url}/")
        assert failed.startswith("HTTP/1.1 500 INTERNAL SERVER ERROR\n")
        assert "Internal Server Error" in failed
        assert failed.endswith("hello world")
        assert status_of(f"{url}/none") == "404"
        served_here = curl(f"{url}/process") == str(program.process.pid)
        assert served_here == (kind == "threaded")
        assert program.interrupt() == ""
        log = program.log
        assert "ValueError: on purpose\n" in log
        assert '"POST /upload HTTP/1.1" 200 -' in log
        assert '"GET /none HTTP/1.1" 404 -' in log


def test_werkzeugs_server_with_tls(modules):
    with running("flask_app", modules, "tls") as program:
        url = program.secure_url
        assert curl("--insecure", f"{url}/", "--data", "name=x", f"{url}/") == "hello x" * 2
        assert connections_of("--insecure", f"{url}/?[1-3]") == ["1", "1", "1"]


@pytest.mark.parametrize("option", ["", "--nothreading"])
def test_djangos_runserver(modules, option):
    with running("django_site", modules, *filter(None, [option])) as program:
        url = program.url
        assert connections_of(f"{url}/?[1-3]") == (["1", "1", "1"] if option else ["1", "0", "0"])
        assert curl(f"{url}/", f"{url}/") == "hello GET world" * 2
        assert curl("--data", "name=x", f"{url}/") == "hello POST x"
        assert curl("--form", "name=y", f"{url}/") == "hello POST y"
        assert curl(f"{url}/stream") == "0\n1\n2\n"
        assert curl("--head", f"{url}/").startswith("HTTP/1.1 200 OK\n")
        failed = curl("--include", f"{url}/fail")
        assert failed.startswith("HTTP/1.1 500 Internal Server Error\n")
        assert "on purpose" in failed
        assert status_of(f"{url}/none") == "404"
        # It tells somebody who speaks TLS to it.
        curl(program.secure_url, status=35)
        program.interrupt()
        assert '"POST / HTTP/1.1" 200' in program.log
        assert "only supports HTTP" in program.log


@pytest.mark.parametrize("secure", [False, True])
def test_prometheus_client(modules, secure, tmp_path):
    certificate = [certificate_file(tmp_path)] if secure else []
    with running("prometheus", modules, *certificate) as program:
        url = f"{program.secure_url if secure else program.url}/metrics"
        trust = ["--cacert", *certificate] if secure else []
        for compressed in ([], ["--compressed"]):
            page = curl(*trust, *compressed, url)
            assert "program_total 1.0" in page
        if secure:
            curl(url, status=60)  # one that does not trust it
            with connect(program.address) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert curl(*trust, url) != ""
        assert program.interrupt() == "down\n"


@pytest.mark.parametrize("kind", ["plain", "threading"])
def test_wsgiref(modules, kind):
    with running("wsgi", modules, kind) as program:
        url = program.url
        page = curl("--data", "x=y", f"{url}/a?b=c")
        assert page.startswith("Hello world!\n")
        assert "QUERY_STRING = 'b=c'" in page
        assert "REQUEST_METHOD = 'POST'" in page
        body = "x" * 2_000_000
        assert curl("--data-binary", "@-", f"{url}/echo", input=body) == body
        assert curl(f"{url}/stream") == "0\n1\n2\n"
        assert status_of(f"{url}/fail") == "500"
        assert curl("--include", f"{url}/").startswith("HTTP/1.0 200 OK\n")
        # A thread writes this after its answer.
        eventually(lambda: '"POST /echo HTTP/1.1" 200 2000000\n' in program.log)
        program.interrupt()
        assert "ValueError: on purpose\n" in program.log


def test_xmlrpc(modules):
    with (
        running("xmlrpc_plain", modules) as program,
        xmlrpc.client.ServerProxy(f"{program.url}/RPC2") as proxy,
    ):
        assert [proxy.pow(2, 3), proxy.add(2, 3), proxy.mul(5, 2)] == [8, 5, 10]
        methods = ["add", "mul", "pow", "system.listMethods"]
        assert [name for name in proxy.system.listMethods() if name in methods] == methods
        assert "Equivalent to" in proxy.system.methodHelp("pow")
        calls = xmlrpc.client.MultiCall(proxy)
        calls.add(1, 2)
        calls.mul(3, 4)
        assert list(calls()) == [3, 12]
        with pytest.raises(xmlrpc.client.Fault, match="TypeError"):
            proxy.pow("x", 1)
        with (
            xmlrpc.client.ServerProxy(f"{program.url}/other") as other,
            pytest.raises(xmlrpc.client.ProtocolError, match="404"),
        ):
            other.add(1, 2)
        assert status_of(f"{program.url}/RPC2") == "501"
        program.interrupt()
        assert '"POST /RPC2 HTTP/1.1" 200 -\n' in program.log


def test_xmlrpc_with_threads(modules):
    with (
        running("xmlrpc_threading", modules) as program,
        xmlrpc.client.ServerProxy(program.url, allow_none=True) as proxy,
        xmlrpc.client.ServerProxy(program.url) as other,
    ):
        assert proxy.echo(None) is None  # and the connection stays
        met = []
        waiting = threading.Thread(target=lambda: met.append(other.meet("other")))
        waiting.start()
        assert proxy.meet("one") == "one"
        waiting.join()
        assert met == ["other"]
        large = xmlrpc.client.Binary(bytes(range(256)) * 4000)  # compressed, there and back
        assert proxy.echo(large) == large
        assert "<title>Python: XML-RPC Server Documentation</title>" in curl(program.url)


def test_xmlrpc_with_several_paths(modules):
    with running("xmlrpc_paths", modules) as program:
        for path, result in (("one", 1), ("two", 2)):
            with xmlrpc.client.ServerProxy(f"{program.url}/{path}") as proxy:
                assert proxy.which() == result
        with (
            xmlrpc.client.ServerProxy(f"{program.url}/three") as proxy,
            pytest.raises(xmlrpc.client.Fault, match="KeyError"),
        ):
            proxy.which()
