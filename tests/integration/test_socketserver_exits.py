"""
Ends of programs on the drop-in modules: what the interpreter waits for, what a child has, and
what C{server_close} waits for.
"""

import pytest

from tests.integration.socketservers import PACKAGES, run_program

#: A handler that has begun before a program ends, and comes to its end after that, when its
#: client goes.  Who lets the client go is a daemon, or would be what keeps the program.
SLOW = """
class Slow(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"begun\\n")
        self.rfile.readline()
        os.write(1, b"done\\n")  # in one piece
        done.set()
done = threading.Event()
def close_later(client):
    def close():
        time.sleep(0.1)  # time enough to exit
        client.close()
    threading.Thread(target=close, daemon=True).start()
"""

#: Serves from threads that outlive the main one.
AFTER = (
    SLOW
    + """
server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Slow)
def clients():
    threading.main_thread().join()
    {talk}
threading.Thread(target=clients, daemon=True).start()
thread = background(server, poll_interval=0.01)
"""
)


@PACKAGES
def test_a_program_ends_when_its_handlers_do(package):
    """Those that are no daemons, whoever has taken their requests."""
    script = (
        SLOW
        + """
server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Slow)
client = connect(server)
server.handle_request()
client.recv(100)
close_later(client)
"""
    )
    assert run_program(script, package) == ["done"]


@PACKAGES
def test_a_program_goes_on_when_its_main_thread_has_ended(package):
    """And waits for handlers then begun, though serve_forever ends before them."""
    script = AFTER.format(
        talk="""
    one, other = connect(server), connect(server)
    one.recv(100), other.recv(100)
    server.shutdown()
    time.sleep(0.1)
    one.close(), other.close()
    """
    )
    assert run_program(script, package) == ["done", "done"]


@PACKAGES
def test_and_the_same_when_it_has_served_before(package):
    """Where there has been a request before the main thread's end."""
    script = (
        AFTER.format(
            talk="""
    one = connect(server)
    one.recv(100)
    server.shutdown()
    time.sleep(0.1)
    one.close()
    """
        )
        + """
os.write(1, say(server).encode() + b"\\n")  # in one piece
"""
    )
    assert sorted(run_program(script, package)) == ["begun", "done", "done"]


def test_idle_connections_do_not_keep_a_program_without_its_main_thread():
    """Where the standard library waits until the client goes."""
    script = """
    class Server(socketserver.ThreadingMixIn, http_server.HTTPServer):
        pass
    server = Server(("127.0.0.1", 0), Web)
    def clients():
        threading.main_thread().join()
        global client
        client = connect(server)
        for _ in range(2):
            client.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
            while not client.recv(1000).endswith(b"ok"):
                pass
        print("served", flush=True)
        server.shutdown()
    threading.Thread(target=clients).start()
    background(server)
    """
    assert run_program(script) == ["served"]


@pytest.mark.parametrize(
    ("daemon_threads", "state"),
    [
        (False, "accepted"),
        (False, "kept alive"),
        (True, "kept alive"),
        (False, "in the middle of a head"),
    ],
)
def test_idle_connections_do_not_keep_a_program(daemon_threads, state):
    script = f"""
    class Server(http_server.ThreadingHTTPServer):
        daemon_threads = {daemon_threads}
    server = Server(("127.0.0.1", 0), Web)
    thread = background(server)
    client = connect(server)
    if {state!r} == "kept alive":
        client.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
        while not client.recv(1000).endswith(b"ok"):
            pass
    elif {state!r} != "accepted":
        client.sendall(b"GET / HT")
    server.shutdown()
    thread.join()
    print("ended")
    """
    assert run_program(script) == ["ended"]


@PACKAGES
def test_a_program_that_has_served_exits_without_being_told(package):
    """Neither a thread of a pool nor a reactor's keeps it."""
    script = """
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(say(server))
    """
    assert run_program(script, package) == ["x"]


@PACKAGES
def test_daemon_handlers_are_not_waited_for(package):
    script = (
        SLOW
        + """
server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Slow)
server.daemon_threads = True
thread = background(server, poll_interval=0.01)
client = connect(server)
client.recv(100)
server.shutdown()
thread.join()
"""
    )
    assert run_program(script, package) == []


@PACKAGES
@pytest.mark.parametrize(
    ("block_on_close", "daemon_threads", "waits"),
    [(True, False, True), (False, False, False), (True, True, False), (False, True, False)],
)
def test_what_server_close_waits_for(package, block_on_close, daemon_threads, waits):
    script = (
        SLOW
        + f"""
class Server(socketserver.ThreadingTCPServer):
    block_on_close = {block_on_close}
    daemon_threads = {daemon_threads}
server = Server(("127.0.0.1", 0), Slow)
thread = background(server, poll_interval=0.01)
client = connect(server)
client.recv(100)
server.shutdown()
thread.join()
closing = threading.Thread(target=server.server_close)
closing.start()
closing.join(0.3 if {waits} else 15)
print(closing.is_alive(), flush=True)
client.close()
closing.join()
if {daemon_threads}:  # nobody else waits for it
    done.wait(15)
"""
    )
    assert run_program(script, package) == [str(waits), "done"]


@PACKAGES
def test_settings_of_the_instance_count(package):
    """Not only those of the class."""
    script = (
        SLOW
        + """
server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Slow)
server.block_on_close = False
thread = background(server, poll_interval=0.01)
client = connect(server)
client.recv(100)
server.shutdown()
server.server_close()
print("closed", flush=True)
client.close()
"""
    )
    assert run_program(script, package) == ["closed", "done"]


def test_server_close_on_the_reactors_thread_waits_for_nobody():
    script = """
    from twisted.internet import reactor
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    client = connect(server)
    def serve():
        server.handle_request()
        server.server_close()  # before anything has been served
        print("closed", flush=True)
        threading.Thread(target=talk).start()
    def talk():
        print(say_on(client), flush=True)
        client.close()
        reactor.callFromThread(reactor.stop)
    reactor.callWhenRunning(serve)
    reactor.run()
    """
    assert run_program(script) == ["closed", "x"]


# Forks


@PACKAGES
@pytest.mark.parametrize("state", ["serving", "stopped"])
def test_a_fork_leaves_the_parents_server_alone(package, state):
    """
    The child serves with a server of its own, and with the parent's if that has stopped; the
    parent goes on with its own.
    """
    script = f"""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    thread = background(server, poll_interval=0.01)
    held = connect(server)
    print(say_on(held), flush=True)
    if {state!r} == "stopped":
        server.shutdown()
        thread.join()
    pid = os.fork()
    if pid == 0:
        try:
            with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as own:
                background(own, poll_interval=0.01)
                print("child", say(own), flush=True)
                own.shutdown()
            if {state!r} == "stopped":
                background(server, poll_interval=0.01)
                print("inherited", say(server), flush=True)
                server.shutdown()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    print(say_on(held), flush=True)
    if {state!r} == "stopped":
        thread = background(server, poll_interval=0.01)
    print(say(server))
    server.shutdown()
    thread.join()
    held.close()
    server.server_close()
    """
    inherited = ["inherited", "x"] if state == "stopped" else []
    assert run_program(script, package) == ["x", "child", "x", *inherited, "x", "x"]


@PACKAGES
def test_workers_forked_before_share_a_listener(package):
    """Prefork: each child serves what it accepts from the parent's socket."""
    script = """
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as warm:
        thread = background(warm, poll_interval=0.01)
        say(warm)  # so that there is a reactor
        warm.shutdown()
        thread.join()
    server.socket.setblocking(False)
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, lambda *arguments: os._exit(0))
            server.serve_forever()
        pids.append(pid)
    print(*[say(server) for _ in range(6)])
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
    """
    assert run_program(script, package) == ["x"] * 6


# What is the program's own


def test_signals_are_left_as_they_are():
    """Unlike by a reactor that a program runs by itself."""
    script = """
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP]
    before = [signal.getsignal(number) for number in numbers]
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = background(server)
        print(say(server))
        print([signal.getsignal(number) for number in numbers] == before)
        print(signal.set_wakeup_fd(-1))
        server.shutdown()
        thread.join()
    """
    assert run_program(script) == ["x", "True", "-1"]


def test_signals_and_the_wakeup_descriptor_are_the_programs():
    script = """
    handled = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda number, frame: handled.append(number))
    inner, outer = socket.socketpair()
    inner.setblocking(False)
    signal.set_wakeup_fd(inner.fileno())
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = background(server)
        print(say(server))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            os.kill(os.getpid(), number)
        server.shutdown()
        thread.join()
    print(handled == [signal.SIGINT, signal.SIGTERM, signal.SIGCHLD])
    print(signal.set_wakeup_fd(-1) == inner.fileno(), len(outer.recv(100)))
    print("twisted.internet.reactor" in sys.modules)
    """
    assert run_program(script) == ["x", "True", "True", "3", "False"]


@PACKAGES
def test_a_keyboard_interrupt_reaches_who_called_serve_forever(package):
    script = """
    # A shell that starts the tests in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        def interrupt():
            print(say(server))
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("interrupted")
    """
    assert run_program(script, package) == ["x", "interrupted"]


def test_a_signal_handler_may_say_shutdown():
    """On the very thread that serves, where the standard library waits for itself."""
    script = """
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        signal.signal(signal.SIGTERM, lambda *arguments: server.shutdown())
        ended = threading.Event()
        def stop():
            print(say(server))
            # A signal that comes just before a wait is heard of after it: then by the next.
            while not ended.wait(0.1):
                os.kill(os.getpid(), signal.SIGTERM)
        threading.Thread(target=stop).start()
        server.serve_forever(3600)
        ended.set()
    print("ended")
    """
    assert run_program(script) == ["x", "ended"]


def test_a_reactor_of_the_programs_serves_while_it_runs():
    """And no other is started."""
    script = """
    from twisted.internet import reactor, threads
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo)
    def talk():
        thread = background(server)
        print(say(server))
        server.shutdown()
        thread.join()
        print([each.name for each in threading.enumerate()].count("sockserve reactor"))
    def stop(result):
        server.server_close()  # on the reactor's own thread
        reactor.stop()
    reactor.callWhenRunning(lambda: threads.deferToThread(talk).addBoth(stop))
    reactor.run()
    """
    assert run_program(script) == ["x", "0"]


def test_a_reactor_of_the_programs_may_be_installed_later():
    script = """
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = background(server)
        print(say(server))
        from twisted.internet import asyncioreactor
        asyncioreactor.install()
        from twisted.internet import reactor, threads
        reactor.callWhenRunning(
            lambda: threads.deferToThread(say, server).addCallback(print).addBoth(
                lambda _: reactor.stop()))
        reactor.run()
        print(say(server))
        server.shutdown()
        thread.join()
    """
    assert run_program(script) == ["x", "x", "x"]


def test_when_the_programs_reactor_has_stopped_another_serves():
    script = """
    from twisted.internet import reactor, threads
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = background(server)
        reactor.callWhenRunning(
            lambda: threads.deferToThread(say, server).addCallback(print).addBoth(
                lambda _: reactor.stop()))
        reactor.run()
        print(say(server))
        server.shutdown()
        thread.join()
    """
    assert run_program(script) == ["x", "x"]


@PACKAGES
@pytest.mark.parametrize("way", ["server_close", "exit"])
def test_handlers_outlive_the_programs_reactor(package, way):
    script = (
        SLOW
        + f"""
from twisted.internet import reactor, threads
server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Slow)
thread = background(server, poll_interval=0.01)
def talk():
    client = connect(server)
    print(client.recv(100).decode(), end="", flush=True)
    server.shutdown()
    return client
def stop(result):
    reactor.stop()
    global client
    client = result
reactor.callWhenRunning(lambda: threads.deferToThread(talk).addBoth(stop))
reactor.run()
close_later(client)
if {way!r} == "server_close":
    server.server_close()
    print("closed")
"""
    )
    ended = ["closed"] if way == "server_close" else []
    assert run_program(script, package) == ["begun", "done", *ended]
