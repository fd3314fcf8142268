"""Programs on the drop-in modules, in processes of their own: how they drive their servers."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60

BOTH = pytest.mark.parametrize("package", ["", "sockserve."], ids=["stdlib", "sockserve"])

PREAMBLE = """
import http.client, os, select, signal, socket, sys, threading, time
import {package}socketserver as socketserver
import {package}http.server as server_module

class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)

class Web(server_module.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *arguments):
        pass

def say(address, line=b"x\\n"):
    with socket.create_connection(address, 15) as client:
        client.sendall(line)
        return client.makefile("rb").readline()

def background(server, **words):
    thread = threading.Thread(target=server.serve_forever, kwargs=words)
    thread.start()
    return thread
"""


def run(script, package="sockserve."):
    """What a program prints; it must end by itself, well, and silently on standard error."""
    ran = subprocess.run(
        [sys.executable, "-c", PREAMBLE.format(package=package) + textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert ran.stderr == ""
    assert ran.returncode == 0
    return ran.stdout.split()


@BOTH
def test_served_by_a_thread_and_shut_down_again_and_again(package):
    script = """
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        for _ in range(3):
            thread = background(server, poll_interval=0.01)
            print(say(server.server_address).decode())
            server.shutdown()
            thread.join()
    """
    assert run(script, package) == ["x", "x", "x"]


def test_shutdown_is_heard_at_once():
    script = """
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    for _ in range(20):
        thread = background(server, poll_interval=3600)
        say(server.server_address)
        began = time.monotonic()
        server.shutdown()
        thread.join()
        assert time.monotonic() - began < 2
    server.server_close()
    """
    run(script)


def test_shutdown_before_serve_forever_and_twice():
    """Where the standard library waits for ever."""
    script = """
    server = socketserver.TCPServer(("127.0.0.1", 0), Echo)
    server.shutdown()
    server.shutdown()
    server.serve_forever()  # whoever said so before it began is obeyed
    thread = background(server)
    print(say(server.server_address).decode())
    server.shutdown()
    server.shutdown()
    thread.join()
    server.server_close()
    """
    assert run(script) == ["x"]


def test_a_handler_shuts_its_own_serial_server_down():
    """Where the standard library waits for itself."""
    script = """
    class Last(socketserver.StreamRequestHandler):
        def handle(self):
            self.server.shutdown()
            self.wfile.write(b"bye\\n")
    server = socketserver.TCPServer(("127.0.0.1", 0), Last)
    thread = background(server)
    print(say(server.server_address).decode())
    thread.join()
    server.server_close()
    """
    assert run(script) == ["bye"]


@BOTH
def test_handle_request_after_a_select_of_the_programs_own(package):
    script = """
    for base in (socketserver.TCPServer, socketserver.ThreadingTCPServer):
        server = base(("127.0.0.1", 0), Echo)
        answers = []
        client = threading.Thread(target=lambda: answers.append(say(server.server_address)))
        client.start()
        assert select.select([server.fileno()], [], [], 15)[0]
        server.handle_request()
        client.join()
        server.server_close()
        print(answers[0].decode())
    """
    assert run(script, package) == ["x", "x"]


@BOTH
def test_handle_request_times_out(package):
    script = """
    class Impatient(socketserver.ThreadingTCPServer):
        @property
        def timeout(self):
            return 0.05
        def handle_timeout(self):
            print("late")
    with Impatient(("127.0.0.1", 0), Echo) as server:
        server.handle_request()
    """
    assert run(script, package) == ["late"]


@BOTH
def test_the_interpreter_waits_for_handlers_that_are_no_daemons(package):
    script = """
    class Slow(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"begun\\n")
            self.rfile.readline()
            print("done", flush=True)
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Slow)
    client = socket.create_connection(server.server_address)
    server.handle_request()
    client.recv(100)
    threading.Timer(0.3, client.close).start()
    """
    assert run(script, package) == ["done"]


@BOTH
def test_the_interpreter_waits_for_no_daemon_nor_for_what_is_idle(package):
    script = """
    server = server_module.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    loop = threading.Thread(target=server.serve_forever, daemon=True)
    loop.start()
    client = http.client.HTTPConnection(*server.server_address)
    client.request("GET", "/")
    print(client.getresponse().read().decode(), flush=True)
    server.shutdown()
    """
    assert run(script, package) == ["ok"]


def test_a_closed_server_ends_idle_connections():
    script = """
    class Server(socketserver.ThreadingMixIn, server_module.HTTPServer):
        pass
    server = Server(("127.0.0.1", 0), Web)
    thread = background(server)
    client = http.client.HTTPConnection(*server.server_address)
    client.request("GET", "/")
    client.getresponse().read()
    server.shutdown()
    server.server_close()  # which waits for its requests
    print(len(client.sock.recv(1)))
    """
    assert run(script) == ["0"]


@BOTH
def test_no_thread_is_left_when_a_server_has_closed(package):
    script = """
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:  # has what stays
        background(server), say(server.server_address), server.shutdown()
    before = set(threading.enumerate())
    for _ in range(20):
        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
            thread = background(server)
            say(server.server_address)
            server.shutdown()
            thread.join()
        assert set(threading.enumerate()) <= before, threading.enumerate()
    """
    run(script, package)


@BOTH
def test_a_reactor_turn_takes_a_request_and_closes_the_server(package):
    """What has yet to be done on that thread cannot be waited for there."""
    script = """
    from twisted.internet import reactor
    class Hello(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"hello\\n")
    def take():
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Hello)
        with socket.create_connection(server.server_address, 15) as client:
            server.handle_request()
            server.server_close()
            reactor.callInThread(answer, client.dup())
    def answer(client):
        with client:
            print(client.makefile("rb").readline().decode())
        reactor.callFromThread(reactor.stop)
    reactor.callWhenRunning(take)
    reactor.run()
    """
    assert run(script, package) == ["hello"]


@BOTH
def test_a_child_forked_by_the_program_serves(package):
    script = """
    import warnings
    warnings.simplefilter("ignore")
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    thread = background(server)
    say(server.server_address)
    server.shutdown()
    thread.join()
    pid = os.fork()
    if pid == 0:
        try:
            thread = background(server)
            answer = say(server.server_address)
            server.shutdown()
            with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as other:
                thread = background(other)
                answer += say(other.server_address)
                other.shutdown()
            print(answer.decode(), flush=True)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    server.server_close()
    """
    assert run(script, package) == ["x", "x"]


def test_signals_are_left_alone():
    script = """
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP]
    before = [signal.getsignal(number) for number in numbers]
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    thread = background(server)
    say(server.server_address)
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1
    server.shutdown()
    server.server_close()
    """
    run(script)


def test_an_applications_reactor_serves_while_it_runs():
    script = """
    from twisted.internet import reactor, threads
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    def talk():
        thread = background(server)
        answer = say(server.server_address)
        server.shutdown()
        thread.join()
        print(answer.decode())
        print([each.name for each in threading.enumerate()].count("sockserve reactor"))
    def stop(result):
        server.server_close()  # on the reactor's own thread
        reactor.stop()
    reactor.callWhenRunning(lambda: threads.deferToThread(talk).addBoth(stop))
    reactor.run()
    """
    assert run(script) == ["x", "0"]


def test_threads_are_bounded_and_others_wait():
    script = """
    import logging
    said = []
    logging.getLogger("sockserve").addFilter(lambda record: said.append(record.getMessage()))
    class Few(socketserver.ThreadingTCPServer):
        max_threads = 4
        request_queue_size = 100
    with Few(("127.0.0.1", 0), Echo) as server:
        thread = background(server)
        clients = [socket.create_connection(server.server_address, 15) for _ in range(12)]
        for client in clients:
            client.sendall(b"x\\n")
        answered = 0
        while answered < 12:
            ready = select.select(clients, [], [], 15)[0]
            assert ready
            for client in ready:
                assert client.recv(100) == b"x\\n"
                client.close()
                clients.remove(client)
                answered += 1
            handlers = [t for t in threading.enumerate() if t.name.startswith("sockserve-")]
            assert len(handlers) <= 4, handlers
        server.shutdown()
        thread.join()
    print(len(said), "max_threads" in said[0])
    """
    assert run(script) == ["1", "True"]


def test_idle_keep_alive_connections_hold_no_threads():
    script = """
    class Server(server_module.ThreadingHTTPServer):
        request_queue_size = 500
    with Server(("127.0.0.1", 0), Web) as server:
        thread = background(server)
        clients = []
        for _ in range(300):
            client = http.client.HTTPConnection(*server.server_address)
            client.request("GET", "/")
            client.getresponse().read()
            clients.append(client)
        print(threading.active_count() < 20, len(os.listdir("/proc/self/fd")) < 2 * 300 + 50)
        server.shutdown()
        thread.join()
    """
    assert run(script) == ["True", "True"]


@BOTH
def test_system_exit_in_a_handler_reaches_the_excepthook(package):
    script = """
    class Leaves(socketserver.BaseRequestHandler):
        def handle(self):
            sys.exit(3)
    seen = []
    threading.excepthook = lambda hook: seen.append(hook.exc_type.__name__)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Leaves) as server:
        with socket.create_connection(server.server_address) as client:
            server.handle_request()
            client.recv(1)
    print(*seen)
    """
    assert run(script, package) == ["SystemExit"]


@BOTH
def test_finish_request_of_its_own_gets_the_accepted_socket_once(package):
    script = """
    class Server(server_module.ThreadingHTTPServer):
        daemon_threads = False
        def get_request(self):
            self.accepted = super().get_request()
            return self.accepted
        def finish_request(self, request, client_address):
            print((request, client_address) == self.accepted, type(request).__name__)
            self.RequestHandlerClass(request, client_address, self)
    with Server(("127.0.0.1", 0), Web) as server:
        thread = background(server)
        client = http.client.HTTPConnection(*server.server_address)
        for _ in range(2):
            client.request("GET", "/")
            client.getresponse().read()
        client.close()
        server.shutdown()
        thread.join()
    """
    assert run(script, package) == ["True", "socket"]


def test_a_handler_object_for_each_connection_where_that_is_asked_for():
    script = """
    class Counts(Web):
        count = 0
        def do_GET(self):
            self.count += 1
            print(self.count)
            super().do_GET()
    class Server(server_module.ThreadingHTTPServer):
        daemon_threads = False
        parks_connections = False
    with Server(("127.0.0.1", 0), Counts) as server:
        thread = background(server)
        client = http.client.HTTPConnection(*server.server_address)
        for _ in range(2):
            client.request("GET", "/")
            client.getresponse().read()
        client.close()
        server.shutdown()
        thread.join()
    """
    assert run(script) == ["1", "2"]


@BOTH
def test_overrides_run_where_they_always_did(package):
    script = """
    where = {}
    def note(name, method):
        def noting(self, *arguments):
            where.setdefault(name, set()).add(threading.current_thread())
            return method(self, *arguments)
        return noting
    class Raises(socketserver.BaseRequestHandler):
        def handle(self):
            raise ValueError
    base = socketserver.ThreadingTCPServer
    names = ["get_request", "verify_request", "process_request", "service_actions",
             "finish_request", "shutdown_request", "close_request"]
    def handle_error(self, request, client_address):
        assert sys.exc_info()[0] is ValueError
    overrides = {name: note(name, getattr(base, name)) for name in names}
    overrides["handle_error"] = note("handle_error", handle_error)
    Server = type("Server", (base,), overrides)
    with Server(("127.0.0.1", 0), Raises) as server:
        thread = background(server, poll_interval=0.01)
        with socket.create_connection(server.server_address) as client:
            client.recv(1)
        while "service_actions" not in where:
            time.sleep(0.01)
        server.shutdown()
        thread.join()
    handlers = where["finish_request"]
    for name in names + ["handle_error"]:
        print("serving" if where[name] == {thread} else
              "handler" if where[name] == handlers else where[name])
    """
    assert run(script, package) == ["serving"] * 4 + ["handler"] * 4
