"""HTTP servers, each with all that L{benchmarks.servers.answers} has, where it can."""

import asyncio
import http.server
import logging
import os
import shutil
from string import Template

from benchmarks.servers import answers
from benchmarks.servers.answers import BODIES, CONSTANTS
from benchmarks.servers.start import (
    BACKLOG,
    CONNECTIONS,
    LOOPBACK,
    MANY,
    NEVER_SECONDS,
    free_port,
    listening,
    port_of,
    ready,
    ready_when_open,
    serve_factory,
    serve_sockserve,
    serve_stdlib,
    use_uvloop_reactor,
)

THREADS = 4  # waitress's default

answers.write_files()

# The least that a loop costs: a constant, whatever is asked


def http_uvloop_protocol():
    import uvloop

    class Constant(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(CONSTANTS[data[5:6]])

    sock = listening()
    loop = uvloop.new_event_loop()
    loop.run_until_complete(loop.create_server(Constant, sock=sock, backlog=BACKLOG))
    ready(port_of(sock))
    loop.run_forever()


def http_twistedprotocol():
    from twisted.internet.protocol import Factory, Protocol

    class Constant(Protocol):
        def dataReceived(self, data):
            self.transport.write(CONSTANTS[data[5:6]])

    serve_factory(Factory.forProtocol(Constant))


# In C and Rust

NGINX = Template("""
    daemon off; worker_processes 1; pid nginx.pid; error_log stderr;
    events { worker_connections $connections; }
    http {
        access_log off; default_type text/plain; sendfile on;
        keepalive_requests $many; keepalive_timeout $never;
        client_body_temp_path .; proxy_temp_path .; fastcgi_temp_path .; uwsgi_temp_path .;
        scgi_temp_path .;
        server {
            listen $host:$port backlog=$backlog;
            root $folder;
            location = / { return 200 "$greeting"; }
        }
    }
""")


def http_nginx():
    """It takes over the socket, as when one nginx replaces another."""
    sock = listening()
    os.set_inheritable(sock.fileno(), True)
    configuration = answers.FOLDER / "nginx.conf"
    configuration.write_text(
        NGINX.substitute(
            host=LOOPBACK,
            port=port_of(sock),
            backlog=BACKLOG,
            folder=answers.FOLDER,
            greeting=answers.GREETING.decode(),
            never=NEVER_SECONDS,
            connections=CONNECTIONS,
            many=MANY,
        )
    )
    os.environ["NGINX"] = f"{sock.fileno()};"
    ready(port_of(sock))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    os.execv(program, ["nginx", "-p", str(answers.FOLDER), "-c", str(configuration)])


def serve_granian(interface, **options):
    from granian import Granian

    port = free_port()
    ready_when_open(port)
    Granian(
        f"benchmarks.servers.answers:{interface}",
        address=LOOPBACK,
        port=port,
        interface=interface,
        backlog=BACKLOG,
        backpressure=CONNECTIONS,
        log_enabled=False,
        **options,
    ).serve()


def http_granian_wsgi():
    serve_granian("wsgi", blocking_threads=1)  # by default hundreds, which take turns


def http_granian_wsgi_threads():
    serve_granian("wsgi", blocking_threads=THREADS)


def http_granian_asgi():
    serve_granian("asgi", loop="uvloop")


def http_granian_rsgi():
    serve_granian("rsgi", loop="uvloop")


def http_fastpysgi():
    import fastpysgi

    port = free_port()
    fastpysgi.server.backlog = BACKLOG
    fastpysgi.server.tcp_nodelay = 1
    stdout = os.dup(1)
    os.dup2(2, 1)  # it says its version
    fastpysgi.server.init(answers.wsgi, LOOPBACK, port)
    os.dup2(stdout, 1)
    ready(port)
    fastpysgi.server.run()


def http_bjoern():
    import bjoern

    sock = listening()
    ready(port_of(sock))
    bjoern.server_run(sock, answers.wsgi)


# In Python


def serve_uvicorn(parser):
    import uvicorn

    config = uvicorn.Config(
        answers.asgi,
        loop="uvloop",
        http=parser,
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=NEVER_SECONDS,
        backlog=BACKLOG,
    )
    sock = listening()
    ready(port_of(sock))
    uvicorn.Server(config).run(sockets=[sock])


def http_uvicorn():
    serve_uvicorn("httptools")


def http_uvicorn_zttp():
    serve_uvicorn("zttp")


def http_hypercorn():
    from hypercorn.config import Config
    from hypercorn.run import run

    sock = listening()
    config = Config()
    config.application_path = "benchmarks.servers.answers:asgi"
    config.bind = f"fd://{sock.fileno()}"
    config.backlog = BACKLOG
    config.worker_class = "uvloop"
    config.workers = 0  # all in this process
    config.keep_alive_timeout = NEVER_SECONDS
    config.keep_alive_max_requests = MANY
    config.errorlog = None
    ready(port_of(sock))
    run(config)


def http_gunicorn():
    """The threaded worker: the C{sync} one keeps no connection."""
    from gunicorn.app.base import BaseApplication

    sock = listening()
    port = port_of(sock)
    os.set_inheritable(sock.fileno(), True)

    class Application(BaseApplication):
        def load_config(self):
            self.cfg.set("bind", f"fd://{sock.fileno()}")
            self.cfg.set("backlog", BACKLOG)
            self.cfg.set("worker_class", "gthread")
            self.cfg.set("threads", THREADS)
            self.cfg.set("worker_connections", CONNECTIONS)
            self.cfg.set("keepalive", NEVER_SECONDS)
            self.cfg.set("loglevel", "error")
            self.cfg.set("when_ready", lambda _: ready(port))

        def load(self):
            return answers.wsgi

    Application().run()


def http_waitress():
    import waitress

    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns of each that waits
    sock = listening()
    server = waitress.create_server(
        answers.wsgi,
        sockets=[sock],
        backlog=BACKLOG,
        threads=THREADS,
        connection_limit=CONNECTIONS,
        channel_timeout=NEVER_SECONDS,
        asyncore_use_poll=True,  # select() has no place for more than 1,024
    )
    ready(port_of(sock))
    server.run()


def http_gevent():
    from gevent.pywsgi import WSGIServer

    server = WSGIServer((LOOPBACK, 0), answers.wsgi, backlog=BACKLOG, log=None)
    server.start()
    ready(server.server_port)
    server.serve_forever()


def http_twistedweb():
    from twisted.web import resource, server, static

    file = static.File(str(answers.FILE), defaultType=answers.OCTETS)

    class Hello(resource.Resource):
        def render_GET(self, request):
            if request.path == b"/file":
                return file.render_GET(request)
            content_type, body = BODIES[request.path.decode()]
            request.setHeader(b"Content-Type", content_type)
            return body

    class Site(server.Site):
        def log(self, request):
            """No access log here, either."""

    hello = Hello()
    hello.isLeaf = True
    serve_factory(Site(hello, timeout=NEVER_SECONDS))


def http_twistedweb_uvloop():
    """By way of Twisted's reactor for asyncio."""
    import uvloop
    from twisted.internet import asyncioreactor

    asyncioreactor.install(uvloop.new_event_loop())
    http_twistedweb()


def http_twistedweb_uvloop_reactor():
    use_uvloop_reactor()
    http_twistedweb()


# The standard library's, and ours for its programs


class StdlibHello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        content_type, body = BODIES[self.path]
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """No access log here, either."""


class StdlibHelloAtOnce(StdlibHello):
    disable_nagle_algorithm = True


def http_threading():
    serve_stdlib(http.server.ThreadingHTTPServer, StdlibHello)


def http_threading_nodelay():
    serve_stdlib(http.server.ThreadingHTTPServer, StdlibHelloAtOnce)


def http_dropin():
    import sockserve.http.server

    serve_stdlib(sockserve.http.server.ThreadingHTTPServer, StdlibHello)


# sockserve


def http_sockserve():
    from sockserve.http import HTTPRequestHandler

    class Hello(HTTPRequestHandler):
        async def do_GET(self):
            content_type, body = BODIES[self.path]
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            self.wfile.write(body)

    serve_sockserve("tcp", Hello)


def http_sockserve_uvloop_reactor():
    use_uvloop_reactor()
    http_sockserve()


def http_sockserve_files():
    from sockserve.http import FileRequestHandler

    class Files(FileRequestHandler):
        directory = str(answers.FOLDER)

    serve_sockserve("tcp", Files)


def http_sockserve_files_uvloop_reactor():
    use_uvloop_reactor()
    http_sockserve_files()


def http_sockserve_threads():
    from sockserve.http import HTTPRequestHandler

    class Hello(HTTPRequestHandler):
        def do_GET(self):
            content_type, body = BODIES[self.path]
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            self.wfile.write(body)

    serve_sockserve("tcp", Hello)


def http_sockserve_threads_uvloop_reactor():
    use_uvloop_reactor()
    http_sockserve_threads()


def http_sockserve_stdlib():
    serve_sockserve("tcp", StdlibHello)


def http_sockserve_stdlib_uvloop_reactor():
    use_uvloop_reactor()
    http_sockserve_stdlib()
